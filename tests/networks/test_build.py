"""Building networks from their description in a configuration or a checkpoint."""

import pytest

from lfm_policy.errors import ConfigError
from lfm_policy.networks import ConditionalUnet1d, build

SIZES = {"action_dim": 10, "cond_dim": 4}
UNET = "lfm_policy.networks.ConditionalUnet1d"


def test_the_target_is_made_with_its_arguments() -> None:
    network = build({"_target_": UNET, "dims": [16, 32]}, **SIZES)
    assert isinstance(network, ConditionalUnet1d)
    assert network.out[1].out_channels == 10


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"_target_": "lfm_policy.networks.ConditionalUnet"}, "did you mean 'ConditionalUnet1d'"),
        ({"_target_": "no.such.Network"}, "cannot be imported"),
        ({"_target_": "Network"}, "cannot be imported"),
        ({}, "expected network._target_, the dotted name of a class"),
        ({"_target_": "lfm_policy.networks.build"}, "no torch module"),
        ({"_target_": UNET, "dimensions": [16]}, "refuses"),
        ({"_target_": UNET, "dims": [10]}, "divisible by groups"),
        ({"_target_": UNET, "dims": []}, "divisible by groups"),
        ({"_target_": UNET, "dims": [0]}, "divisible by groups"),
    ],
)
def test_a_bad_description_says_what_is_wrong(spec: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(spec, **SIZES)


def test_code_from_elsewhere_is_not_run_for_a_checkpoint() -> None:
    spec = {"_target_": "torch.nn.Identity"}
    assert build(spec, **SIZES) is not None
    with pytest.raises(ConfigError, match="trust_code=True"):
        build(spec, own_only=True, **SIZES)
