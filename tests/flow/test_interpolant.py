"""Laws of the interpolants."""

import math

import pytest
import torch

from lfm_policy.flow import Schedule
from lfm_policy.flow.interpolant import Interpolant, gaussian_path, interpolate

KINDS: list[Interpolant] = ["linear", "trigonometric"]


def _ends() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 9, 4, 3, generator=generator, dtype=torch.float64)
    return left, right


@pytest.mark.parametrize("kind", KINDS)
def test_the_path_joins_the_ends(kind: Interpolant) -> None:
    left, right = _ends()
    torch.testing.assert_close(interpolate(kind, left, right, torch.zeros(9).double())[0], left)
    torch.testing.assert_close(interpolate(kind, left, right, torch.ones(9).double())[0], right)


@pytest.mark.parametrize("kind", KINDS)
def test_the_velocity_is_the_derivative_of_the_position(kind: Interpolant) -> None:
    left, right = _ends()
    t = torch.rand(9, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    weight = torch.randn(9, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    position, velocity = interpolate(kind, left, right, t)
    (derivative,) = torch.autograd.grad((weight * position).sum(), t)
    torch.testing.assert_close((weight * velocity).sum((1, 2)), derivative)


def test_only_the_linear_path_slows_down_as_the_ends_meet() -> None:
    left, _ = _ends()
    half = torch.full((9,), 0.5, dtype=torch.float64)
    assert interpolate("linear", left, left, half)[1].abs().max() == 0
    speed = interpolate("trigonometric", left, left, torch.zeros(9).double())[1]
    torch.testing.assert_close(speed, math.pi / 2 * left)


SCHEDULE = Schedule((0.2, 0.5))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_given_the_data_the_path_has_the_moments_of_interpolated_ou_steps(kind: Interpolant, n: int) -> None:
    """x_t is linear in the data and in two independent noises: its weights are read off with unit vectors."""
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    data, first, second = torch.eye(3, dtype=torch.float64)
    left = SCHEDULE.marginal(n, data, first).expand(7, 3)
    right = SCHEDULE.target(n, left, second.expand(7, 3))
    position, velocity = interpolate(kind, left, right, t)
    mean, std, mean_rate, std_rate = gaussian_path(kind, SCHEDULE, n, t)
    torch.testing.assert_close(mean, position[:, 0])
    torch.testing.assert_close(std, position[:, 1:].norm(dim=1))
    torch.testing.assert_close(mean_rate, velocity[:, 0])
    torch.testing.assert_close(std * std_rate, (position * velocity)[:, 1:].sum(1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_rates_are_derivatives_also_at_the_data(kind: Interpolant, n: int) -> None:
    t, step = torch.linspace(0, 0.99, 7, dtype=torch.float64), 1e-6
    _, _, *rates = gaussian_path(kind, SCHEDULE, n, t)
    now, later = (gaussian_path(kind, SCHEDULE, n, at)[:2] for at in (t, t + step))
    for rate, before, after in zip(rates, now, later, strict=True):
        torch.testing.assert_close(rate, (after - before) / step, atol=1e-4, rtol=0)
