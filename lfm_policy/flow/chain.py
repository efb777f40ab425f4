"""The chain of blocks: from data to noise and back (section 3.3 of arXiv 2410.02548)."""

from collections.abc import Iterable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from lfm_policy.flow.interpolant import Batch, Cond, Interpolant, Times
from lfm_policy.flow.matching import matching_loss
from lfm_policy.flow.ode import Field, Solver, State, integrate
from lfm_policy.flow.schedule import Schedule


@dataclass(frozen=True)
class Transport:
    """Samples after a passage through blocks, and the network evaluations each of them took."""

    x: Tensor
    nfe: int


class FlowChain(nn.Module):
    """N velocity networks, the schedule they were made for, and the solver that integrates them.

    Args:
        blocks: velocity networks v(x, t, cond), the data side first.
        schedule: the OU steps; one block each.
        interpolant: the path that the blocks are trained on.
        solver: used wherever a call does not name another one.

    Raises:
        ValueError: there are more or fewer networks than blocks in the schedule.
    """

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        schedule: Schedule,
        interpolant: Interpolant = "linear",
        solver: Solver = Solver(),
    ) -> None:
        super().__init__()
        self.blocks: nn.ModuleList = blocks if isinstance(blocks, nn.ModuleList) else nn.ModuleList(blocks)
        if len(self.blocks) != schedule.blocks:
            raise ValueError(f"the schedule has {schedule.blocks} blocks, but {len(self.blocks)} networks were given")
        self.schedule = schedule
        self.interpolant: Interpolant = interpolant
        self.solver = solver

    def to_noise(
        self, x: Batch, cond: Cond = None, *, start: int = 0, stop: int | None = None, solver: Solver | None = None
    ) -> Transport:
        """T_n for n = start … stop - 1: carry samples of p_start to samples of p_stop (all blocks by default)."""
        stop = len(self.blocks) if stop is None else stop
        return self._through(range(start, stop), x, cond, 0.0, 1.0, solver)

    def to_data(
        self, x: Batch, cond: Cond = None, *, start: int | None = None, stop: int = 0, solver: Solver | None = None
    ) -> Transport:
        """T_n^{-1} for n = start - 1 … stop: carry samples of p_start to p_stop (from noise to data by default)."""
        start = len(self.blocks) if start is None else start
        return self._through(range(start - 1, stop - 1, -1), x, cond, 1.0, 0.0, solver)

    def loss(self, n: int, left: Batch, right: Batch, t: Times, cond: Cond = None) -> Float[Tensor, ""]:
        """Block n's training loss between a sample of p_n and its OU step, at times t."""
        return matching_loss(self.blocks[n], left, right, t, cond, self.interpolant)

    def trajectory(self, x: Batch, cond: Cond = None, *, pieces: int = 1, solver: Solver | None = None) -> list[Batch]:
        """From noise to data: x, then the state after each of `pieces` equal parts of each block's time, N first."""
        states = [x]
        for n in reversed(range(len(self.blocks))):
            for k in range(pieces):
                begin, end = 1 - k / pieces, 1 - (k + 1) / pieces
                (x,) = integrate(self._field(n, cond), (x,), begin, end, solver or self.solver).state
                states.append(x)
        return states

    def _through(
        self, order: range, x: Tensor, cond: Cond, begin: float, end: float, solver: Solver | None
    ) -> Transport:
        nfe = 0
        for n in order:
            solution = integrate(self._field(n, cond), (x,), begin, end, solver or self.solver)
            (x,), nfe = solution.state, nfe + solution.nfe
        return Transport(x, nfe)

    def _field(self, n: int, cond: Tensor | None) -> Field:
        def field(t: Tensor, state: State) -> State:
            (x,) = state
            return (self.blocks[n](x, t.expand(x.shape[0]), cond),)  # len(x) would fix the batch when exported

        return field
