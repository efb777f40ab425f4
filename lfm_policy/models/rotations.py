"""Rotations in observations, as a network takes them: continuous, where quaternions are not.

A quaternion and its negative are one rotation, and simulators choose the sign by w >= 0. A gripper that points down has
w near 0, so that the smallest tilt flips all four numbers: in every seventh step of a Can demonstration, for one.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations_with_replacement

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

UNIT = 1e-3
"""How far the length of a quaternion may be from 1."""

_PAIRS = list(combinations_with_replacement(range(4), 2))
"""Products of x, y, z, w."""
_ROWS: Sequence[tuple[float, dict[tuple[int, int], float]]] = (
    (1.0, {(1, 1): -2.0, (2, 2): -2.0}),
    (0.0, {(0, 1): 2.0, (2, 3): -2.0}),
    (0.0, {(0, 2): 2.0, (1, 3): 2.0}),
    (0.0, {(0, 1): 2.0, (2, 3): 2.0}),
    (1.0, {(0, 0): -2.0, (2, 2): -2.0}),
    (0.0, {(1, 2): 2.0, (0, 3): -2.0}),
)
"""The first two rows of the rotation matrix of (x, y, z, w): a constant and factors of products each."""


class RotationRows(nn.Module):
    """Puts the first two rows of a rotation's matrix in the place of each quaternion (x, y, z, w), other columns first.

    The whole map is y = x K + ((x L) * (x R)) M + b with constant matrices, here and in an exported graph.

    Args:
        dim: D, width of an observation.
        columns: the first column of each of Q quaternions.
    """

    keep: Tensor
    left: Tensor
    right: Tensor
    mix: Tensor
    constant: Tensor

    def __init__(self, dim: int, columns: Sequence[int]) -> None:
        super().__init__()
        others = other_columns(dim, columns)
        self.width = len(others) + len(_ROWS) * len(columns)
        keep = torch.zeros(dim, self.width)
        keep[others, range(len(others))] = 1.0
        left, right = (torch.zeros(dim, len(_PAIRS) * len(columns)) for _ in range(2))
        mix, constant = torch.zeros(len(_PAIRS) * len(columns), self.width), torch.zeros(self.width)
        for q, first in enumerate(columns):
            for p, (i, j) in enumerate(_PAIRS, start=len(_PAIRS) * q):
                left[first + i, p] = right[first + j, p] = 1.0
            for k, (offset, factors) in enumerate(_ROWS, start=len(others) + len(_ROWS) * q):
                constant[k] = offset
                for pair, factor in factors.items():
                    mix[len(_PAIRS) * q + _PAIRS.index(pair), k] = factor
        for name, value in (("keep", keep), ("left", left), ("right", right), ("mix", mix), ("constant", constant)):
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... f"]:
        """Return observations whose quaternions have not been scaled; F = D + 2 Q."""
        return x @ self.keep + ((x @ self.left) * (x @ self.right)) @ self.mix + self.constant


def other_columns(dim: int, quaternions: Sequence[int]) -> list[int]:
    """Return the columns of an observation of width `dim` that are no quaternion's."""
    return [k for k in range(dim) if not any(first <= k < first + 4 for first in quaternions)]


def quaternion_columns(blocks: Iterable[Tensor | np.ndarray]) -> tuple[int, ...]:
    """Return the first columns of the quaternions: four neighbours of length 1 in every row of all blocks (S, D)."""
    unit: Tensor | None = None
    for block in blocks:
        lengths = torch.as_tensor(block).unfold(1, 4, 1).norm(dim=2)
        found = ((lengths - 1).abs() < UNIT).all(0)
        unit = found if unit is None else unit & found
    columns: list[int] = []
    for k in [] if unit is None else unit.nonzero().flatten().tolist():
        if not columns or k >= columns[-1] + 4:
            columns.append(k)
    return tuple(columns)
