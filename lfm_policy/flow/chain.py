"""The chain of blocks: from data to noise and back (section 3.3 of arXiv 2410.02548)."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lfm_policy.errors import ConfigError
from lfm_policy.flow.interpolant import Batch, Cond, Interpolant, Times, column, gaussian_path, interpolate
from lfm_policy.flow.ode import Field, Solution, Solver, integrate
from lfm_policy.flow.schedule import Schedule


@dataclass(frozen=True)
class Transport:
    """Samples after a passage through blocks, and the network evaluations each of them took."""

    x: Tensor
    nfe: int


@dataclass(frozen=True)
class Loss:
    """Mean square, per dimension, of offset + factor · network(x, t, cond): what a block is asked for in one batch."""

    network: nn.Module
    x: Tensor
    t: Tensor
    cond: Tensor | None
    offset: Tensor
    factor: Tensor

    def __call__(self) -> Float[Tensor, ""]:
        """Return the value, with a gradient for the network's weights."""
        return (self.offset + self.factor * self.network(self.x, self.t, self.cond)).square().mean()


class FlowChain(nn.Module):
    """N velocity networks, the schedule they were made for, and the solver that integrates them.

    Args:
        blocks: velocity networks v(x, t, cond), the data side first.
        schedule: the OU steps; one block each.
        interpolant: the path that the blocks are trained on.
        solver: used wherever a call does not name another one.
        precondition: networks give the velocity only up to the factors of `preconditioning`.

    Raises:
        ValueError: there are more or fewer networks than blocks in the schedule.
        ConfigError: the solver has steps for more blocks.
    """

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        schedule: Schedule,
        interpolant: Interpolant = "linear",
        solver: Solver = Solver(),
        precondition: bool = False,
    ) -> None:
        super().__init__()
        self.blocks: nn.ModuleList = blocks if isinstance(blocks, nn.ModuleList) else nn.ModuleList(blocks)
        if len(self.blocks) != schedule.blocks:
            raise ValueError(f"the schedule has {schedule.blocks} blocks, but {len(self.blocks)} networks were given")
        self.schedule = schedule
        self.interpolant: Interpolant = interpolant
        self.solver = solver
        self.precondition = precondition

    @property
    def solver(self) -> Solver:
        """How blocks are integrated, wherever a call does not name another way."""
        return self._solver

    @solver.setter
    def solver(self, solver: Solver) -> None:
        try:
            solver.require_blocks(len(self.blocks))
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self._solver = solver

    def to_noise(
        self, x: Batch, cond: Cond = None, *, start: int = 0, stop: int | None = None, solver: Solver | None = None
    ) -> Transport:
        """Apply T_n for n = start … stop - 1: carry samples of p_start to p_stop (all blocks by default)."""
        stop = len(self.blocks) if stop is None else stop
        return self._through(range(start, stop), x, cond, 0.0, 1.0, solver)

    def to_data(
        self, x: Batch, cond: Cond = None, *, start: int | None = None, stop: int = 0, solver: Solver | None = None
    ) -> Transport:
        """Apply T_n^{-1}, n = start - 1 … stop: carry samples of p_start to p_stop (from noise to data by default)."""
        start = len(self.blocks) if start is None else start
        return self._through(range(start - 1, stop - 1, -1), x, cond, 1.0, 0.0, solver)

    def velocity(self, n: int, x: Batch, t: Times | Float[Tensor, ""], cond: Cond = None) -> Batch:
        """Return block n's velocity at x and t, one time per sample or one for all."""
        times = t.expand(x.shape[0])  # len(x) would fix the batch when exported
        if not self.precondition:
            return self.blocks[n](x, times, cond)
        inner, skip, outer = self.preconditioning(n, column(t, x) if t.ndim else t)
        return skip * x + outer * self.blocks[n](inner * x, times, cond)

    def regression(
        self, n: int, x: Batch, t: Times, cond: Cond, target: Batch, scale: Float[Tensor, "..."] | None = None
    ) -> Loss:
        """Return block n's mean squared velocity error, per dimension, at x and t, times `scale`, against `target`."""
        scale, one = x.new_ones(()) if scale is None else scale, x.new_ones(())
        inner, skip, outer = self.preconditioning(n, column(t, x)) if self.precondition else (one, 0 * one, one)
        return Loss(self.blocks[n], inner * x, t, cond, scale * skip * x - target, scale * outer)

    def preconditioning(self, n: int, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return factors (inner, skip, outer), shaped like t, of v(x, t) = skip x + outer F(inner x, t), F the network.

        For data of unit variance, skip x is the best linear guess, and F has inputs and targets of unit variance: it is
        to predict (mean z - std x_0) / |(mean, std)|, the "v" of Salimans and Ho (2022).
        """
        mean, std, mean_rate, std_rate = gaussian_path(self.interpolant, self.schedule, n, t)
        inner = torch.rsqrt(mean**2 + std**2)
        return inner, inner**2 * (mean * mean_rate + std * std_rate), inner * (mean * std_rate - std * mean_rate)

    def loss(self, n: int, left: Batch, right: Batch, t: Times, cond: Cond = None) -> Loss:
        """Return E || v(I_t, t) - dI_t/dt ||², per dimension, of block n, p_n's samples to their OU steps (eq. 8)."""
        x, rate = interpolate(self.interpolant, left, right, t)
        return self.regression(n, x, t, cond, rate)

    def marginal_loss(self, n: int, data: Batch, noise: Batch, t: Times, cond: Cond = None) -> Loss:
        """Return the same with p_n the OU marginal of `data`, and E[dI_t/dt | I_t, data] in the place of dI_t/dt.

        That leaves the minimum where it is and takes variance from the target (Rao and Blackwell).
        """
        mean, std, mean_rate, std_rate = gaussian_path(self.interpolant, self.schedule, n, column(t, data))
        return self.regression(n, mean * data + std * noise, t, cond, mean_rate * data + std_rate * noise)

    def trajectory(self, x: Batch, cond: Cond = None, *, pieces: int = 1, solver: Solver | None = None) -> list[Batch]:
        """Go from noise to data: x, then the state after each of `pieces` equal parts of each block's time, N first."""
        states = [x]
        for n in reversed(range(len(self.blocks))):
            for k in range(pieces):
                begin, end = 1 - k / pieces, 1 - (k + 1) / pieces
                (x,) = self._solve(n, x, cond, begin, end, (solver or self.solver).of_block(n)).state
                states.append(x)
        return states

    def _through(
        self, order: range, x: Tensor, cond: Cond, begin: float, end: float, solver: Solver | None
    ) -> Transport:
        nfe = 0
        for n in order:
            solution = self._solve(n, x, cond, begin, end, (solver or self.solver).of_block(n))
            (x,), nfe = solution.state, nfe + solution.nfe
        return Transport(x, nfe)

    def gaussian_step(self, n: int, before: float, after: float) -> tuple[float, float]:
        """Return (keep, gain) of the step x ← keep x + gain v(x, before) in block n, from `before` back to `after`.

        A velocity v at x says which data x_0 and noise z to expect: x = mean x_0 + std z and v = mean' x_0 + std' z
        (`gaussian_path`). The step goes to mean x_0 + std z at the time `after`. On the one straight path of a global
        flow that is Euler's step; on a curved path, or one of another speed, it is the step that Euler would take on
        the straight one: Song et al.'s DDIM (2021).

        Raises:
            ConfigError: the step leads towards noise; at the beginning of a block its path leaves the ray of what was
                there before without an angle, so that a velocity tells nothing apart.
        """
        if after > before:
            raise ConfigError(
                "steps along a Gaussian path lead to data only: use solver.method=midpoint, rk4 or dopri5 for the way "
                "to noise, which sequential training takes too"
            )
        mean, std, mean_rate, std_rate = self._path(n, before)
        new_mean, new_std, _, _ = self._path(n, after)
        turn = mean * std_rate - std * mean_rate  # the squared radius times the angle's speed: positive
        return (new_mean * std_rate - new_std * mean_rate) / turn, (new_std * mean - new_mean * std) / turn

    def _path(self, n: int, t: float) -> tuple[float, float, float, float]:
        mean, std, mean_rate, std_rate = gaussian_path(
            self.interpolant, self.schedule, n, torch.tensor(t, dtype=torch.float64)
        )
        return mean.item(), std.item(), mean_rate.item(), std_rate.item()

    def _solve(self, n: int, x: Tensor, cond: Tensor | None, begin: float, end: float, solver: Solver) -> Solution:
        if solver.method != "gaussian":
            return integrate(self._field(n, cond), (x,), begin, end, solver)
        (count,) = solver.counts
        times = [begin + (end - begin) * k / count for k in range(count + 1)]
        for before, after in pairwise(times):
            keep, gain = self.gaussian_step(n, before, after)
            x = keep * x + gain * self.velocity(n, x, x.new_tensor(before), cond)
        return Solution((x,), count)

    def _field(self, n: int, cond: Tensor | None) -> Field:
        return lambda t, state: (self.velocity(n, state[0], t, cond),)
