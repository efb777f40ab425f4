"""Chains of one network that make data of noise and know no way back: the baselines that are no flows."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lfm_policy.errors import ConfigError
from lfm_policy.flow import FlowChain, Schedule, Solver
from lfm_policy.flow.chain import Loss, Transport
from lfm_policy.flow.interpolant import Batch, Cond, Times


class Step(NamedTuple):
    """x becomes keep x + gain F(inner x, t), F the network."""

    t: float
    inner: float
    keep: float
    gain: float


class OneWayChain(FlowChain):
    """One network in the place of a flow's only block.

    Args:
        network: any velocity network; what its output means is the subclass's.
        solver: how many steps it is sampled with.
    """

    def __init__(self, network: nn.Module, solver: Solver, precondition: bool = False) -> None:
        super().__init__([network], Schedule(()), solver=solver, precondition=precondition)

    def velocity(self, n: int, x: Batch, t: Times | Float[Tensor, ""], cond: Cond = None) -> Batch:
        """Refuse: there is no velocity, so no way to noise, no likelihood and no trajectory; see Raises.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("this baseline maps noise to data only; train method=lfm or fm for the inverse")

    @abstractmethod
    def loss(self, n: int, left: Batch, right: Batch, t: Times, cond: Cond = None) -> Loss:
        """Return the loss of data `left` and noise `right` at uniform t."""

    def marginal_loss(self, n: int, data: Batch, noise: Batch, t: Times, cond: Cond = None) -> Loss:
        """Return the same loss: the left end is the data."""
        return self.loss(n, data, noise, t, cond)


class SteppingChain(OneWayChain):
    """A one-way chain whose way to data is a fixed list of steps."""

    @abstractmethod
    def steps(self, solver: Solver) -> Sequence[Step]:
        """Return the steps that make data with this solver.

        Raises:
            ConfigError: the chain cannot be sampled so.
        """

    def code(self, solver: Solver) -> tuple[float, ...]:
        """Return what the network is told beside the condition, in all steps; nothing by default."""
        return ()

    def told(self, cond: Tensor | None, x: Tensor, solver: Solver) -> Tensor | None:
        """Return the condition of samples like x, and behind it the code."""
        code = self.code(solver)
        if not code:
            return cond
        rows = x.new_tensor(code).expand(x.shape[0], -1)
        return rows if cond is None else torch.cat([cond, rows], dim=1)

    def to_data(
        self, x: Batch, cond: Cond = None, *, start: int | None = None, stop: int = 0, solver: Solver | None = None
    ) -> Transport:
        """Take all steps."""
        solver = solver or self.solver
        steps, told = self.steps(solver), self.told(cond, x, solver)
        for t, inner, keep, gain in steps:
            times = torch.full_like(x[(slice(None), *[0] * (x.ndim - 1))], t)
            x = keep * x + gain * self.blocks[0](inner * x, times, told)
        return Transport(x, len(steps))


def require_euler(solver: Solver, allowed: Sequence[int], what: str) -> None:
    """Raise ConfigError unless the solver takes one of the `allowed` numbers of Euler steps."""
    if solver.method != "euler" or solver.counts[0] not in allowed:
        raise ConfigError(
            f"{what} makes samples in {' or '.join(map(str, allowed))} evaluation(s): expected solver.method=euler and "
            f"so many solver.steps, found {solver.steps} of {solver.method}"
        )
