"""The names of environments, and how `environment=` and a contract lead to one.

Known are this package's ("robosuite/lift", "point_mass") and what `register` added; beside them go

- "package.module:NAME": a `Task` of robosuite, or a factory (a class, a function) that makes an `Environment`;
- "gym:MODULE/Name-v0": an environment of Gymnasium; its numbers are named by the contract that asks for it;
- "file.yaml" (or .json): such an environment with what its numbers mean (`lfm_envs.from_gymnasium.Description`).

An installed package announces names of its own with an entry point of the group "lfm_envs": the module that it names
is imported where a name is not known, and calls `register`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import entry_points
from typing import Any

from lfm_envs.from_gymnasium import SUITE, describe
from lfm_envs.lookup import is_address, load_object
from lfm_envs.tasks import TASKS, Task, task, task_of_environment
from lfm_policy.contract import Contract
from lfm_policy.errors import ConfigError, nearest
from lfm_policy.protocols import Environment

GYM = "gym:"
FILES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class _Entry:
    factory: Callable[..., Environment]
    contract: Contract | None


_REGISTERED: dict[str, _Entry] = {}


def register(name: str, factory: Callable[..., Environment], contract: Contract | None = None) -> None:
    """Make an environment known by a name, in this process: `make(name, **options)` then calls `factory(**options)`.

    Worker processes start afresh and import the module that runs (`if __name__ == "__main__"` guards the rest of it),
    so register at the top of it, or in a module named by an entry point of the group "lfm_envs".

    Args:
        name: how `environment=` says it.
        factory: makes the environment; its parameters are the options.
        contract: of the environment, where it is known without making one.

    Raises:
        ConfigError: the name is taken, or reads like an address or a file.
    """
    if ":" in name or name.endswith(FILES) or not name:
        raise ConfigError(f"'{name}' is no name: names have no colon and do not end in {', '.join(FILES)}")
    if (
        name in [f"robosuite/{task}" for task in TASKS]
        or _REGISTERED.get(name, _Entry(factory, None)).factory != factory
    ):
        raise ConfigError(f"there is an environment '{name}' already: choose another name")
    _REGISTERED[name] = _Entry(factory, contract)


def names() -> list[str]:
    """List every environment that has a name."""
    return [*(f"robosuite/{name}" for name in TASKS), *_REGISTERED]


def name_for(contract: Contract, trust_code: bool = False) -> str:
    """Find the name or address that `make` knows the contract's environment by.

    Args:
        contract: of a policy or a data set.
        trust_code: follow an address in the contract, which makes `make` import and run code that it names.

    Raises:
        ConfigError: the contract does not tell, or tells an address that is not trusted.
    """
    where = contract.made_by
    if where is None:
        return _name_by_suite(contract)
    if where in _announced() or trust_code:
        return where
    raise ConfigError(
        f"the contract of '{contract.suite}/{contract.environment}' says that '{where}' makes its environment: that is "
        f"code from outside this package; give environment='{where}', or trust_code=true, if you know it"
    )


def _name_by_suite(contract: Contract) -> str:
    if contract.suite == "robosuite":
        return f"robosuite/{task_of_environment(contract.environment).name}"
    if (contract.suite, contract.environment) == ("builtin", "PointMass"):
        return "point_mass"
    raise ConfigError(
        f"unknown environment '{contract.suite}/{contract.environment}': give environment=NAME, "
        f"environment=package.module:factory or environment=gym:MODULE/Name-v0; known: {', '.join(names())}"
    )


def view_for(contract: Contract) -> dict[str, Any]:
    """Find the options with which `make` builds an environment that shows and tells what the contract says."""
    options: dict[str, Any] = {"cameras": contract.cameras} if contract.cameras else {}
    if contract.modes and contract.suite == "robosuite":
        options["modes"] = contract.modes
    hidden = contract.suite == "robosuite" and all(key.name != "object" for key in contract.observations)
    if contract.suite == SUITE:
        options["contract"] = contract
    return options | ({"objects": False} if hidden else {})


def factory_for(
    contract: Contract, environment: str | None = None, *, trust_code: bool = False, **options: Any
) -> tuple[str, Callable[[], Environment]]:
    """Find the environment of a policy: its name, and a picklable function that makes it as the policy sees it.

    Args:
        contract: of the policy.
        environment: name or address; what the contract says if None.
        trust_code: see `name_for`.
        options: of the environment.

    Raises:
        ConfigError: see `name_for`.
    """
    name = environment or name_for(contract, trust_code)
    return name, partial(make, name, **view_for(contract), **options)


def contract_for(name: str) -> Contract:
    """Find the contract of an environment, without making one where that is possible.

    Raises:
        ConfigError: as `make`.
    """
    if name in _announced() and (known := _REGISTERED.get(name)) and known.contract is not None:
        return known.contract
    if name.startswith("robosuite/"):
        return task(name).contract
    environment = make(name)
    try:
        return environment.contract
    finally:
        environment.close()


def make(name: str, contract: Contract | None = None, **options: Any) -> Environment:
    """Build an environment, for example "robosuite/lift"; its simulator is imported only now.

    Args:
        name: a name, an address or a file; see this module.
        contract: what the numbers of an environment of Gymnasium mean that is named by "gym:" alone; others know.
        options: of the environment.

    Raises:
        ConfigError: unknown name or option (names the nearest one), or the simulator is not installed.
    """
    if name.startswith(GYM) or name.endswith(FILES):
        return _build(name, describe(name, contract).make, options)
    if is_address(name):
        found = load_object(name)
        return _robosuite(name, task(name), options) if isinstance(found, Task) else _build(name, found, options)
    if name.startswith("robosuite/") and name in names():
        return _robosuite(name, task(name), options)
    if name not in _announced():
        raise ConfigError(
            f"unknown environment '{name}': {nearest(name, names())}, or package.module:factory, or gym:MODULE/Name-v0"
        )
    return _build(name, _REGISTERED[name].factory, options)


def _announced() -> list[str]:
    """Return every name, with those that installed packages announce."""
    _import_plugins()
    return names()


@cache
def _import_plugins() -> None:
    for plugin in entry_points(group="lfm_envs"):
        plugin.load()


def _robosuite(name: str, task: Task, options: dict[str, Any]) -> Environment:
    from lfm_envs.robosuite_env import RobosuiteEnvironment

    return _build(name, RobosuiteEnvironment, {"task": task, **options})


def _build(name: str, factory: Callable[..., Any], options: dict[str, Any]) -> Any:
    if not callable(factory):
        raise ConfigError(
            f"'{name}' makes no environment: expected a class or a function, found {type(factory).__name__}"
        )
    parameters = inspect.signature(factory).parameters
    known = [parameter for parameter in parameters if parameter != "task"]
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in options:
        if option not in known and option != "task" and not anything:
            raise ConfigError(f"environment '{name}' has no option '{option}': {nearest(option, known)}")
    environment = factory(**options)
    if not isinstance(environment, Environment):
        missing = [
            part
            for part in ("contract", "horizon", "reset", "step", "render", "close")
            if not hasattr(environment, part)
        ]
        raise ConfigError(f"'{name}' made no environment: a {type(environment).__name__} has no {', '.join(missing)}")
    return environment


def _point_mass() -> Environment:
    from lfm_envs.point_mass import PointMass

    return PointMass()


register("point_mass", _point_mass)
