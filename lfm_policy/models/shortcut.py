"""Shortcut models (Frans et al., arXiv 2410.12557) as a baseline that makes samples in 1, 2 or 4 evaluations.

A network s(x, t, h) gives the mean velocity of a global flow on the straight path over the step from t to t - h, which
then is x ← x - h s(x, t, h), with t from data (0) to noise (1). It is trained on two kinds of rows:

    flow          s(x_t, t, 0) to the velocity z - x_0, as global flow matching (three rows in four);
    consistency   s(x_t, t, 2h) to the mean of two steps of half its length, without a gradient through them,
                  (s(x_t, t, h) + s(x', t - h, h)) / 2 with x' = x_t - h s(x_t, t, h) (one row in four),

with steps 1, 1/2, …, 2^-(LEVELS - 1) at times that are multiples of them; the shortest takes its halves from h = 0.

Mean flows (arXiv 2505.13447) have the same aim, with a target that needs the derivative of the network along its own
path. They are not what is here: the networks of this project compute with functions of their own on CPUs, which have no
forward derivative, so that the target would have to be a difference quotient in float32, whose error grows as its step
shrinks. A shortcut's target is two plain evaluations, on a quarter of the rows: an update costs a sixth more than one
of a flow.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from lfm_policy.flow import Solver
from lfm_policy.flow.chain import Loss
from lfm_policy.flow.interpolant import Batch, Cond, Times, column
from lfm_policy.models.one_way import Step, SteppingChain, require_euler

LEVELS = 5
"""Lengths of steps that are learned: 1, 1/2, 1/4, 1/8, 1/16."""
CODES = LEVELS + 1
"""Width of the one-hot code of the length, the last for no length at all; it follows the condition."""
SHARE = 4
"""One row in so many asks for consistency."""


class ShortcutChain(SteppingChain):
    """A network s(x, t, [cond, code of h]) in the place of a flow's only block.

    Args:
        network: s; any velocity network whose condition is wider by `CODES`.
        solver: its `steps`, a power of two, are equal steps of a length that was learned.
        precondition: the network gives s up to the factors of `FlowChain.preconditioning`.

    Raises:
        ConfigError: the solver takes another number of steps.
    """

    def __init__(self, network: nn.Module, solver: Solver, precondition: bool = False) -> None:
        super().__init__(network, solver, precondition)
        self.steps(solver)

    def loss(self, n: int, left: Batch, right: Batch, t: Times, cond: Cond = None) -> Loss:
        """Return the mean square of both kinds of rows, of data `left` and noise `right` at uniform t."""
        row = torch.arange(len(t), device=t.device)
        consistent, level = row % SHARE == 0, row // SHARE % LEVELS
        length = torch.pow(0.5, level).to(t)
        t = torch.where(consistent, length * (t / length).ceil().clamp(min=1), t)
        x = left + column(t, left) * (right - left)
        target = right - left
        if consistent.any():
            some = None if cond is None else cond[consistent]
            halves = self._halved(x[consistent], t[consistent], level[consistent], some)
            target = target.index_put((consistent.nonzero()[:, 0],), halves.to(target.dtype))
        return self.regression(n, x, t, _coded(x, cond, torch.where(consistent, level, LEVELS)), target)

    @torch.no_grad()
    def _halved(self, x: Tensor, t: Tensor, level: Tensor, cond: Tensor | None) -> Tensor:
        """Return the mean velocity over the step of a level, in two steps of half its length."""
        half = torch.pow(0.5, level + 1).to(t)
        told = _coded(x, cond, level + 1)
        first = self._mean_velocity(x, t, told)
        second = self._mean_velocity(x - column(half, x) * first, t - half, told)
        return (first + second) / 2

    def _mean_velocity(self, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        """Return s at the length that the condition tells."""
        if not self.precondition:
            return self.blocks[0](x, t, told)
        inner, skip, outer = self.preconditioning(0, column(t, x))
        return skip * x + outer * self.blocks[0](inner * x, t, told)

    def steps(self, solver: Solver) -> Sequence[Step]:
        """See `SteppingChain`: equal steps from 1 to 0."""
        require_euler(solver, [2**level for level in range(LEVELS)], "a shortcut model")
        count, steps = solver.counts[0], []
        for k in range(count):
            t, gain = 1 - k / count, -1 / count
            inner, skip, outer = (
                (f.item() for f in self.preconditioning(0, torch.tensor(t))) if self.precondition else (1.0, 0.0, 1.0)
            )
            steps.append(Step(t, inner, 1 + gain * skip, gain * outer))
        return steps

    def code(self, solver: Solver) -> tuple[float, ...]:
        """See `SteppingChain`: that of the steps' length."""
        level = solver.counts[0].bit_length() - 1
        return tuple(float(k == level) for k in range(CODES))


def _coded(x: Tensor, cond: Tensor | None, level: Tensor) -> Tensor:
    """Return the condition with the code of each row's length behind it."""
    code = one_hot(level, CODES).to(x)
    return code if cond is None else torch.cat([cond, code], dim=1)
