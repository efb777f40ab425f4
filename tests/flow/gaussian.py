"""Gaussian data N(mean, std²) per dimension: every block's velocity field, map and marginal in closed form."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lfm_policy.flow import FlowChain, Schedule, Solver


@dataclass(frozen=True)
class Gaussian:
    """The law N(mean, std²) of one coordinate."""

    mean: float
    std: float

    def after_ou(self, time: float) -> "Gaussian":
        """The law after OU time `time`."""
        decay = math.exp(-time)
        return Gaussian(decay * self.mean, math.sqrt(decay**2 * self.std**2 + 1 - decay**2))

    def marginal(self, schedule: Schedule, n: int) -> "Gaussian":
        """p_n of exact blocks."""
        return Gaussian(0.0, 1.0) if n == schedule.blocks else self.after_ou(schedule.time(n))

    def sample(self, *shape: int, seed: int = 0) -> Tensor:
        """Double-precision samples."""
        noise = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return self.mean + self.std * noise


class ExactBlock(nn.Module):
    """The minimiser of the matching loss with the linear interpolant: from `left` to one OU step of it, or to q.

    I_t = ((1 - t) + t a) x_l + t b z, so E[dI/dt | I_t = x] = mean' + (std' / std) (x - mean) at every t.
    """

    def __init__(self, left: Gaussian, gamma: float | None) -> None:
        super().__init__()
        self.left = left
        self.a = 0.0 if gamma is None else math.exp(-gamma)
        self.b = math.sqrt(1 - self.a**2)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        t = t[:, None]
        weight, slope = 1 - t + t * self.a, self.a - 1
        variance = (weight * self.left.std) ** 2 + (t * self.b) ** 2
        rate = (slope * weight * self.left.std**2 + t * self.b**2) / variance
        return slope * self.left.mean + rate * (x - weight * self.left.mean)


FINE = Solver("rk4", 50)


def exact_chain(data: Gaussian, schedule: Schedule, solver: Solver = FINE) -> FlowChain:
    """The chain that Algorithm 1 converges to."""
    steps = [*schedule.gammas, None]
    return FlowChain([ExactBlock(data.marginal(schedule, n), g) for n, g in enumerate(steps)], schedule, solver=solver)
