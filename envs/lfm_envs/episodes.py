"""One demonstration: performing it, and its place in robomimic's HDF5 format.

A file holds `data/demo_<i>` with `actions` (the expert's own delta actions, 7 per arm), `actions_abs` (the poses they
ask for: position [m], axis-angle [rad], gripper; 7 per arm, world frame), `actions_executed` (deltas with noise: what
a replay must repeat), `states`, `obs/*`, `next_obs/*`, `rewards` and `dones`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lfm_envs.experts import Expert
from lfm_envs.experts.base import Skill
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_envs.tasks import Task
from lfm_policy.data.demos.checksums import GROUP as CHECKSUMS
from lfm_policy.data.demos.checksums import demo_checksums, seal, write_data_checksum
from lfm_policy.files import atomic_file
from lfm_policy.protocols import Observation

ROBOSUITE_TYPE = 1
"""robomimic's number for robosuite environments in `env_args`."""


@dataclass
class Episode:
    """What happened in one episode, one entry per control step."""

    seed: int
    model_xml: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    """One more than steps: the last one follows the last action."""
    success: bool = False
    """The expert finished, with the task's check holding."""


def perform(env: RobosuiteEnvironment, expert: Expert, seed: int, noise: float = 1.0) -> Episode:
    """Let the expert do the task once. The episode is a function of the arguments.

    Args:
        noise: scale of the noise on executed actions; the recorded actions carry none.
    """
    observation = env.reset(seed)
    rng = np.random.default_rng([seed, 1])
    return record(env, observation, expert(env, rng), seed, rng, noise)


def record(
    env: RobosuiteEnvironment, observation: Observation, skill: Skill, seed: int, rng: np.random.Generator, noise: float
) -> Episode:
    """Let a skill act from where the environment is now, until it ends or the horizon is reached.

    Args:
        observation: of the state now.
        rng: draws the noise.
    """
    from lfm_envs.fast.rotations import to_axis_angle

    episode = Episode(seed, env.model_xml, observations=[observation])
    for _ in range(env.horizon):
        command = next(skill, None)
        if command is None:
            episode.success = env.success()
            break
        executed = command.disturbed(rng, noise)
        step = {"actions": command.action, "actions_abs": to_axis_angle(env.goal_of(command.action), env.task.arms)}
        state = env.get_state()
        result = env.step_delta(executed)
        step |= {"actions_executed": executed, "states": state, "rewards": np.float64(result.reward)}
        episode.steps.append(step | {"dones": np.int64(result.success)})
        episode.observations.append(result.observation)
    if episode.steps:
        episode.steps[-1]["dones"] = np.int64(1)
    return episode


def write_episode(path: Path, episode: Episode, **attributes: int | str) -> None:
    """Write one episode to a file of its own, atomically; a failed one leaves the file's attributes only."""
    with atomic_file(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["success"] = episode.success
        file.attrs["length"] = len(episode.steps)
        file.attrs.update(attributes)
        if not episode.success:
            return
        demo = file.create_group("demo")
        demo.attrs["model_file"] = episode.model_xml
        demo.attrs["num_samples"] = len(episode.steps)
        demo.attrs["seed"] = episode.seed
        for key in episode.steps[0]:
            demo[key] = np.stack([step[key] for step in episode.steps])
        for key in episode.observations[0]:
            values = np.stack([observation[key] for observation in episode.observations])
            demo[f"obs/{key}"], demo[f"next_obs/{key}"] = values[:-1], values[1:]
        file[CHECKSUMS] = demo_checksums(demo)


def read_result(path: Path) -> tuple[bool, int]:
    """Return success and length in steps of an episode that `write_episode` wrote."""
    with h5py.File(path) as file:
        return bool(file.attrs["success"]), int(np.asarray(file.attrs["length"]))


def assemble(
    path: Path,
    parts: list[Path],
    task: Task,
    extra: Mapping[str, Any],
    valid: list[int],
    modes: tuple[str, ...] = (),
) -> None:
    """Join successful episodes into one robomimic file, atomically and in order.

    Args:
        path: the file to write.
        parts: files of `write_episode`, all successes.
        task: what was demonstrated.
        extra: further attributes of `data`, stored as JSON.
        valid: indices of the demonstrations in `mask/valid`; the others are in `mask/train`.
        modes: names of the ways in which the task was done, if there were several.
    """
    with atomic_file(path) as temporary:
        with h5py.File(temporary, "w") as file:
            data = file.create_group("data")
            for index, part in enumerate(parts):
                with h5py.File(part) as source:
                    source.copy("demo", data, name=f"demo_{index}")
                    written: Any = source.get(CHECKSUMS)  # episodes of 0.1 have none
                    checksums = written[()] if written else demo_checksums(source["demo"])
                    file.require_group(CHECKSUMS)[f"demo_{index}"] = checksums
            data.attrs["total"] = sum(int(np.asarray(demo.attrs["num_samples"])) for demo in data.values())
            data.attrs["env_args"] = json.dumps(env_args(task))
            data.attrs["contract"] = task.view(modes=modes).model_dump_json()
            for name, value in extra.items():
                data.attrs[name] = json.dumps(value)
            for name, chosen in {"train": set(range(len(parts))) - set(valid), "valid": set(valid)}.items():
                file[f"mask/{name}"] = np.array([f"demo_{index}" for index in sorted(chosen)], dtype="S")
            write_data_checksum(file)
        seal(temporary)


def env_args(task: Task) -> dict[str, Any]:
    """Return robomimic's description of the environment that the `actions` are for: delta actions, world frame."""
    return {
        "env_name": task.environment,
        "env_version": task.contract.suite_version,
        "type": ROBOSUITE_TYPE,
        "env_kwargs": task.env_kwargs("delta"),
    }
