"""Recorded demonstrations in the simulator: their deltas as absolute actions, and the proof by replay."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_policy.actions.poses import DELTA_WIDTH, encode_absolute, rotation_distance, rotvec_to_matrix
from lfm_policy.contract import ArmController
from lfm_policy.data.demos.file import Demo
from lfm_policy.data.demos.recording import Form
from lfm_policy.data.windows.store import Episode
from lfm_policy.errors import DataError

Path = list[list[tuple[np.ndarray, np.ndarray]]]
"""At each step, each arm's position and rotation matrix."""


@dataclass(frozen=True)
class Conversion:
    """One demonstration in the contract's terms."""

    episode: Episode
    observation_gap: float
    """Largest difference between the file's observations and the simulator's at the same states; 0 without any."""


@dataclass(frozen=True)
class Replay:
    """What executing a demonstration's actions from its first state led to."""

    success: bool
    position_error: np.ndarray
    """(L - 1,): distance [m] of the worst arm's grip from its recorded place, after each step but the last."""
    rotation_error: np.ndarray
    """(L - 1,): angle [rad] between the two, likewise."""

    def errors(self) -> dict[str, float]:
        """Return mean and largest distance from the recorded path, in [mm] and [deg]."""
        position, rotation = 1e3 * self.position_error, np.degrees(self.rotation_error)
        values = {"position": (position, "mm"), "rotation": (rotation, "deg")}
        return {
            f"{name}_{kind}_{unit}": round(float(of(error)), 3) if error.size else 0.0
            for name, (error, unit) in values.items()
            for kind, of in (("mean", np.mean), ("max", np.max))
        }


def convert(env: RobosuiteEnvironment, demo: Demo, controllers: Sequence[ArmController]) -> Conversion:
    """Read absolute actions and observations of a demonstration off the simulator, at each recorded state.

    The action is the goal pose that the delta controller would set there. Observations are the simulator's own, so
    that they are those a policy will see, whatever version wrote the file.

    Args:
        env: the task; its current model is used, as states outlive models across robosuite versions.
        demo: with states.
        controllers: how the file's deltas were recorded; those in the base frame are turned into the world's.

    Raises:
        DataError: the demonstration has no states, or they do not fit the task.
    """
    states = recorded_states(demo)
    env.reset_to(states[0])
    deltas = world_deltas(env, demo.actions, controllers)
    observations, actions = [], []
    for state, delta in zip(states, deltas, strict=True):
        observations.append(env.contract.flatten(env.move_to(state)))
        actions.append(env.goal_of(delta))
    observation = np.stack(observations)
    gap = 0.0 if demo.observation is None else float(np.abs(observation - demo.observation).max())
    return Conversion(Episode(observation, np.stack(actions).astype(np.float32)), gap)


def from_axis_angle(actions: np.ndarray) -> np.ndarray:
    """Turn absolute actions with axis-angle (..., 7 * arms), robomimic's form, into the contract's (..., 10 * arms)."""
    arms = np.split(actions, actions.shape[-1] // DELTA_WIDTH, axis=-1)
    rows = [encode_absolute(arm[..., :3], rotvec_to_matrix(arm[..., 3:6]), arm[..., 6:]) for arm in arms]
    return np.concatenate(rows, axis=-1)


def world_deltas(env: RobosuiteEnvironment, deltas: np.ndarray, controllers: Sequence[ArmController]) -> np.ndarray:
    """Turn deltas (L, 7 * arms) of arms recorded in their base frame into the world frame; the others stay."""
    arms = []
    for arm, recorded, delta in zip(env.arms, controllers, np.split(deltas, len(env.arms), axis=1), strict=True):
        base = np.asarray(arm.origin_ori) if recorded.frame == "base" else np.eye(3)
        arms.append(np.hstack([delta[:, :3] @ base.T, delta[:, 3:6] @ base.T, delta[:, 6:DELTA_WIDTH]]))
    return np.hstack(arms)


def replay(
    env: RobosuiteEnvironment,
    states: np.ndarray,
    actions: np.ndarray,
    model_xml: str | None = None,
    form: Form = "absolute",
) -> Replay:
    """Execute actions from a demonstration's first state and compare the path with its own.

    Args:
        env: the task.
        states: (L, n), recorded.
        actions: what to execute, one row per state: absolute (L, 10 * arms) or world-frame deltas (L, 7 * arms).
        model_xml: the recorded model, where it loads in this robosuite; the current model if None.
        form: which of the two the actions are.

    Raises:
        DataError: the states or the model do not fit the task.
    """
    step = env.step if form == "absolute" else env.step_delta
    env.reset_to(states[0], model_xml)
    recorded = []
    for state in states:
        env.move_to(state)
        recorded.append(env.grip_poses())
    env.reset_to(states[0], model_xml)
    success, reached = False, []
    for action in actions:
        success |= step(action).success
        reached.append(env.grip_poses())
    position, rotation = _distances(reached[:-1], recorded[1:])
    return Replay(success, position, rotation)


def loadable_model(env: RobosuiteEnvironment, recorded: str, model_xml: str | None) -> str | None:
    """Return the recorded model where it loads: in the robosuite series that wrote it. States load everywhere."""
    same = recorded.split(".")[:2] == env.contract.suite_version.split(".")[:2]
    return model_xml if same else None


def _distances(ours: Path, theirs: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return position [m] and rotation [rad] distances of the worst arm, at each step."""
    if not ours:
        return np.zeros(0), np.zeros(0)
    (our_positions, our_matrices), (their_positions, their_matrices) = _stacked(ours), _stacked(theirs)
    position = np.linalg.norm(our_positions - their_positions, axis=-1)
    return position.max(axis=1), rotation_distance(our_matrices, their_matrices).max(axis=1)


def _stacked(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Stack positions (L, arms, 3) and matrices (L, arms, 3, 3)."""
    positions = np.array([[position for position, _ in poses] for poses in path])
    return positions, np.array([[matrix for _, matrix in poses] for poses in path])


def recorded_states(demo: Demo) -> np.ndarray:
    """Return the demonstration's states (L, n).

    Raises:
        DataError: it has none.
    """
    if demo.states is None:
        raise DataError(f"{demo.name} has no 'states': without them it can be neither replayed nor converted")
    return demo.states
