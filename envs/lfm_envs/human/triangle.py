"""Rigid motions written down as three points in whole hundredths, and numbers drawn from within their rounding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

TRIANGLE = np.array([[0.0, 0.1, 0.0], [0.05, 0.0, 0.0], [-0.05, 0.0, 0.0]])
"""A tip and two fingers, before the motion."""


@dataclass(frozen=True)
class Rounded:
    """T steps of numbers in the middle of what their rounding leaves open."""

    values: np.ndarray
    """(T, 6): delta actions; or (T, 3, 3): three points that a motion has moved."""
    half: np.ndarray
    """Half of the open range, broadcast with `values`."""
    closed: np.ndarray
    """bool (T,): the command to the fingers."""
    points: bool

    @classmethod
    def of_points(cls, rows: Sequence[Sequence[Any]], unit: float) -> "Rounded":
        """Read rows of three points in units truncated towards zero, and the fingers' command.

        Args:
            rows: T rows of point, point, point, command.
            unit: of the points.
        """
        numbers = np.array([row[:3] for row in rows], dtype=float)
        half = np.where(numbers == 0, unit, unit / 2)
        middle = unit * (numbers + 0.5 * np.sign(numbers))
        return cls(middle, half, np.array([row[3] > 0 for row in rows]), points=True)

    def deltas(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return delta actions (T, 6): those in the middle, or drawn from within the rounding."""
        values = self.values if rng is None else self.values + self.half * rng.uniform(-1, 1, self.values.shape)
        if not self.points:
            return np.clip(values, -1, 1)
        shifts, matrices = rigid_motion(values)
        return np.clip(np.hstack([shifts, Rotation.from_matrix(matrices).as_euler("xyz")]), -1, 1)


def rigid_motion(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the motions of TRIANGLE that come nearest to points (T, 3, 3), by least squares (Kabsch).

    Returns:
        Translations (T, 3) and rotation matrices (T, 3, 3).
    """
    centre, middle = TRIANGLE.mean(0), points.mean(1)
    u, _, vt = np.linalg.svd(np.einsum("tpi,pj->tij", points - middle[:, None], TRIANGLE - centre))
    u[:, :, -1] *= np.sign(np.linalg.det(u @ vt))[:, None]  # no mirror images
    matrices = u @ vt
    return middle - matrices @ centre, matrices
