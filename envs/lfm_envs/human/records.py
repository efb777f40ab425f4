"""What was written down of human demonstrations: actions rounded to hundredths, object poses, the hand's motion.

A folder holds `halil.json`, numbers of robomimic's proficient-human data sets that a public project wrote out as text,
and for Can `can_human_motion.npz` too, the hand's motion in all 200 demonstrations; either may lie in a subfolder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.spatial.transform import Rotation

from lfm_envs.experts.base import Pose
from lfm_envs.human.motion import Motion, read_motions, way
from lfm_envs.human.triangle import Rounded
from lfm_policy.errors import ConfigError, DataError, nearest
from lfm_policy.files import read_json

TASKS: tuple[str, ...] = ("lift", "square", "can")
RECORDS, MOTIONS = "halil.json", "can_human_motion.npz"
HAND_OF_SENSOR = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
"""Turns the observed orientation of the hand into that of its grip site: a quarter turn about the approach."""
TOP_DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
"""Grip site of a hand that looks down as a Panda at rest does."""
REACH_M = 0.04
"""A start position further from the grasp than this is not the can that was grasped [m]."""
How = Literal["recorded", "matched", "grasped"]


@dataclass(frozen=True)
class Spot:
    """Where the object may have been at the start."""

    how: How
    """It was recorded; or it is a recorded start position that fits the grasp; or it is where the hand closed."""
    position: np.ndarray
    """(2,): in the world's plane [m]; its height is the simulator's."""
    matrix: np.ndarray | None
    """(3, 3): its orientation; None: the simulator's."""
    within: float
    """Half a unit of the last digit, or what the grasp leaves open [m]."""


@dataclass(frozen=True)
class Record:
    """One human demonstration, as far as it is known."""

    name: str
    spots: tuple[Spot, ...]
    start: Pose | None
    """The grip site at the start; None: where the motion starts."""
    actions: Rounded | None
    """Delta actions (T, 7), as they were written down."""
    motion: Motion | None


@dataclass(frozen=True)
class Records:
    """All demonstrations of one task, in a fixed order, each once."""

    each: tuple[Record, ...]
    repeated: int = 0
    """Rows of the file that were left out, as they only repeat another at half the rate."""


def read_records(folder: Path, task: str) -> Records:
    """Read what there is of one task.

    Raises:
        ConfigError: there are no records of this task.
        DataError: the folder has no such files, or they are not as expected.
    """
    if task not in TASKS:
        raise ConfigError(f"human records are of {', '.join(TASKS)}; found task={task}: {nearest(task, TASKS)}")
    file = _find(folder, RECORDS)
    try:
        written = read_json(file)
        rows = written["demonstrations"][task]
        if task == "can":
            motions = read_motions(_find(folder, MOTIONS), np.asarray(written["offset_npz_to_world"], dtype=float))
            return Records(tuple(_can(rows, written["can_initial_positions_mm"], motions)))
        records = _once([_record(row, task) for row in rows])
        return Records(tuple(records), len(rows) - len(records))
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{file} is not as expected ({error!r}): see docs/guides/data.md for its format") from error


def _find(folder: Path, name: str) -> Path:
    found = sorted(folder.rglob(name))
    if not found:
        raise DataError(f"no {name} in {folder} or its subfolders: check source=")
    return found[0]


def _record(row: Mapping[str, Any], task: str) -> Record:
    """Read a record of Lift or Square: actions at full rate, or the hand's way at half of it."""
    name = f"{row['source']}/{row['k']}"
    spot = _recorded(row)
    if "action_keypoints" in row:
        return Record(name, (spot,), _start(row, task), _actions(row), None)
    return Record(name, (spot,), None, None, way(row, HAND_OF_SENSOR))


def _recorded(row: Mapping[str, Any]) -> Spot:
    position, turn = np.asarray(row["object_pos"], dtype=float), Rotation.from_quat(row["object_quat_xyzw"])
    return Spot("recorded", position[:2], turn.as_matrix(), row["precision_m"] / 2)


def _start(row: Mapping[str, Any], task: str) -> Pose:
    """Find the grip site from the object's pose and what was observed between the two."""
    place, between = np.asarray(row["object_pos"], dtype=float), np.asarray(row["object_to_eef_pos"], dtype=float)
    if task == "lift":  # in the world's axes; the orientation was not written down
        return Pose(place + between, TOP_DOWN)
    turn = Rotation.from_quat(row["object_quat_xyzw"]) * Rotation.from_quat(row["object_to_eef_quat"]).inv()
    return Pose(place - turn.apply(between), turn.as_matrix() @ HAND_OF_SENSOR)


def _actions(row: Mapping[str, Any]) -> Rounded | None:
    if "actions_delta" in row:
        values = np.asarray(row["actions_delta"], dtype=float)
        return Rounded(values[:, :6], np.full(6, 0.005), values[:, 6] > 0, points=False)
    if "action_keypoints" in row:
        return Rounded.of_points(row["action_keypoints"], 0.01)
    return None


def _once(records: list[Record]) -> list[Record]:
    """Leave out records that only repeat, at half the rate, a demonstration which is there at full rate."""
    full = [record for record in records if record.actions is not None]
    return [record for record in records if record.actions is not None or not any(_same(record, f) for f in full)]


def _same(half: Record, full: Record) -> bool:
    """Say whether object and length agree as far as they were written down."""
    assert half.motion is not None
    assert full.actions is not None
    (one,), (other,) = half.spots, full.spots
    assert one.matrix is not None
    assert other.matrix is not None
    near = np.abs(one.position - other.position).max() <= 2 * one.within + 1e-9
    turned = Rotation.from_matrix(one.matrix.T @ other.matrix).magnitude()
    return bool(near and turned < 0.03 and abs(len(half.motion.position) - len(full.actions.values)) <= 1)


def _can(rows: list[Mapping[str, Any]], starts: Sequence[Sequence[float]], motions: list[Motion]) -> list[Record]:
    """Join the motions of all demonstrations with the poses and actions that were written down of some."""
    positions = np.asarray(starts, dtype=float)[:, :2]
    records = [
        Record(f"{number:03d}", _guesses(motion, positions), None, None, motion)
        for number, motion in enumerate(motions)
    ]
    # the most precise last, so that it is what stays where a demonstration was written down twice
    for row in sorted(rows, key=lambda row: -row["precision_m"]):
        number = row["demo"]
        if number is None or number >= len(records):
            continue
        before = records[number]
        guesses = tuple(spot for spot in before.spots if spot.how == "grasped")
        actions = _actions(row) or before.actions
        if actions is not None and len(actions.values) != len(motions[number].position):
            raise DataError(
                f"Can {number}: {len(actions.values)} actions for a motion of {len(motions[number].position)} steps"
            )
        records[number] = replace(before, spots=(_recorded(row), *guesses), actions=actions)
    return records


def _guesses(motion: Motion, positions: np.ndarray) -> tuple[Spot, ...]:
    """Return the recorded start positions near the grasp, the nearest first, and then the grasp itself."""
    grasp = motion.position[motion.grasp, :2]
    distance = np.linalg.norm(positions - grasp, axis=1)
    near = [index for index in np.argsort(distance)[:2] if distance[index] < REACH_M]
    matched = tuple(Spot("matched", positions[index], None, 0.0005) for index in near)
    return (*matched, Spot("grasped", grasp, None, 0.012))
