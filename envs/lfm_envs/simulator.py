"""Importing robosuite quietly and headless, and its environments without needless work."""

import ctypes.util
import logging
import os
from functools import cache
from types import ModuleType, new_class
from typing import Any, get_args

from lfm_envs.fast.errors import NotCompiledError
from lfm_policy.choices import Simulation as Kind
from lfm_policy.compiled import use_writable_cache
from lfm_policy.errors import ConfigError, nearest


@cache
def load_robosuite() -> ModuleType:
    """Import robosuite without its warnings, with a rendering backend that works without a display.

    Raises:
        ConfigError: robosuite is not installed, or cannot render as MUJOCO_GL says.
    """
    use_writable_cache()  # robosuite compiles, too
    os.environ.setdefault("MUJOCO_GL", _headless_backend())
    logging.getLogger("robosuite_logs").addFilter(lambda record: record.levelno >= logging.ERROR)
    try:
        import robosuite
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the robosuite tasks need the simulator, but '{error.name}' is missing: pip install 'lfm-policy[sim]', "
            "then pip install --no-deps robosuite==1.5.2 robomimic==0.3.0"
        ) from error
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise ConfigError(
            f"the simulator cannot start with the environment variable MUJOCO_GL={os.environ['MUJOCO_GL']} ({error}): "
            "unset it, or try egl, osmesa or disabled"
        ) from error
    return robosuite


def _headless_backend() -> str:
    """Choose MUJOCO_GL for this machine; mujoco fails at import when the named library is absent."""
    libraries = {"osmesa": "OSMesa", "egl": "EGL"}
    return next((name for name, library in libraries.items() if ctypes.util.find_library(library)), "disabled")


def make_simulation(environment: str, kwargs: dict[str, Any], kind: Kind | None) -> Any:
    """Build the robosuite environment: robosuite's own class, or one that steps in compiled code with the same bits.

    Args:
        environment: robosuite's class name.
        kwargs: of the class.
        kind: who steps; None: compiled code where it knows arms and grippers, or else robosuite.

    Raises:
        ConfigError: unknown kind (names the nearest one), or robosuite is not installed.
        NotCompiledError: compiled code is asked for, and does not know them.
    """
    if kind is None:
        try:
            return make_simulation(environment, kwargs, "compiled")
        except NotCompiledError:
            return make_simulation(environment, kwargs, "robosuite")
    if kind not in get_args(Kind):
        raise ConfigError(f"unknown simulation '{kind}': {nearest(kind, get_args(Kind))}")
    robosuite = load_robosuite()
    return robosuite.make(environment, **kwargs) if kind == "robosuite" else _compiled(environment)(**kwargs)


@cache
def _compiled(environment: str) -> type:
    """Return a subclass of a robosuite environment that steps in compiled code and leaves out work nobody sees."""
    from robosuite.environments.base import REGISTERED_ENVS

    from lfm_envs.fast.checks import CHECKS, Checks
    from lfm_envs.fast.environment import Compiled
    from lfm_envs.fast.resets import RESETS, Reuse

    parts = (Compiled, CHECKS.get(environment, Checks), RESETS.get(environment, Reuse), REGISTERED_ENVS[environment])
    combined = new_class(f"Compiled{environment}", parts)
    del REGISTERED_ENVS[combined.__name__]  # robosuite registers every subclass by its name; keep its table as it was
    return combined
