"""From a demonstration file (HDF5) to a LeRobotDataset v3.0: observations, pictures, and absolute or delta actions."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from lfm_envs.prepare import Tally, convert_all, progress
from lfm_envs.tasks import TASKS, task
from lfm_policy.contract import ActionNumber, Contract
from lfm_policy.data.demos.file import DemoFile, open_demos
from lfm_policy.data.demos.pictures import Pictures, find_pictures, has_pictures
from lfm_policy.data.lerobot.export import keep_split, written
from lfm_policy.data.lerobot.info import ENV_ARGS
from lfm_policy.data.lerobot.write import new_dataset
from lfm_policy.data.windows.store import Episode
from lfm_policy.errors import DataError

Form = Literal["absolute", "delta"]
DELTAS = ("pos.x", "pos.y", "pos.z", "rot.x", "rot.y", "rot.z", "gripper")
"""The numbers of a delta action of one arm, as robosuite's controller takes them."""


def export(
    source: Path,
    out: Path,
    *,
    words: str | None = None,
    action_form: Form = "absolute",
    video: bool = True,
    cameras: Sequence[str] | None = None,
    mask: str | None = None,
    environment: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write a demonstration file as a data set that LeRobot's own reader loads.

    Args:
        source: the file.
        out: the folder.
        words: what is demonstrated; None: the environment's name.
        action_form: the contract's poses, or the deltas that robosuite's environments step with, which
            lerobot-policy-robomimic expects beside the simulator's settings.
        video: pictures as H.264, else as PNG, without loss.
        cameras: whose pictures, in this order; None: all that there are.
        mask: take only the demonstrations of one of the file's filter keys.
        environment: name or address of a robosuite task that the file is of; None: one of ours.
        console: where to show progress.

    Returns:
        What was written, as JSON.

    Raises:
        DataError: the file cannot be used.
    """
    known = [*TASKS.values(), *([] if environment is None else [task(environment)])]
    contracts = {task.environment: task.contract for task in known}
    with open_demos(source, contracts, mask=mask) as file, progress(console or Console()) as bar:
        pictures = find_pictures(file, cameras) if cameras is not None or has_pictures(file) else None
        contract = _contract(file.contract, action_form, pictures)
        tally = Tally(replace(file, contract=contract), source.stem, pictures)
        found = deltas(file, pictures) if action_form == "delta" else convert_all([tally], {}, bar, environment)
        with new_dataset(out, contract, video=video) as writer:
            writer.told["source"] = file.source()
            keep_split(writer, file.split, len(file))
            sentence = words or contract.environment
            if action_form == "delta":
                writer.files[ENV_ARGS] = {**json.loads(file.data.attrs["env_args"]), "lang": sentence}
            for episode in found:
                writer.add(episode, sentence)
            return written(writer, out)


def deltas(file: DemoFile, pictures: Pictures | None) -> Iterator[Episode]:
    """Yield the demonstrations of a file as they are in it.

    Raises:
        DataError: it has no observations.
    """
    for index in range(len(file)):
        demo = file.read(index)
        if demo.observation is None:
            raise DataError(f"{file.path} is a raw collection, without observations: use action_form=absolute")
        yield Episode(demo.observation, demo.actions, None if pictures is None else pictures.read(index))


def _contract(contract: Contract, action_form: Form, pictures: Pictures | None) -> Contract:
    """Return what the data set holds: everything that the file has."""
    values = dict(contract) | {"cameras": () if pictures is None else pictures.cameras}
    if action_form == "delta":
        numbers = [
            ActionNumber(name=f"arm{arm}.{name}", gripper=name == "gripper")
            for arm in range(contract.arms)
            for name in DELTAS
        ]
        values |= {"space": "vector", "rotation": "none", "action_form": "delta", "controllers": ()}
        values |= {"actions": tuple(numbers), "action_dim": len(numbers)}
    return Contract.model_validate(values)
