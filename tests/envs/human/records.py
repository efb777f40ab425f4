"""Tiny files of the form that human records have, made from the scripted experts' episodes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from lfm_envs.human.triangle import TRIANGLE

OFFSET = [0.1, -0.1, 0.0]


def points(delta: np.ndarray, closed: bool) -> list[Any]:
    """Write a delta action as three points in whole hundredths, truncated, and the gripper's command."""
    moved = Rotation.from_euler("xyz", delta[3:6]).apply(TRIANGLE) + delta[:3]
    return [*np.trunc(100 * moved).astype(int).tolist(), int(closed)]


def write(folder: Path, task: str, rows: list[dict[str, Any]], starts: list[list[float]] | None = None) -> Path:
    """Write halil.json with rows of one task."""
    folder.mkdir(parents=True, exist_ok=True)
    records = {"demonstrations": {"lift": [], "square": [], "can": [], task: rows}}
    values = records | {"can_initial_positions_mm": starts or [], "offset_npz_to_world": OFFSET}
    (folder / "halil.json").write_text(json.dumps(values))
    return folder


def lift_row(episode: Any, k: int = 0) -> dict[str, Any]:
    """Write down an episode of Lift, actions rounded to hundredths and the cube's pose to a millimetre."""
    first = episode.observations[0]
    cube, hand = first["object"][:3], first["robot0_eef_pos"]
    return {
        "source": "scripted",
        "k": k,
        "object_pos": np.round(cube, 3).tolist(),
        "object_quat_xyzw": np.round(first["object"][3:7], 3).tolist(),
        "object_to_eef_pos": np.round(hand - cube, 3).tolist(),
        "precision_m": 0.001,
        "action_keypoints": [points(step["actions"], step["actions"][6] > 0) for step in episode.steps],
    }
