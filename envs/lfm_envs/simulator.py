"""Importing robosuite quietly and headless, and its environments without needless work."""

import ctypes.util
import logging
import os
from functools import cache
from types import ModuleType
from typing import Any
from unittest.mock import patch

from lfm_policy.errors import ConfigError


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


def make_simulation(environment: str, kwargs: dict[str, Any], plain: bool) -> Any:
    """Build the robosuite environment; with `plain`, robosuite's own class instead of the leaner, bit-equal one."""
    robosuite = load_robosuite()
    return robosuite.make(environment, **kwargs) if plain else _lean(environment)(**kwargs)


@cache
def _lean(environment: str) -> type:
    """Subclass of a robosuite environment that leaves out work nobody sees, with bit-equal results."""
    from robosuite.environments.base import REGISTERED_ENVS
    from robosuite.models.robots.robot_model import RobotModel

    class Lean(REGISTERED_ENVS[environment]):
        _substep = 0

        def _pre_action(self, action, policy_step=False):
            self._substep = 1 if policy_step else self._substep + 1
            super()._pre_action(action, policy_step)

        def _update_observables(self, force=False):
            """Read the observables after a control step's last physics step; robosuite asks them after each."""
            if force or self._substep == int(self.control_timestep / self.model_timestep):
                super()._update_observables(force=True)

        def _load_robots(self):
            """Skip compiling a second model with nothing but the robot, which only IK controllers use."""
            with patch.object(RobotModel, "set_mujoco_model", lambda _: None):
                super()._load_robots()

        def _destroy_sim(self):
            """Free the simulation without robosuite's full garbage collection."""
            if self.sim is not None:
                del self.sim._render_context_offscreen, self.sim.data, self.sim.model
                self.sim = None

    # robosuite registers every subclass by its name; keep its table as it was.
    del REGISTERED_ENVS[Lean.__name__]
    return Lean
