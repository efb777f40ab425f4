"""Integrating a block's velocity field over [0, 1] in either direction, counting network evaluations (NFE)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lfm_policy.choices import Method as Method
from lfm_policy.choices import Solver as Solver
from lfm_policy.errors import CheckpointError, ConfigError

State = tuple[Tensor, ...]
Field = Callable[[Tensor, State], State]
"""f(t, state) -> d state / dt, with a scalar tensor t."""

# Butcher tableaux: for each stage its time and the weights of the slopes before it; then the weights of the step.
TABLEAUX: dict[str, tuple[list[tuple[float, list[float]]], list[float]]] = {
    "euler": ([(0.0, [])], [1.0]),
    "midpoint": ([(0.0, []), (0.5, [0.5])], [0.0, 1.0]),
    "heun": ([(0.0, []), (1.0, [1.0])], [0.5, 0.5]),
    "rk4": ([(0.0, []), (0.5, [0.5]), (0.5, [0.0, 0.5]), (1.0, [0.0, 0.0, 1.0])], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
}


@dataclass(frozen=True)
class Solution:
    """The state at the end of an integration and the evaluations of the field that it took."""

    state: State
    nfe: int


def integrate(field: Field, state: State, start: float, end: float, solver: Solver) -> Solution:
    """Solve d state / dt = field(t, state) from t = start to t = end; `end` may lie before `start`.

    Raises:
        ValueError: the solver is of several blocks: use `Solver.of_block`.
        ConfigError: its steps are a chain's own, not those of any field.
        CheckpointError: a solver that chooses its steps meets a velocity that is not finite.
    """
    if solver.method == "dopri5":
        return _adaptive(field, state, start, end, solver)
    if solver.method == "gaussian":
        raise ConfigError("steps along a Gaussian path are for samples: use solver.method=midpoint, rk4 or dopri5")
    stages, weights = TABLEAUX[solver.method]
    if len(solver.counts) != 1:
        raise ValueError(f"one block is integrated in a number of steps, found {solver.steps}")
    (count,) = solver.counts
    step = (end - start) / count
    for k in range(count):
        slopes: list[State] = []
        for offset, before in stages:
            t = state[0].new_tensor(start + (k + offset) * step)
            slopes.append(field(t, _advance(state, slopes, before, step)))
        state = _advance(state, slopes, weights, step)
    return Solution(state, count * len(stages))


def _advance(state: State, slopes: list[State], weights: list[float], step: float) -> State:
    """Return state + step Σ_j w_j slope_j, component by component."""
    for slope, weight in zip(slopes, weights, strict=True):
        if weight:
            state = tuple(s + (step * weight) * d for s, d in zip(state, slope, strict=True))
    return state


def _adaptive(field: Field, state: State, start: float, end: float, solver: Solver) -> Solution:
    """Integrate by torchdiffeq's dopri5 (Dormand and Prince, 1980)."""
    from torchdiffeq import odeint  # half a second, which commands that take fixed steps should not wait

    evaluations = 0

    def counted(t: Tensor, state: State) -> State:
        nonlocal evaluations
        evaluations += 1
        slopes = field(t, state)
        if not all(slope.isfinite().all() for slope in slopes):  # no step is small enough for it
            raise CheckpointError(
                f"the velocity at t = {float(t):.3g} of a block is not finite: its training has diverged, or its input "
                "is far from what it was trained on"
            )
        return slopes

    times = torch.tensor([start, end], dtype=state[0].dtype, device=state[0].device)
    # Without step_t the solver steps past the end, where the network was never trained, and interpolates back.
    options = {"step_t": times[1:]}
    path = odeint(counted, state, times, rtol=solver.tolerance, atol=solver.tolerance, method="dopri5", options=options)
    return Solution(tuple(component[-1] for component in path), evaluations)
