"""Layers that multiply in bfloat16 against the same layers in single precision, with weights and inputs rounded."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from lfm_policy.errors import ConfigError
from lfm_policy.networks import ConditionalUnet1d
from lfm_policy.networks.cpu.convolution import Convolution, Growth
from lfm_policy.networks.cpu.narrow import NarrowConvolution, NarrowGrowth, NarrowLinear, narrow

LAYERS = [
    (Convolution(16, 24, 5, padding=2), NarrowConvolution),
    (Convolution(16, 16, 3, stride=2, padding=1), NarrowConvolution),
    (Convolution(16, 24, 1), NarrowConvolution),
    (Growth(16, 24, 4, stride=2, padding=1), NarrowGrowth),
]


def rounded(value: Tensor) -> Tensor:
    return value.to(torch.bfloat16).float()


@pytest.mark.parametrize(("layer", "kind"), LAYERS)
@pytest.mark.parametrize("batch", [1, 3, 40])
def test_only_weights_inputs_and_results_are_rounded(layer: nn.Module, kind: type[NarrowLinear], batch: int) -> None:
    x, exact = torch.randn(8, batch, 16), copy.deepcopy(layer)
    exact.weight.data = rounded(exact.weight.data)  # pyright: ignore[reportArgumentType, reportCallIssue]
    with torch.inference_mode():
        expected, found = exact.eval()(rounded(x)), kind(layer)(x)  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert (found.dtype, found.shape) == (torch.float32, expected.shape)
    # a result of bfloat16 has 8 significant bits, and the bias has as many
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=2**-7)


def test_a_network_stays_within_what_rounding_does_and_is_copied() -> None:
    torch.manual_seed(0)
    network = ConditionalUnet1d(action_dim=7, cond_dim=12, dims=(32, 64)).eval()
    x, t, cond = torch.randn(2, 16, 7), torch.rand(2), torch.randn(2, 12)
    with torch.inference_mode():
        exact = network(x, t, cond)
        narrow(network)
        found = network(x, t, cond)
        assert not torch.equal(found, exact)
        assert (found - exact).square().mean().sqrt() < 0.01 * exact.square().mean().sqrt()
        assert torch.equal(copy.deepcopy(network)(x, t, cond), found)
        # in memory, as processes that play episodes get their policy; no file and no message holds a pickle
        assert torch.equal(pickle.loads(pickle.dumps(network))(x, t, cond), found)


def test_other_devices_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"precision=bfloat16 needs a CPU .* found meta"):
        narrow(nn.Sequential(nn.Linear(2, 2, device="meta")))
