"""robosuite's environments with all of this package in them, and without work that nobody sees."""

from typing import Any
from unittest.mock import patch

import numpy as np
from robosuite.models.robots.robot_model import RobotModel

from lfm_envs.fast.checks import Checks
from lfm_envs.fast.resets import Reuse
from lfm_envs.fast.sensors import Readings, readings
from lfm_envs.fast.stepper import Stepper
from lfm_envs.tasks import PROPRIOCEPTION


class Compiled(Checks, Reuse):
    """For a robosuite environment: steps in compiled code, reads each sensor that is needed once, without its books."""

    timestep: int
    cur_time: float
    control_timestep: float
    _succeeded = False
    _observables: dict[str, Any]
    _obs_cache: dict[str, Any]
    _readings: Readings | None = None
    """Follows the sensors of the current episode, once they have been read."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._stepper = Stepper(self)
        for name, observable in self._observables.items():
            if observable.modality.endswith("proprio") and not name.endswith(PROPRIOCEPTION):
                observable.set_enabled(False)

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, dict[str, Any]]:
        if self._stepper.sim is not self.sim:
            self._stepper = Stepper(self)
        self.timestep += 1
        self._stepper.step(action)
        self.cur_time += self.control_timestep
        self._step_answers = {}
        reward, done, info = self._post_action(action)  # pyright: ignore[reportAttributeAccessIssue]
        observations = self._get_observations(force_update=True)
        self._step_answers = None
        return observations, reward, done, info | {"success": self._succeeded}

    def _check_success(self) -> bool:
        """Remember the answer: `reward` has just asked when `step` wants to know."""
        self._succeeded = bool(super()._check_success())  # pyright: ignore[reportAttributeAccessIssue]
        return self._succeeded

    def _get_observations(self, force_update: bool = False) -> dict[str, np.ndarray]:
        """Return robosuite's observations without its joined proprioception, which nobody reads."""
        if force_update:
            self._update_observables(force=True)
        shown = {name: o.modality for name, o in self._observables.items() if o._enabled and o._active}
        observations = {name: self._obs_cache[name] for name in shown}
        objects = [observations[name] for name, modality in shown.items() if modality == "object"]
        return observations | {"object-state": np.concatenate(objects, axis=None)}

    def _update_observables(self, force: bool = False) -> None:
        """Read every enabled sensor; robosuite's bookkeeping of sampling times comes to the same."""
        if self._readings is not None and self._readings.latest(self._obs_cache):
            self._obs_cache.update(self._readings.read())
            return
        for name, observable in self._observables.items():
            if observable._enabled:
                value = np.array(observable._sensor(self._obs_cache))
                self._obs_cache[name] = value[0] if value.shape == (1,) else value
        self._readings = readings(self, self._obs_cache)

    def _load_robots(self) -> None:
        """Skip compiling a second model with nothing but the robot, which only IK controllers use."""
        with patch.object(RobotModel, "set_mujoco_model", lambda _: None):
            super()._load_robots()  # pyright: ignore[reportAttributeAccessIssue]

    def _destroy_sim(self) -> None:
        """Free the simulation without robosuite's full garbage collection."""
        if self.sim is not None and not self._reusing:
            del self.sim._render_context_offscreen, self.sim.data, self.sim.model
            self.sim = None
