"""Solvers on fields with known solutions."""

import math

import pytest
import torch
from torch import Tensor

from lfm_policy.errors import CheckpointError
from lfm_policy.flow import Solver
from lfm_policy.flow.ode import Method, State, integrate


def _field(t: Tensor, state: State) -> State:
    """x' = x cos t, so x(t) = x(0) exp(sin t)."""
    return (state[0] * torch.cos(t),)


def _error(method: Method, steps: int) -> float:
    start = torch.tensor([1.0], dtype=torch.float64)
    end = integrate(_field, (start,), 0.0, 1.0, Solver(method, steps)).state[0]
    return abs(end.item() - math.exp(math.sin(1.0)))


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_convergence_order_is_the_claimed_one(method: Method, order: int) -> None:
    slope = math.log2(_error(method, 32) / _error(method, 64))
    assert slope == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(("method", "evaluations"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_nfe_counts_every_evaluation(method: Method, evaluations: int) -> None:
    calls = 0

    def counting(t: Tensor, state: State) -> State:
        nonlocal calls
        calls += 1
        return state

    solution = integrate(counting, (torch.ones(2),), 0.0, 1.0, Solver(method, 5))
    assert solution.nfe == calls == 5 * evaluations


def test_dopri5_reaches_its_tolerance_without_leaving_the_interval() -> None:
    seen: list[float] = []

    def watched(t: Tensor, state: State) -> State:
        seen.append(t.item())
        return _field(t, state)

    for begin, end in ((0.0, 1.0), (1.0, 0.0)):
        start = torch.tensor([math.exp(math.sin(begin))], dtype=torch.float64)
        solution = integrate(watched, (start,), begin, end, Solver("dopri5", tolerance=1e-8))
        assert solution.state[0].item() == pytest.approx(math.exp(math.sin(end)), abs=1e-7)
        assert solution.nfe == len(seen)
        assert min(seen) >= 0
        assert max(seen) <= 1
        seen.clear()


def test_the_state_may_have_several_parts() -> None:
    def rotation(t: Tensor, state: State) -> State:
        x, y = state
        return -y, x

    x, y = integrate(rotation, (torch.ones(1).double(), torch.zeros(1).double()), 0.0, 1.0, Solver("rk4", 50)).state
    assert (x.item(), y.item()) == pytest.approx((math.cos(1), math.sin(1)), abs=1e-8)


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"tolerance": -1.0}])
def test_bad_solvers_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Solver(**arguments)  # type: ignore[arg-type]


def test_a_velocity_that_is_not_finite_is_told() -> None:
    with pytest.raises(CheckpointError, match=r"velocity at t = .* of a block is not finite"):
        integrate(lambda t, state: (state[0] / (0.5 - t).clamp(min=0),), (torch.ones(2),), 0.0, 1.0, Solver("dopri5"))
