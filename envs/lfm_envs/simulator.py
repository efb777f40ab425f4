"""Importing robosuite quietly and headless, and its environments without needless work."""

import ctypes.util
import logging
import os
from functools import cache
from types import ModuleType
from typing import Any, Literal, get_args
from unittest.mock import patch

import numpy as np

from lfm_policy.errors import ConfigError, nearest

Kind = Literal["compiled", "robosuite"]
"""Who steps: our compiled code, bit-equal and several times faster, or robosuite itself."""


@cache
def load_robosuite() -> ModuleType:
    """Import robosuite without its warnings, with a rendering backend that works without a display.

    Raises:
        ConfigError: robosuite is not installed.
    """
    os.environ.setdefault("MUJOCO_GL", _headless_backend())
    logging.getLogger("robosuite_logs").addFilter(lambda record: record.levelno >= logging.ERROR)
    try:
        import robosuite
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the robosuite tasks need the simulator, but '{error.name}' is missing: pip install 'lfm-policy[sim]'"
        ) from error
    return robosuite


def _headless_backend() -> str:
    """MUJOCO_GL for this machine; mujoco fails at import when the named library is absent."""
    libraries = {"osmesa": "OSMesa", "egl": "EGL"}
    return next((name for name, library in libraries.items() if ctypes.util.find_library(library)), "disabled")


def make_simulation(environment: str, kwargs: dict[str, Any], kind: Kind) -> Any:
    """Build the robosuite environment: robosuite's own class, or one that steps in compiled code with the same bits.

    Raises:
        ConfigError: unknown kind (names the nearest one), or robosuite is not installed.
    """
    if kind not in get_args(Kind):
        raise ConfigError(f"unknown simulation '{kind}': {nearest(kind, get_args(Kind))}")
    robosuite = load_robosuite()
    return robosuite.make(environment, **kwargs) if kind == "robosuite" else _compiled(environment)(**kwargs)


@cache
def _compiled(environment: str) -> type:
    """Subclass of a robosuite environment that steps in compiled code and leaves out work nobody sees."""
    from robosuite.environments.base import REGISTERED_ENVS
    from robosuite.models.robots.robot_model import RobotModel

    from lfm_envs.fast.checks import CHECKS, Checks
    from lfm_envs.fast.resets import RESETS, Reuse
    from lfm_envs.fast.stepper import Stepper

    class Compiled(CHECKS.get(environment, Checks), RESETS.get(environment, Reuse), REGISTERED_ENVS[environment]):
        _succeeded = False

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self._stepper = Stepper(self)

        def step(self, action):
            if self._stepper.sim is not self.sim:
                self._stepper = Stepper(self)
            self.timestep += 1
            self._stepper.step(action)
            self.cur_time += self.control_timestep
            self._step_answers = {}
            reward, done, info = self._post_action(action)
            observations = self._get_observations(force_update=True)
            self._step_answers = None
            return observations, reward, done, info | {"success": self._succeeded}

        def _check_success(self):
            """Remember the answer: `reward` has just asked when `step` wants to know."""
            self._succeeded = bool(super()._check_success())
            return self._succeeded

        def _get_observations(self, force_update=False):
            """robosuite's observations without its joined proprioception, which nobody reads."""
            if force_update:
                self._update_observables(force=True)
            shown = {n: o for n, o in self._observables.items() if o._enabled and o._active}
            observations = {name: observable._current_observed_value for name, observable in shown.items()}
            objects = [np.atleast_1d(observations[name]) for name, o in shown.items() if o.modality == "object"]
            return observations | {"object-state": np.concatenate(objects)}

        def _update_observables(self, force=False):
            """Read every sensor; robosuite's bookkeeping of sampling times comes to the same."""
            for name, observable in self._observables.items():
                if observable._enabled:
                    value = np.array(observable._sensor(self._obs_cache))
                    value = value[0] if value.shape == (1,) else value
                    observable._current_observed_value = self._obs_cache[name] = value

        def _load_robots(self):
            """Skip compiling a second model with nothing but the robot, which only IK controllers use."""
            with patch.object(RobotModel, "set_mujoco_model", lambda _: None):
                super()._load_robots()

        def _destroy_sim(self):
            """Free the simulation without robosuite's full garbage collection."""
            if self.sim is not None and not self._reusing:
                del self.sim._render_context_offscreen, self.sim.data, self.sim.model
                self.sim = None

    # robosuite registers every subclass by its name; keep its table as it was.
    del REGISTERED_ENVS[Compiled.__name__]
    return Compiled
