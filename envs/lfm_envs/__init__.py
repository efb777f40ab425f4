"""Environments for LFM policies: robosuite's five robomimic tasks, scripted experts, and a tiny point mass."""

import inspect
from typing import Any

from lfm_envs.tasks import TASKS, task_of_environment
from lfm_policy.contract import Contract
from lfm_policy.errors import ConfigError, nearest
from lfm_policy.protocols import Environment

__all__ = ["make", "name_for", "names", "view_for"]


def names() -> list[str]:
    """Every environment that `make` knows."""
    return [*(f"robosuite/{name}" for name in TASKS), "point_mass"]


def name_for(contract: Contract) -> str:
    """The name that `make` knows the contract's environment by.

    Raises:
        ConfigError: no environment of this package has that contract.
    """
    if contract.suite == "robosuite":
        return f"robosuite/{task_of_environment(contract.environment).name}"
    if (contract.suite, contract.environment) == ("builtin", "PointMass"):
        return "point_mass"
    raise ConfigError(f"unknown environment '{contract.suite}/{contract.environment}'; known: {', '.join(names())}")


def view_for(contract: Contract) -> dict[str, Any]:
    """Find the options with which `make` builds an environment that shows what the contract's policy sees."""
    options: dict[str, Any] = {"cameras": contract.cameras} if contract.cameras else {}
    hidden = contract.suite == "robosuite" and all(key.name != "object" for key in contract.observations)
    return options | ({"objects": False} if hidden else {})


def make(name: str, **options: Any) -> Environment:
    """Build the environment `name`, for example "robosuite/lift"; the simulator is imported only now.

    Raises:
        ConfigError: unknown name or option (names the nearest one), or the simulator is not installed.
    """
    if name not in names():
        raise ConfigError(f"unknown environment '{name}': {nearest(name, names())}")
    if name == "point_mass":
        from lfm_envs.point_mass import PointMass

        return _build(name, PointMass, options)
    from lfm_envs.robosuite_env import RobosuiteEnvironment

    return _build(name, RobosuiteEnvironment, {"task": TASKS[name.removeprefix("robosuite/")], **options})


def _build(name: str, cls: type, options: dict[str, Any]) -> Any:
    known = [parameter for parameter in inspect.signature(cls).parameters if parameter != "task"]
    for option in options:
        if option not in known and option != "task":
            raise ConfigError(f"environment '{name}' has no option '{option}': {nearest(option, known)}")
    return cls(**options)
