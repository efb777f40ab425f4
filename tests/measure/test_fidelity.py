"""Fidelity on chains whose laws are known."""

import pytest
import torch
from torch import Tensor, nn

from lfm_policy.flow import FlowChain, Schedule
from lfm_policy.measure.fidelity import fidelity


class Scaled(nn.Module):
    """One Euler step of this velocity maps x to gain * x + offset + sum(cond)."""

    def __init__(self, gain: float, offset: float = 0.0) -> None:
        super().__init__()
        self.gain, self.offset = gain, offset

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        shift = 0.0 if cond is None else cond.sum(1).view(-1, *[1] * (x.ndim - 1))
        return x - self.gain * x - self.offset - shift


def _chain(gain: float, offset: float = 0.0) -> FlowChain:
    return FlowChain([Scaled(gain, offset)], Schedule(()))


def test_an_exact_student_has_no_error() -> None:
    cond, scale = torch.randn(5, 3), torch.full((2,), 4.0)
    found = fidelity(_chain(0.5), _chain(0.5), cond, (4, 2), scale, draws=8)
    assert found.error == 0
    assert found.energy_distance == pytest.approx(found.energy_distance_floor)
    assert found.teacher_spread == found.student_spread
    assert (found.conditions, found.draws) == (5, 8)


def test_errors_are_told_by_dimension_in_raw_units_and_by_step() -> None:
    """An offset of 0.2 in normalised units is 0.05 where 4 of them make a unit."""
    cond, scale = torch.randn(5, 3), torch.tensor([4.0, 1.0])
    found = fidelity(_chain(0.5, 0.2), _chain(0.5), cond, (4, 2), scale, draws=8)
    assert found.error == pytest.approx(0.2, rel=1e-4)
    assert found.error_by_dimension == pytest.approx((0.05, 0.2), rel=1e-4)
    assert found.error_by_step == pytest.approx([0.2] * 4, rel=1e-4)


def test_a_student_that_answers_with_the_mean_is_found_out() -> None:
    """The collapse of all modes: no spread, and a distance between the laws that the error alone would not tell."""
    found = fidelity(_chain(0.0), _chain(1.0), torch.randn(16, 3), (4, 2), torch.ones(2), draws=32)
    assert found.student_spread < 0.01 * found.teacher_spread
    assert found.energy_distance > 0.5
    assert abs(found.energy_distance_floor) < 0.1
    assert found.energy_distance_error < 0.1


def test_unconditional_vectors() -> None:
    found = fidelity(_chain(1.0, 0.5), _chain(1.0), None, (2,), torch.ones(2), draws=500)
    assert len(found.error_by_step) == 1
    assert found.error_by_dimension == pytest.approx((0.5, 0.5), rel=1e-4)
    assert found.energy_distance_error == 0
    assert found.energy_distance > 10 * abs(found.energy_distance_floor)
