"""The compiled activation in single precision against torch's operators in double."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lfm_policy.networks.cpu.activation import activate
from lfm_policy.networks.cpu.convolution import FEW_SAMPLES

STEPS, CHANNELS, GROUPS = 8, 24, 3


def _norm(gain: float) -> nn.GroupNorm:
    torch.manual_seed(0)
    norm = nn.GroupNorm(GROUPS, CHANNELS)
    nn.init.normal_(norm.weight, std=gain)
    nn.init.normal_(norm.bias)
    return norm


def _written_out(x: Tensor, norm: nn.GroupNorm, film: list[Tensor]) -> Tensor:
    y = functional.mish(norm(x.permute(1, 2, 0))).permute(2, 0, 1)
    return film[0] * y + film[1] if film else y


@pytest.mark.parametrize("batch", [1, 2 * FEW_SAMPLES])
@pytest.mark.parametrize("films", [0, 2])
@pytest.mark.parametrize("gain", [1.0, 30.0])  # the second: where exp underflows, and where Mish is the identity
def test_values_and_gradients_are_those_of_double_precision(batch: int, films: int, gain: float) -> None:
    norm = _norm(gain)
    generator = torch.Generator().manual_seed(1)
    x = 3 * torch.randn(STEPS, batch, CHANNELS, generator=generator) + 5
    film = [torch.randn(batch, CHANNELS, generator=generator) for _ in range(films)]
    outer = torch.randn(x.shape, generator=generator)
    inputs = [value.requires_grad_() for value in (x, *film)]
    y = activate(x, norm, tuple(film) or None)
    assert type(y.grad_fn).__name__ == "_ActivationBackward"
    found = [y, *torch.autograd.grad(y, [*inputs, *norm.parameters()], outer)]

    double = [value.detach().double().requires_grad_() for value in inputs]
    y = _written_out(double[0], norm.double(), double[1:])
    expected = [y, *torch.autograd.grad(y, [*double, *norm.parameters()], outer.double())]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=5e-6 * theirs.abs().max().item())


def test_a_sample_that_is_not_a_number_stays_one_and_alone() -> None:
    norm = _norm(1.0)
    x = torch.randn(STEPS, 3, CHANNELS)
    x[2, 1, 0] = torch.nan
    y = activate(x.requires_grad_(), norm)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    width = CHANNELS // GROUPS
    for values in (y, gradient):
        assert values[:, 1, :width].isnan().all()  # its group
        assert values[:, 1, width:].isfinite().all()
        assert values[:, [0, 2]].isfinite().all()
