"""Where x_t lies inside a block, and how fast it moves (section 3.1 of arXiv 2410.02548)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lfm_policy.choices import Interpolant as Interpolant
from lfm_policy.flow.schedule import Schedule

Batch = Float[Tensor, "b *event"]
Times = Float[Tensor, " b"]
Cond = Float[Tensor, "b c"] | None
"""Samples, the time of each, and what each is conditioned on."""


def interpolate(kind: Interpolant, left: Batch, right: Batch, t: Times) -> tuple[Batch, Batch]:
    """Return I_t(x_l, x_r) and dI_t/dt.

    linear (optimal transport): x_l + t (x_r - x_l); trigonometric: cos(πt/2) x_l + sin(πt/2) x_r.
    """
    a, b, a_rate, b_rate = _weights(kind, column(t, left))
    return a * left + b * right, a_rate * left + b_rate * right


def gaussian_path(kind: Interpolant, schedule: Schedule, n: int, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give (mean, std) of block n's x_t = mean x_0 + std z for data x_0, with time derivatives, each shaped like t."""
    keep, old = schedule.factors(schedule.time(n))
    rho, fresh = schedule.factors(schedule.gammas[n] if n < schedule.blocks - 1 else math.inf)
    a, b, a_rate, b_rate = _weights(kind, t)
    left, left_rate, right, right_rate = a + rho * b, a_rate + rho * b_rate, fresh * b, fresh * b_rate
    std = torch.hypot(old * left, right)
    std_rate = torch.where(std > 0, (old**2 * left * left_rate + right * right_rate) / std, right_rate)
    return keep * left, std, keep * left_rate, std_rate


def column(t: Times, like: Tensor) -> Tensor:
    """Shape one time per sample to multiply samples."""
    return t.view(-1, *[1] * (like.ndim - 1))


def _weights(kind: Interpolant, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a and b of x_t = a x_l + b x_r, and their time derivatives."""
    if kind == "linear":
        return 1 - t, t, -torch.ones_like(t), torch.ones_like(t)
    cos, sin = (t * (math.pi / 2)).cos(), (t * (math.pi / 2)).sin()
    return cos, sin, -math.pi / 2 * sin, math.pi / 2 * cos
