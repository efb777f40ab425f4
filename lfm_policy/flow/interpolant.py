"""Where x_t lies between the two ends of a block, and how fast it moves (section 3.1 of arXiv 2410.02548)."""

import math
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Interpolant = Literal["linear", "trigonometric"]
Batch = Float[Tensor, "b *event"]
Times = Float[Tensor, " b"]
Cond = Float[Tensor, "b c"] | None
"""Samples, the time of each, and what each is conditioned on."""


@dataclass(frozen=True)
class PathPoint:
    """A point of the interpolating path and its time derivative, both shaped like the ends."""

    position: Tensor
    velocity: Tensor


def interpolate(kind: Interpolant, left: Batch, right: Batch, t: Times) -> PathPoint:
    """I_t(x_l, x_r) and dI_t/dt.

    linear (optimal transport): x_l + t (x_r - x_l); trigonometric: cos(πt/2) x_l + sin(πt/2) x_r.
    """
    t = t.view(-1, *[1] * (left.ndim - 1))
    match kind:
        case "linear":
            return PathPoint(left + t * (right - left), right - left)
        case "trigonometric":
            angle = t * (math.pi / 2)
            cos, sin = angle.cos(), angle.sin()
            return PathPoint(cos * left + sin * right, (math.pi / 2) * (cos * right - sin * left))
