"""Grown networks: their size, and that they begin as the function of the smaller one."""

import pytest
import torch
from torch import nn

from lfm_policy.errors import ConfigError
from lfm_policy.networks import ConditionalUnet1d, VelocityMlp, build
from lfm_policy.networks.grow import grown, inherit

UNET = {"_target_": "lfm_policy.networks.ConditionalUnet1d", "dims": [16, 32], "time_dim": 8}
MLP = {"_target_": "lfm_policy.networks.VelocityMlp", "width": 24, "layers": 3, "time_features": 2, "space_features": 3}


def _size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _unet(dims: list[int], seed: int) -> ConditionalUnet1d:
    torch.manual_seed(seed)
    return ConditionalUnet1d(action_dim=10, cond_dim=6, dims=dims, time_dim=8)


@pytest.mark.parametrize(
    ("spec", "sizes"),
    [(UNET | {"dims": [64, 128, 256]}, {"action_dim": 10, "cond_dim": 38}), (MLP | {"width": 256}, {"dim": 2})],
)
@pytest.mark.parametrize("times", [2, 4])
def test_parameters_scale(spec: dict, sizes: dict[str, int], times: int) -> None:
    small = build(spec, **sizes)
    large = build(grown(spec, small, times), **sizes)
    assert _size(large) == pytest.approx(times * _size(small), rel=0.12)


def test_widths_stay_divisible_by_the_groups() -> None:
    spec = grown(UNET | {"dims": [24, 40], "groups": 4}, _unet([16, 32], 0), 2)
    assert spec["dims"] == [32, 56]
    assert grown({"_target_": UNET["_target_"]}, _unet([16, 32], 0), 4)["dims"] == [256, 512, 1024]


def test_a_network_without_widths_keeps_its_size() -> None:
    with pytest.raises(ConfigError, match=r"torch\.nn\.Linear has neither dims nor width to grow.*grow=false"):
        grown({"_target_": "torch.nn.Linear"}, nn.Linear(2, 2), 2)


@pytest.mark.parametrize("dims", [[16, 32], [32, 64], [48, 96]])
def test_a_unet_of_whole_multiples_is_the_same_function(dims: list[int]) -> None:
    small, large = _unet([16, 32], 0), _unet(dims, 1)
    inherit(small, large, noise=0.0)
    x, t, cond = torch.randn(5, 8, 10), torch.rand(5), torch.randn(5, 6)
    torch.testing.assert_close(large(x, t, cond), small(x, t, cond), atol=1e-5, rtol=1e-4)


def test_a_unet_of_other_widths_is_nearly_the_same_function() -> None:
    small, large, fresh = _unet([32, 64], 0), _unet([48, 88], 1), _unet([48, 88], 1)
    inherit(small, large)
    x, t, cond = torch.randn(64, 8, 10), torch.rand(64), torch.randn(64, 6)
    wanted = small(x, t, cond)
    error, chance = ((network(x, t, cond) - wanted).square().mean() for network in (large, fresh))
    assert error < 0.3 * chance
    assert error < 0.3 * wanted.square().mean()


@pytest.mark.parametrize("width", [24, 34, 96])
def test_an_mlp_of_any_width_is_the_same_function(width: int) -> None:
    small, large = build(MLP, dim=2), VelocityMlp(2, width=width, layers=3, time_features=2, space_features=3)
    inherit(small, large, noise=0.0)
    x, t = torch.randn(9, 2), torch.rand(9)
    torch.testing.assert_close(large(x, t), small(x, t), atol=1e-5, rtol=1e-4)


def test_copies_part() -> None:
    """Without noise two copies would get the same gradient forever."""
    small, large = build(MLP, dim=2), VelocityMlp(2, width=48, layers=3, time_features=2, space_features=3)
    inherit(small, large)
    weight = large.layers[0].weight
    assert not torch.equal(weight[0], weight[1])
    torch.testing.assert_close(weight[0], weight[1], atol=0.2, rtol=0)
