"""A robosuite task behind the runner's `Environment` protocol, plus what replays and experts need."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lfm_envs.simulator import Kind, make_simulation
from lfm_envs.tasks import Task
from lfm_policy.actions.poses import ARM_WIDTH, DELTA_WIDTH, encode_absolute
from lfm_policy.contract import Camera, Contract, Drawing
from lfm_policy.errors import DataError, RolloutError
from lfm_policy.protocols import Observation, StepResult

if TYPE_CHECKING:
    from lfm_envs.modes import Modes

CAMERA = "agentview"
"""Name of the camera whose picture videos show."""


class RobosuiteEnvironment:
    """One robosuite task at 20 Hz, with absolute actions (`step`) and delta actions (`step_delta`) on one controller.

    Args:
        task: which one.
        simulation: "compiled" steps in compiled code; "robosuite" in robosuite's own, with the same results; None in
            compiled code where that knows the arms and grippers.
        cameras: whose pictures are part of the observation; see `look`.
        objects: whether the objects' poses are, which no real robot knows.
        modes: names of the task's ways, which `mode` is to tell apart.

    Raises:
        ConfigError: the task is not known to have so many.
    """

    def __init__(
        self,
        task: Task,
        simulation: Kind | None = None,
        cameras: Sequence[Camera] = (),
        objects: bool = True,
        modes: Sequence[str] = (),
    ) -> None:
        self.task = task
        self.contract: Contract = task.view(cameras, objects, modes)
        self.horizon = task.horizon
        self._names = [key.name for key in self.contract.observations]
        self._model_xml = ""
        self._modes = self._ways(modes)
        self._rows: list[np.ndarray] = []
        self._eyes: dict[Drawing, Any] = {}
        kwargs = copy.deepcopy(task.env_kwargs()) | {"horizon": task.horizon, "renderer": "mujoco", "seed": 0}
        self.simulation = make_simulation(task.environment, kwargs, simulation)
        """The robosuite environment, for privileged access."""
        # robosuite's get_xml() returns whichever model this process loaded last, maybe another environment's.
        self.simulation.set_xml_processor(self._remember_xml)

    def reset(self, seed: int) -> Observation:
        """Start the episode of `seed`, a function of the seed alone: model, robot posture and object placement."""
        # The generator is shared with the placement samplers, so its state is replaced, not the object.
        self.simulation.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        self.simulation.reset()
        self._forget_poses()
        observation = self._observe()
        self._rows.clear()
        self._remember(observation)
        return observation

    def step(self, action: np.ndarray) -> StepResult:
        """Servo towards an absolute pose for one control period.

        Args:
            action: (10 * arms,): per arm position [m] in the world 3, first two rows of the rotation matrix 6,
                gripper 1 (-1 open, +1 closed). Poses are never clipped.

        Raises:
            RolloutError: the action has another shape or is not finite.
        """
        from lfm_envs.fast.rotations import to_axis_angle

        return self._step(to_axis_angle(self._checked_action(action, ARM_WIDTH), self.task.arms), "absolute")

    def step_delta(self, action: np.ndarray) -> StepResult:
        """Servo towards a pose relative to the current one, for one control period.

        Args:
            action: (7 * arms,): per arm translation 3 (1 is 0.05 m), axis-angle 3 (1 is 0.5 rad), both in the world
                frame and clipped to [-1, 1], gripper 1.

        Raises:
            RolloutError: the action has another shape or is not finite.
        """
        return self._step(self._checked_action(action, DELTA_WIDTH), "delta")

    def goal_of(self, action: np.ndarray) -> np.ndarray:
        """Find the absolute action (10 * arms,) whose goal poses `step_delta(action)` would set in this state."""
        from lfm_envs.fast.stepper import moved

        goals = []
        deltas = self._checked_action(action, DELTA_WIDTH).reshape(-1, DELTA_WIDTH)
        for arm, delta, (position, matrix) in zip(self.arms, deltas, self.grip_poses(), strict=True):
            goals.append(encode_absolute(*moved(arm, delta[:6], position, matrix), delta[6:]))
        return np.concatenate(goals)

    def grip_poses(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return each arm's grip site in the world: position (3,) [m] and rotation matrix (3, 3), up to date."""
        self.refresh()
        sim = self.simulation.sim
        sites = [sim.model.site_name2id(arm.ref_name) for arm in self.arms]
        return [(sim.data.site_xpos[site].copy(), sim.data.site_xmat[site].reshape(3, 3).copy()) for site in sites]

    @property
    def arms(self) -> list[Any]:
        """robosuite's arm controllers, in the order of the action."""
        return [robot.part_controllers["right"] for robot in self.simulation.robots]

    def refresh(self) -> None:
        """Recompute poses from joint positions: after a step robosuite's are one physics step (2 ms) old."""
        import mujoco

        sim = self.simulation.sim
        mujoco.mj_kinematics(sim.model._model, sim.data._data)  # pyright: ignore[reportAttributeAccessIssue]

    def get_state(self) -> np.ndarray:
        """Return time, joint positions and velocities as one vector (1 + nq + nv,): robomimic's `states`."""
        return self.simulation.sim.get_state().flatten()

    @property
    def model_xml(self) -> str:
        """The MJCF model of the current episode: robomimic's `model_file`."""
        return getattr(self.simulation, "model_xml", self._model_xml)

    def reset_to(self, state: np.ndarray, model_xml: str | None = None, start: np.ndarray | None = None) -> Observation:
        """Go to a recorded state. From an episode's first state on, its replay is bit-exact.

        A state in mid-episode lacks the ramp of the gripper's command and the solver's warm start, so what
        follows agrees closely, not bitwise.

        Args:
            state: (1 + nq + nv,), from `get_state` or a file's `states`.
            model_xml: model of the recorded episode; the current one if None.
            start: first state of the recorded episode, whose arm posture the controllers' null space holds;
                `state` if None.

        Raises:
            DataError: the model does not load, or the state does not fit it.
        """
        self._reset_without_randomness(model_xml)
        posture = self._checked(state if start is None else start)[1 : 1 + self.simulation.sim.model.nq]
        self.move_to(state)
        for arm in self.arms:
            arm.initial_joint = posture[arm.qpos_index]
        self._forget_poses()
        return self._observe()

    def move_to(self, state: np.ndarray) -> Observation:
        """Show a state of the current model, to look at and not to step on: the controllers are left as they are.

        Args:
            state: (1 + nq + nv,), as for `reset_to`, which takes far longer.

        Raises:
            DataError: the state does not fit the model.
        """
        sim = self.simulation.sim
        sim.set_state_from_flattened(self._checked(state))
        sim.forward()
        return self._observe()

    def _observe(self) -> Observation:
        """Read all sensors again, without moving their clocks.

        robosuite reads objects before hands, so poses relative to a hand are those of the reading before: zeros in
        what its own reset returns. After another reading they are those of now.
        """
        simulation = self.simulation
        for observable in simulation._observables.values():
            observable.update(timestep=0.0, obs_cache=simulation._obs_cache, force=True)
        return self._observation(simulation._get_observations())

    def success(self) -> bool:
        """Say whether the task's own check holds now."""
        return bool(self.simulation._check_success())

    def mode(self) -> str | None:
        """Tell which of the contract's modes the episode has taken since `reset`; None before there was a choice."""
        return self._modes.told(self.contract, np.stack(self._rows)) if self._modes else None

    def look(self) -> dict[str, np.ndarray]:
        """Draw the pictures of the contract's cameras, by their keys: uint8 (height, width, 3), of the state now.

        Raises:
            RolloutError: there is no such camera, or this machine has neither a GPU's EGL nor a software renderer.
        """
        return {camera.key: self._look(camera) for camera in self.contract.cameras}

    def render(self, width: int, height: int) -> np.ndarray:
        """Draw the scene from the front: uint8 (height, width, 3).

        Raises:
            RolloutError: this machine has neither a GPU's EGL nor a software renderer.
        """
        return self._look(Camera(name=CAMERA, width=width, height=height))

    def _look(self, camera: Camera) -> np.ndarray:
        from lfm_envs.eyes import Eyes

        if camera.drawing not in self._eyes:
            self._eyes[camera.drawing] = Eyes(camera.drawing)
        sim = self.simulation.sim
        eyes = self._eyes[camera.drawing]
        return eyes.look(sim.model._model, sim.data._data, camera.name, camera.width, camera.height)

    def close(self) -> None:
        """Release the simulator."""
        for eyes in self._eyes.values():
            eyes.close()
        self.simulation.close()

    def _step(self, action: np.ndarray, input_type: str) -> StepResult:
        for arm in self.arms:
            arm.input_type = input_type
        observation, reward, _, info = self.simulation.step(action)
        success = info["success"] if "success" in info else self.success()
        seen = self._observation(observation)
        self._remember(seen)
        return StepResult(seen, float(reward), success)

    def _remember(self, observation: Observation) -> None:
        """Keep what `mode` is told by."""
        if self._modes:
            self._rows.append(self.contract.flatten(observation))

    def _ways(self, modes: Sequence[str]) -> "Modes | None":
        from lfm_envs.modes import modes_of  # experts are made of environments

        return modes_of(self.task, modes) if modes else None

    def _checked_action(self, action: np.ndarray, width: int) -> np.ndarray:
        """Return the action as float64 (width * arms,)."""
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (width * self.task.arms,) or not np.isfinite(action).all():
            raise RolloutError(
                f"{self.task.environment}: expected a finite action of shape ({width * self.task.arms},), "
                f"found shape {action.shape}: {action}"
            )
        return action

    def _checked(self, state: np.ndarray) -> np.ndarray:
        model = self.simulation.sim.model
        state, width = np.asarray(state, dtype=np.float64), 1 + model.nq + model.nv
        if state.shape != (width,) or not np.all(np.isfinite(state)):
            raise DataError(
                f"{self.task.environment}: expected a finite state of shape ({width},), found {state.shape}; "
                "is it from another task or model?"
            )
        return state

    def _forget_poses(self) -> None:
        """Make the controllers look again: they remember poses and inertias from while the scene was being set up."""
        for arm in self.arms:
            arm.new_update = True

    def _reset_without_randomness(self, model_xml: str | None) -> None:
        if model_xml is not None and model_xml != self.model_xml:
            try:
                self.simulation.reset_from_xml_string(model_xml)
            except Exception as error:  # XML errors, MuJoCo's own and missing names all mean an unusable model
                self.simulation.deterministic_reset = False
                self.reset(0)  # robosuite has already dropped its own model
                raise DataError(
                    f"{self.task.environment}: the recorded model does not load in this robosuite ({error}); "
                    "models of another robosuite version do not, their states do: leave the model out"
                ) from error
            return
        self.simulation.deterministic_reset = True
        try:
            self.simulation.reset()
        finally:
            self.simulation.deterministic_reset = False

    def _remember_xml(self, xml: str) -> str:
        self._model_xml = xml
        return xml

    def _observation(self, raw: dict[str, Any]) -> Observation:
        """Return the contract's entries, in robomimic's names: `object` is robosuite's `object-state`."""
        return {name: raw["object-state" if name == "object" else name] for name in self._names}
