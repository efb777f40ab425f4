"""The objective of one block: E || v(I_t, t) - dI_t/dt ||² with t ~ Beta(α, β) (eq. 8 of arXiv 2410.02548)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.special import betaincinv
from torch import Tensor

from lfm_policy.flow.interpolant import Batch, Cond, Interpolant, Times, interpolate

Velocity = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""v(x, t, cond) -> like x."""


@dataclass(frozen=True)
class TimeLaw:
    """The law of t on [0, 1]: Beta(alpha, beta), uniform by default."""

    alpha: float = 1.0
    beta: float = 1.0

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
        """Draw on the generator's device, by inversion, so that a seeded generator decides the values."""
        uniform = torch.rand(count, generator=generator, device=generator.device)
        if self.alpha == 1 and self.beta == 1:
            return uniform
        quantile = betaincinv(self.alpha, self.beta, uniform.double().cpu().numpy())
        return torch.as_tensor(quantile, dtype=uniform.dtype, device=uniform.device)


def matching_loss(
    velocity: Velocity, left: Batch, right: Batch, t: Times, cond: Cond = None, interpolant: Interpolant = "linear"
) -> Float[Tensor, ""]:
    """Mean squared velocity error per dimension: the paper's objective divided by the dimension of x."""
    point = interpolate(interpolant, left, right, t)
    return (velocity(point.position, t, cond) - point.velocity).square().mean()
