"""Importing robosuite quietly and headless, and its environments with observables read once per control step."""

import ctypes.util
import logging
import os
from functools import cache
from types import ModuleType
from typing import Any

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
            f"the robosuite tasks need the simulator, and {error.name!r} is not installed: pip install 'lfm-policy[sim]'"
        ) from error
    return robosuite


def _headless_backend() -> str:
    """MUJOCO_GL for this machine; mujoco fails at import when the named library is absent."""
    libraries = {"osmesa": "OSMesa", "egl": "EGL"}
    return next((name for name, library in libraries.items() if ctypes.util.find_library(library)), "disabled")


def make_simulation(environment: str, kwargs: dict[str, Any], plain: bool) -> Any:
    """Build the robosuite environment; with `plain`, exactly as robosuite itself does."""
    robosuite = load_robosuite()
    if plain:
        return robosuite.make(environment, **kwargs)
    return _observing_once(environment)(**kwargs)


@cache
def _observing_once(environment: str) -> type:
    """Subclass of a robosuite environment whose observables are read at the last physics step of a control step.

    robosuite visits every observable after each of the 25 physics steps and samples at the last one only.
    """
    from robosuite.environments.base import REGISTERED_ENVS

    class Once(REGISTERED_ENVS[environment]):
        _substep = 0

        def _pre_action(self, action, policy_step=False):
            self._substep = 1 if policy_step else self._substep + 1
            super()._pre_action(action, policy_step)

        def _update_observables(self, force=False):
            if force or self._substep == int(self.control_timestep / self.model_timestep):
                super()._update_observables(force=True)

    # robosuite registers every subclass by its name; keep its table as it was.
    del REGISTERED_ENVS[Once.__name__]
    return Once
