"""What the numbers of an action mean, measured: each way of reading them is held against where the arm went."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from lfm_policy.actions.poses import ARM_WIDTH, DELTA_WIDTH, matrix_to_rotvec, rot6d_to_matrix, rotvec_to_matrix
from lfm_policy.contract import ArmController
from lfm_policy.data.demos.recording import Form

Frame = Literal["world", "base"]
Rotation = Literal["axis_angle", "axis_angle_transposed", "rot6d_rows", "rot6d_columns"]

CLEARLY = 0.9
"""Another reading is preferred to the declared one if it misses by less than this fraction of its miss."""
REACHING = 0.1
"""Weight of the distance that goals lie away, beside the share of the motion that they leave unexplained."""
NEGLIGIBLE = 1e-3
"""Misses this small are no evidence against a reading."""


@dataclass(frozen=True)
class Reading:
    """One way to read an arm's numbers."""

    form: Form
    frame: Frame
    rotation: Rotation = "axis_angle"

    def __str__(self) -> str:
        what = "deltas" if self.form == "delta" else "absolute poses"
        return f"{what} in the {'robot base' if self.frame == 'base' else 'world'} frame, rotation {self.rotation}"


class Poses(NamedTuple):
    """An arm's poses in the world."""

    position: np.ndarray
    """(L, 3) [m]"""
    matrix: np.ndarray
    """(L, 3, 3)"""

    def steps(self, chosen: slice) -> "Poses":
        """Return some of the steps."""
        return Poses(self.position[chosen], self.matrix[chosen])


@dataclass(frozen=True)
class ArmPath:
    """What one arm did in an episode, and what reading its actions takes."""

    path: Poses
    """At each recorded state, before its action."""
    base_position: np.ndarray
    """(3,) [m] in the world."""
    base_matrix: np.ndarray
    """(3, 3)"""
    controller: ArmController

    def goals(self, numbers: np.ndarray, reading: Reading) -> Poses:
        """Return the poses that an arm's actions (L, 7 or 10) ask for under a reading."""
        turn = self.base_matrix if reading.frame == "base" else np.eye(3)
        if reading.form == "delta":
            delta = np.clip(numbers[:, :6], -1, 1)
            translation = self.controller.delta_position_m * delta[:, :3] @ turn.T
            rotation = rotvec_to_matrix(self.controller.delta_rotation_rad * delta[:, 3:] @ turn.T)
            return Poses(self.path.position + translation, rotation @ self.path.matrix)
        origin = self.base_position if reading.frame == "base" else np.zeros(3)
        return Poses(numbers[:, :3] @ turn.T + origin, turn @ _matrix(numbers[:, 3:-1], reading.rotation))

    def offsets(self, poses: Poses) -> np.ndarray:
        """Return translation and rotation (L, 6) from the arm's poses to others, in units of the largest delta."""
        path = self.path.steps(slice(len(poses.position)))
        translation = (poses.position - path.position) / self.controller.delta_position_m
        rotation = matrix_to_rotvec(poses.matrix @ np.swapaxes(path.matrix, 1, 2))
        return np.hstack([translation, rotation / self.controller.delta_rotation_rad])


def measure(
    numbers: Sequence[np.ndarray], arms: Sequence[ArmPath], asked: Sequence[Poses] | None, declared: Reading
) -> Reading:
    """Find the reading of one arm's actions that fits best what came of them; the declared one unless clearly another.

    Args:
        numbers: an episode's actions each, (L, 7 or 10).
        arms: this arm's path in each episode.
        asked: poses that the actions are known to ask for; without them the arm's motion has to tell.
        declared: how the file says they are to be read.
    """

    def miss(reading: Reading) -> float:
        goals = [arm.goals(values, reading) for values, arm in zip(numbers, arms, strict=True)]
        wanted = np.concatenate([arm.offsets(poses) for arm, poses in zip(arms, goals, strict=True)])
        if asked is not None:
            known = np.concatenate([arm.offsets(poses) for arm, poses in zip(arms, asked, strict=True)])
            return float(np.linalg.norm(wanted - known, axis=1).mean())
        steps = zip(arms, goals, strict=True)
        led = np.concatenate([arm.offsets(poses)[:-1] for arm, poses in steps])
        moved = np.concatenate([arm.offsets(arm.path.steps(slice(1, None))) for arm in arms])
        return _unexplained(led, moved) + REACHING * float(np.linalg.norm(wanted, axis=1).mean())

    readings = _readings(numbers[0].shape[1])
    if declared not in readings:
        declared = replace(declared, rotation=readings[0].rotation)
    misses = {reading: miss(reading) for reading in readings}
    best = min(readings, key=misses.__getitem__)
    return best if misses[best] < CLEARLY * misses[declared] - NEGLIGIBLE else declared


def _unexplained(wanted: np.ndarray, moved: np.ndarray) -> float:
    """Return the share of the motion (L, 6) that no multiple of what was wanted explains; a step covers but a part."""
    left = 0.0
    for part in (slice(3), slice(3, 6)):
        a, b = wanted[:, part], moved[:, part]
        gain = max(0.0, float((a * b).sum())) / max(float((a * a).sum()), 1e-12)
        left += float(((b - gain * a) ** 2).sum())
    return left / max(float((moved**2).sum()), 1e-12)


def _readings(width: int) -> list[Reading]:
    """List all ways to read that many numbers."""
    rotations: dict[int, tuple[Rotation, ...]] = {
        DELTA_WIDTH: ("axis_angle", "axis_angle_transposed"),
        ARM_WIDTH: ("rot6d_rows", "rot6d_columns"),
    }
    frames: tuple[Frame, ...] = ("world", "base")
    readings = [Reading("absolute", frame, rotation) for frame in frames for rotation in rotations[width]]
    return [*(Reading("delta", frame) for frame in frames if width == DELTA_WIDTH), *readings]


def _matrix(numbers: np.ndarray, rotation: Rotation) -> np.ndarray:
    """Turn (L, 3 or 6) into rotation matrices (L, 3, 3)."""
    matrix = rotvec_to_matrix(numbers) if rotation.startswith("axis_angle") else rot6d_to_matrix(numbers)
    return np.swapaxes(matrix, 1, 2) if rotation in ("axis_angle_transposed", "rot6d_columns") else matrix
