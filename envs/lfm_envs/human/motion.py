"""The way of a human's hand: from an archive of whole motions, or from points written down at part of the rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from lfm_envs.experts.base import Pose
from lfm_envs.human.triangle import Rounded, rigid_motion
from lfm_policy.errors import DataError

SMOOTHING = np.array([0.25, 0.5, 0.25])
"""Weights of neighbours in time, which take out the steps that rounding leaves in a slow way."""
_KEYS = ("source/pos", "source/grip", "Panda/joint_angles")


@dataclass(frozen=True)
class Motion:
    """The hand of one human demonstration, T steps at 20 Hz."""

    position: np.ndarray
    """(T, 3): grip site in the world [m]."""
    matrix: np.ndarray
    """(T, 3, 3)"""
    opened: np.ndarray
    """bool (T,): the fingers were open, or were told to."""
    joints: np.ndarray | None
    """(7,): arm posture at the start [rad]; None: any that puts the hand there."""

    def hand(self, step: int) -> Pose:
        """Return the grip site."""
        return Pose(self.position[step], self.matrix[step])

    @property
    def grasp(self) -> int:
        """The step at which the fingers close for the longest time: that on the object."""
        flips = np.flatnonzero(np.diff(self.opened.astype(int)))
        ends = [*flips[1:], len(self.opened)]
        spans = [(end - begin, begin) for begin, end in zip(flips, ends, strict=True) if not self.opened[begin + 1]]
        return int(max(spans)[1]) + 1


def read_motions(path: Path, offset: np.ndarray) -> list[Motion]:
    """Read all motions of an archive with `<number>/source/pos`, `/source/grip` and `/Panda/joint_angles`.

    Args:
        path: the archive.
        offset: from its positions to the world's (3,) [m].

    Raises:
        DataError: not such an archive.
    """
    try:
        with np.load(path) as archive:
            numbers = sorted({name.split("/")[0] for name in archive.files})
            rows = [[archive[f"{number}/{key}"] for key in _KEYS] for number in numbers]
            return [_motion(pose, grip, joints, offset) for pose, grip, joints in rows]
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}): expected arrays <number>/{', '.join(_KEYS)}") from error


def _motion(pose: np.ndarray, grip: np.ndarray, joints: np.ndarray, offset: np.ndarray) -> Motion:
    pose = pose.astype(np.float64)
    matrices = Rotation.from_quat(pose[:, 3:]).as_matrix()
    return Motion(pose[:, :3] + offset, matrices, grip > 0.5, joints[0].astype(np.float64))


def way(row: Mapping[str, Any], site: np.ndarray) -> Motion:
    """Read a way that was written down as three points at every so many steps, smoothed, with the steps between.

    Args:
        row: with `keypoints`, `keypoint_unit_m` and `every`.
        site: the grip site's axes (3, 3) in those of the observed hand.
    """
    rounded = Rounded.of_points(row["keypoints"], row["keypoint_unit_m"])
    points = rounded.values.copy()
    points[1:-1] = np.tensordot(SMOOTHING, np.stack([points[:-2], points[1:-1], points[2:]]), 1)
    known = row["every"] * np.arange(len(points))
    steps = np.arange(known[-1] + 1)
    positions, matrices = rigid_motion(CubicSpline(known, points)(steps))
    return Motion(positions, matrices @ site, ~rounded.closed[steps // row["every"]], None)
