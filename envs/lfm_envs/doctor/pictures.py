"""Do a file's pictures show what its states say? A few moments of each camera are drawn again and compared."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lfm_envs.doctor.findings import Finding
from lfm_envs.render import take_shapes
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_envs.tasks import Task
from lfm_policy.contract import Camera
from lfm_policy.data.demos.file import DemoFile
from lfm_policy.data.demos.pictures import find_pictures, has_pictures

MOMENTS = 4
"""States of each demonstration that are drawn again."""
CLEARLY = 0.7
"""Another reading of the pictures is taken for right where its gap is at most this part of theirs as they are."""
STRANGE = 0.12
"""Mean difference, of the whole range, from which on nothing that was tried explains the pictures."""

READINGS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "upside down": lambda pictures: pictures[:, ::-1],
    "mirrored": lambda pictures: pictures[:, :, ::-1],
    "turned by 180°": lambda pictures: pictures[:, ::-1, ::-1],
    "of blue, green and red in this order": lambda pictures: pictures[..., ::-1],
}
"""What pictures (n, height, width, 3) often are, and how to undo it."""


@dataclass(frozen=True)
class PictureGap:
    """How far a camera's pictures are from what is drawn at the same states."""

    camera: Camera
    gap: float
    """Mean absolute difference of the pictures as they are, 1 is from black to white."""
    reading: str | None
    """What they seem to be, if that fits them clearly better."""
    other: float
    """The gap under that reading, or the smallest that was found."""

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {"camera": self.camera.name, "gap": self.gap, "seems": self.reading, "gap_then": self.other}


def picture_gaps(task: Task, file: DemoFile, indices: Sequence[int]) -> list[PictureGap]:
    """Draw some states again and compare, camera by camera; none for a file without pictures.

    Args:
        task: of the file's environment.
        file: an open demonstration file.
        indices: of the demonstrations to take.

    Raises:
        DataError: the pictures cannot be read.
        RolloutError: there is no such camera here, or no renderer.
    """
    if not has_pictures(file):
        return []
    pictures = find_pictures(file)
    recorded, drawn = [], []
    env = RobosuiteEnvironment(task, cameras=pictures.cameras)
    try:
        env.reset(0)
        for index in indices:
            states = file.array(index, "states")
            if states is None:
                continue
            chosen = np.unique(np.linspace(0, len(states) - 1, MOMENTS).round().astype(int))
            recorded.append(pictures.read(index)[chosen])
            env.reset_to(states[0])
            take_shapes(env, file.model_xml(index))
            drawn.append(np.stack([_look(env, states[step]) for step in chosen]))
    finally:
        env.close()
    if not recorded:
        return []
    theirs, ours = (np.concatenate(parts).astype(np.float32) / 255 for parts in (recorded, drawn))
    return [_compare(pictures.cameras, k, theirs[:, k], ours) for k in range(len(pictures.cameras))]


def check_pictures(gaps: Sequence[PictureGap]) -> Iterator[Finding]:
    """Find cameras whose pictures are not what is seen here at the same states."""
    for found in gaps:
        name, drawing = found.camera.name, found.camera.drawing
        if found.reading is not None:
            yield Finding(
                "pictures",
                f"the pictures of {name} are {found.reading}: as they are they differ from what is drawn here by "
                f"{found.gap:.0%} of the range, read so by {found.other:.0%}",
                "correct them in the file, or draw them again with lfm render: a policy would see another world here",
            )
        elif found.gap > STRANGE:
            yield Finding(
                "pictures",
                f"the pictures of {name} differ from the {drawing} drawing here by {found.gap:.0%} of the range",
                "draw them again with lfm render: textures, lights, cameras or the size of objects are others here",
            )


def _look(env: RobosuiteEnvironment, state: np.ndarray) -> np.ndarray:
    env.move_to(state)
    return env.contract.stack(env.look())


def _compare(cameras: Sequence[Camera], k: int, theirs: np.ndarray, ours: np.ndarray) -> PictureGap:
    """Compare the pictures (n, H, W, 3) of camera k with all drawn ones (n, K, H, W, 3)."""

    def gap(pictures: np.ndarray, drawn: np.ndarray) -> float:
        return float(np.abs(pictures - drawn).mean())

    gaps = {reading: gap(undo(theirs), ours[:, k]) for reading, undo in READINGS.items()}
    gaps |= {f"those of {other.name}": gap(theirs, ours[:, n]) for n, other in enumerate(cameras) if n != k}
    plain, best = gap(theirs, ours[:, k]), min(gaps, key=gaps.__getitem__)
    reading = best if gaps[best] <= CLEARLY * plain else None
    return PictureGap(cameras[k], plain, reading, min(plain, gaps[best]))
