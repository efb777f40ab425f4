"""Adding pictures to demonstrations: each recorded state is drawn again, in parallel, restartable, the same bits."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lfm_envs.pool import outcome, processes
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_envs.tasks import TASKS, Task, task, task_of_environment
from lfm_policy.contract import Camera, Drawing
from lfm_policy.data.demos.file import open_demos
from lfm_policy.data.demos.pictures import CAMERAS
from lfm_policy.errors import ConfigError, DataError
from lfm_policy.files import atomic_file, read_json, write_json
from lfm_policy.locks import owned

BLOCK = 16
"""Pictures that are compressed together."""
IDENTITY = "pictures.json"


def cameras_of(
    task: Task, names: Sequence[str] | None, size: int | None, drawing: Drawing = "coarse"
) -> tuple[Camera, ...]:
    """Describe square pictures of a task's cameras; the benchmark's own where names or size are None."""
    side = size or task.image_size
    return tuple(Camera(name=name, height=side, width=side, drawing=drawing) for name in names or task.cameras)


def render(source: Path, out: Path, cameras: Sequence[Camera], workers: int) -> dict[str, Any]:
    """Write the demonstrations of `source` with pictures of all their states to `out`, which may be the same file.

    Running it again continues; where `out` has these pictures already, it is left as it is.

    Args:
        source: any demonstration file with states.
        out: the file to write.
        cameras: what to draw.
        workers: processes; they do not change the result.

    Returns:
        The number of pictures, and what was drawn in this call: seconds of the workers' processors and frames/s of one.

    Raises:
        DataError: a demonstration has no states, or they do not fit the task.
        ConfigError: pictures of other cameras or of another file are being drawn to `out`.
        RolloutError: a worker died, there is no such camera, or no renderer.
    """
    contracts = {entry.environment: entry.contract for entry in TASKS.values()}
    with open_demos(source, contracts, strict=False) as file:
        name, names = task_of_environment(file.recording.environment).name, file.names
        wanted = [camera.model_dump(mode="json") for camera in cameras]
        steps = sum(len(file.data[demo]["actions"]) for demo in names)
        summary: dict[str, Any] = {"file": str(out), "cameras": wanted, "pictures": steps * len(cameras)}
        if out.exists() and _pictures_in(out) == {"cameras": wanted, "demonstrations": len(names)}:
            return summary | {"seconds": 0.0, "cpu_seconds": 0.0}
        identity = {"source": file.sha256, "suite_version": file.contract.suite_version, "cameras": wanted}
    begun, parts = time.monotonic(), out.with_name(f"{out.name}.parts")
    with owned(parts):
        _claim(parts, identity)
        missing = [index for index in range(len(names)) if not _part(parts, index).exists()]
        spent = list(_draw_all(source, parts, name, tuple(cameras), missing, len(names), workers))
        _assemble(source, out, parts, names, wanted)
        shutil.rmtree(parts)
    return summary | {"seconds": time.monotonic() - begun, "cpu_seconds": sum(spent)}


def _pictures_in(path: Path) -> dict[str, Any]:
    try:
        with h5py.File(path) as file:
            data: Any = file["data"]
            demos = [name for name in data if name.startswith("demo")]
            return {"cameras": json.loads(data.attrs.get(CAMERAS, "[]")), "demonstrations": len(demos)}
    except (OSError, KeyError) as error:
        raise DataError(f"{path} is there and cannot be read ({error}): remove it, or choose another out=") from error


def _claim(parts: Path, identity: dict[str, Any]) -> None:
    """Make the folder of unfinished pictures this drawing's, or refuse if it is another's."""
    parts.mkdir(parents=True, exist_ok=True)
    path = parts / IDENTITY
    if not path.exists():
        write_json(path, identity)
    elif read_json(path) != identity:
        raise ConfigError(
            f"{parts} holds unfinished pictures of other cameras or demonstrations: finish them with the settings that "
            "they were begun with, or delete that folder"
        )


def _draw_all(
    source: Path,
    parts: Path,
    name: str,
    cameras: tuple[Camera, ...],
    missing: Sequence[int],
    total: int,
    workers: int,
) -> Iterator[float]:
    """Draw the missing episodes, and yield the processor time of each [s]."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn()) as bar, processes(workers) as pool:
        row = bar.add_task(f"pictures of {name}", total=total, completed=total - len(missing))
        futures = [pool.submit(_draw, source, _part(parts, index), name, cameras, index) for index in missing]
        for future in as_completed(futures):
            yield outcome(future)
            bar.advance(row)


def _draw(source: Path, part: Path, name: str, cameras: tuple[Camera, ...], index: int) -> float:
    """Draw one demonstration into a file of its own, and return the processor time [s]."""
    begun, env = time.process_time(), _environment(name, cameras)
    contracts = {env.task.environment: env.task.contract}
    with open_demos(source, contracts, strict=False) as file:
        states, xml = file.array(index, "states"), file.model_xml(index)
    if states is None:
        raise DataError(f"{source}: demonstration {index} has no 'states': there is nothing to draw")
    env.reset_to(states[0])
    take_shapes(env, xml)
    with atomic_file(part) as temporary, h5py.File(temporary, "w") as file:
        for camera in cameras:
            shape = (camera.height, camera.width, camera.channels)
            file.create_dataset(
                camera.key, (len(states), *shape), "uint8", chunks=(min(BLOCK, len(states)), *shape), compression=1
            )
        for start in range(0, len(states), BLOCK):
            block = [_seen(env, state) for state in states[start : start + BLOCK]]
            for camera in cameras:
                pictures: Any = file[camera.key]
                pictures[start : start + len(block)] = np.stack([seen[camera.key] for seen in block])
    return time.process_time() - begun


def _seen(env: RobosuiteEnvironment, state: np.ndarray) -> dict[str, np.ndarray]:
    env.move_to(state)
    return env.look()


def take_shapes(env: RobosuiteEnvironment, xml: str | None) -> None:
    """Give the bodies of the current model the shapes that they had in a recorded one: they differ between episodes.

    Recorded models of other robosuite versions do not load, and all of them take long to; their shapes fit.
    """
    if xml is None:
        return
    model = env.simulation.sim.model._model
    ours = {model.geom(number).name: number for number in range(model.ngeom)}
    for geom in ElementTree.fromstring(xml).iter("geom"):
        number = ours.get(geom.get("name", ""))
        if number is None or geom.get("type", "sphere") not in ("box", "cylinder", "sphere", "capsule", "ellipsoid"):
            continue
        for key, shape in (("size", model.geom_size), ("pos", model.geom_pos)):
            values = np.array(geom.get(key, "").split(), dtype=np.float64)
            shape[number, : len(values)] = values


@cache
def _environment(name: str, cameras: tuple[Camera, ...]) -> RobosuiteEnvironment:
    """Return the environment that this worker process keeps for all its episodes."""
    return RobosuiteEnvironment(task(name), cameras=cameras)


def _assemble(source: Path, out: Path, parts: Path, names: Sequence[str], cameras: list[dict[str, Any]]) -> None:
    """Copy the source with the pictures in it."""
    with atomic_file(out) as temporary, h5py.File(source) as before, h5py.File(temporary, "w") as file:
        for key in before:
            before.copy(key, file)
        for key, value in before.attrs.items():
            file.attrs[key] = value
        data: Any = file["data"]
        data.attrs[CAMERAS] = json.dumps(cameras)
        for index, name in enumerate(names):
            seen = data[name].require_group("obs")
            with h5py.File(_part(parts, index)) as part:
                for key in part:
                    if key in seen:
                        del seen[key]
                    part.copy(key, seen)


def _part(parts: Path, index: int) -> Path:
    return parts / f"{index:06d}.hdf5"
