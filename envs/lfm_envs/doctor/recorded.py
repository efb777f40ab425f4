"""A recorded episode beside what the simulator shows at its states."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lfm_envs.doctor.readings import ArmPath, Poses
from lfm_envs.replay import loadable_model
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_policy.actions.poses import ARM_WIDTH, DELTA_WIDTH
from lfm_policy.data.demos.file import DemoFile
from lfm_policy.errors import DataError

ACTIONS = ("actions", "actions_abs", "actions_executed")
EXECUTED = "actions_executed"


@dataclass(frozen=True)
class Recorded:
    """One episode of L steps."""

    name: str
    states: np.ndarray
    """(L, n), before each action."""
    model_xml: str | None
    """The recorded model, where it loads here."""
    actions: Mapping[str, np.ndarray]
    """Those of ACTIONS that the file has, (L, width) each."""
    observation: Mapping[str, np.ndarray]
    """The file's observations by key, (L, dim) each; empty in raw collections."""
    simulated: Mapping[str, np.ndarray]
    """The simulator's observations at the recorded states, by key."""
    arms: tuple[ArmPath, ...]

    @property
    def executed(self) -> str:
        """The key of the actions that a replay must repeat."""
        return EXECUTED if EXECUTED in self.actions else "actions"


def read_episode(env: RobosuiteEnvironment, file: DemoFile, index: int) -> Recorded:
    """Read an episode as it is, and visit its states.

    Raises:
        DataError: no actions or states, too short, or they do not fit the task.
    """
    name = file.names[index]
    actions = {key: array for key in ACTIONS if (array := file.array(index, key)) is not None}
    states = file.array(index, "states")
    where = f"{file.path}: {name}"
    if states is None or "actions" not in actions:
        missing = "states" if states is None else "actions"
        raise DataError(f"{where} has no '{missing}': without them nothing can be replayed or measured")
    for key, array in {**actions, "states": states}.items():
        if len(array) != len(states) or len(array) < 2:
            raise DataError(f"{where}: expected at least 2 rows of {key}, as many as states, found {len(array)}")
    for key, array in actions.items():
        if array.shape[1] not in (DELTA_WIDTH * len(env.arms), ARM_WIDTH * len(env.arms)):
            raise DataError(
                f"{where}: expected {key} with {DELTA_WIDTH} or {ARM_WIDTH} numbers an arm for {len(env.arms)} arm(s), "
                f"found {array.shape[1]}"
            )
    model = loadable_model(env, file.recording.suite_version, file.model_xml(index))
    observation = {key.name: file.array(index, f"obs/{key.name}") for key in env.contract.observations}
    simulated, arms = _visit(env, states, model)
    return Recorded(
        name,
        states,
        model,
        actions,
        {key: array for key, array in observation.items() if array is not None},
        simulated,
        arms,
    )


def _visit(
    env: RobosuiteEnvironment, states: np.ndarray, model_xml: str | None
) -> tuple[dict[str, np.ndarray], tuple[ArmPath, ...]]:
    """Return the simulator's observations and the arms' paths at the recorded states."""
    env.reset_to(states[0], model_xml)
    observations, poses = [], []
    for state in states:
        observations.append(env.move_to(state))
        poses.append(env.grip_poses())
    simulated = {
        key.name: np.stack([observation[key.name] for observation in observations]) for key in env.contract.observations
    }
    arms = []
    for index, (arm, controller) in enumerate(zip(env.arms, env.contract.controllers, strict=True)):
        positions, matrices = (np.stack([step[index][part] for step in poses]) for part in (0, 1))
        base = np.array(arm.origin_pos, dtype=float), np.array(arm.origin_ori, dtype=float)
        arms.append(ArmPath(Poses(positions, matrices), *base, controller))
    return simulated, tuple(arms)
