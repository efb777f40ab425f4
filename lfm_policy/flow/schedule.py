"""The Ornstein-Uhlenbeck step and the schedule of steps that the blocks take (eq. 25 of arXiv 2410.02548)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from torch import Tensor


def ou_step(x: Float[Tensor, "*shape"], gamma: float, noise: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Take the step (OU)_0^γ: e^{-γ} x + sqrt(1 - e^{-2γ}) z with standard normal `noise` z."""
    keep, spread = Schedule.factors(gamma)
    return keep * x + spread * noise


@dataclass(frozen=True)
class Schedule:
    """OU steps γ of all blocks but the last, which always ends at q = N(0, I) itself.

    Raises:
        ValueError: a step is not positive.
    """

    gammas: tuple[float, ...]

    def __post_init__(self) -> None:
        if any(not gamma > 0 for gamma in self.gammas):
            raise ValueError(f"OU steps must be positive, found {self.gammas}")

    @classmethod
    def geometric(cls, blocks: int, c: float, rho: float) -> "Schedule":
        """Choose γ_n = ρ^(n-1) c for n = 1 … N - 1 (eq. 25; γ_N is not used)."""
        if blocks < 1:
            raise ValueError(f"a chain needs at least one block, found {blocks}")
        return cls(tuple(c * rho**n for n in range(blocks - 1)))

    @classmethod
    def cosine(cls, blocks: int) -> "Schedule":
        """Choose e^{-t_n} = cos(πn / 2N): the data fade from p_n like a cosine (Nichol and Dhariwal 2021)."""
        if blocks < 1:
            raise ValueError(f"a chain needs at least one block, found {blocks}")
        return cls.turned(math.pi * n / (2 * blocks) for n in range(1, blocks))

    @classmethod
    def turned(cls, angles: Iterable[float]) -> "Schedule":
        """Choose where blocks end but for the last, as angles [rad] on the way from data, 0, to noise, π/2.

        At OU time t samples are e^{-t} x_0 + sqrt(1 - e^{-2t}) z: the angle is that whose cosine is e^{-t}.
        """
        times = [0.0, *(-math.log(math.cos(angle)) for angle in angles)]
        return cls(tuple(after - before for before, after in pairwise(times)))

    def angle(self, n: int) -> float:
        """Return where block n starts, as an angle [rad]; block N, which there is not, would start at π/2."""
        return math.pi / 2 if n == self.blocks else math.acos(math.exp(-self.time(n)))

    def equalised(self, errors: Sequence[float]) -> "Schedule":
        """Return the schedule in which each block has as much error times angle.

        Args:
            errors: of each block of this schedule, positive; taken to be the same all over the block.
        """
        angles = [self.angle(n) for n in range(self.blocks + 1)]
        shares = [error * (after - before) for error, (before, after) in zip(errors, pairwise(angles), strict=True)]
        reached = [math.fsum(shares[:n]) for n in range(self.blocks + 1)]
        wanted = [reached[-1] * n / self.blocks for n in range(1, self.blocks)]
        return self.turned(np.interp(wanted, reached, angles).tolist())

    @staticmethod
    def factors(time: float) -> tuple[float, float]:
        """Return the factors of the sample and of the noise in an OU step: e^{-time} and sqrt(1 - e^{-2 time})."""
        return math.exp(-time), math.sqrt(-math.expm1(-2 * time))

    @property
    def blocks(self) -> int:
        """N, the last block included."""
        return len(self.gammas) + 1

    def time(self, n: int) -> float:
        """Return the cumulated OU time at which block n starts, t_n = γ_1 + … + γ_n in the paper's count."""
        return math.fsum(self.gammas[:n])

    def marginal(
        self, n: int, data: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """Draw a sample of (OU)_0^{t_n} p_0, where block n starts when all blocks before it are exact."""
        return ou_step(data, self.time(n), noise)

    def target(self, n: int, left: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Draw block n's right end, coupled with its left end: one OU step of `left`; for the last block q itself."""
        return noise if n == self.blocks - 1 else ou_step(left, self.gammas[n], noise)
