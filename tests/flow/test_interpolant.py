"""Laws of the interpolants."""

import math

import pytest
import torch

from lfm_policy.flow.interpolant import Interpolant, interpolate

KINDS: list[Interpolant] = ["linear", "trigonometric"]


def _ends() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 9, 4, 3, generator=generator, dtype=torch.float64)
    return left, right


@pytest.mark.parametrize("kind", KINDS)
def test_the_path_joins_the_ends(kind: Interpolant) -> None:
    left, right = _ends()
    torch.testing.assert_close(interpolate(kind, left, right, torch.zeros(9).double()).position, left)
    torch.testing.assert_close(interpolate(kind, left, right, torch.ones(9).double()).position, right)


@pytest.mark.parametrize("kind", KINDS)
def test_the_velocity_is_the_derivative_of_the_position(kind: Interpolant) -> None:
    left, right = _ends()
    t = torch.rand(9, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    weight = torch.randn(9, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    path = interpolate(kind, left, right, t)
    (derivative,) = torch.autograd.grad((weight * path.position).sum(), t)
    torch.testing.assert_close((weight * path.velocity).sum((1, 2)), derivative)


def test_only_the_linear_path_slows_down_as_the_ends_meet() -> None:
    left, _ = _ends()
    half = torch.full((9,), 0.5, dtype=torch.float64)
    assert interpolate("linear", left, left, half).velocity.abs().max() == 0
    speed = interpolate("trigonometric", left, left, torch.zeros(9).double()).velocity
    torch.testing.assert_close(speed, math.pi / 2 * left)
