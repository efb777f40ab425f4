"""Observations under the names and in the forms that robots send: arrays or lists, flat or in maps, openpi's names.

A contract's `position` is found as "position", as "observation/position" or "observation.position", inside a map
"observation", or under a name that a small JSON file gives it (`Names`). What the contract does not name, such as
openpi's prompt, is ignored, and the client is told so once.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lfm_policy.contract import Contract
from lfm_policy.errors import ConfigError, ContractError, ServingError, nearest, shown

STATE = "observation.state"
"""Name of an observation that is already flattened in the contract's order, as LeRobot calls it."""

_PREFIXES = ("observation/", "observation.")
_STATES = {STATE, "observation/state"}
_MOST_ROWS = 4096
_LARGEST = 1e10
"""Largest magnitude of an observation: above what encoders count, below what overflows inside a network."""
_TOLD = 20
"""Names that a message lists."""


class Names:
    """What a robot's own names stand for: observations of the contract, or several that it sends as one vector.

    Args:
        contract: of the policy.
        names: robot's name -> the contract's name, a list of them, or "observation.state" for all in order.

    Raises:
        ConfigError: a name on the right is not in the contract.
    """

    def __init__(self, contract: Contract, names: Mapping[str, str | list[str]] | None = None) -> None:
        self.contract = contract
        self._widths = {key.name: key.dim for key in contract.observations}
        self._targets = {name: _listed(target) for name, target in (names or {}).items()}
        for target in (part for parts in self._targets.values() for part in parts):
            if target != STATE and target not in self._widths:
                raise ConfigError(
                    f"the robot's names lead to {shown(target)}, which the policy does not observe: "
                    f"{nearest(str(target)[:80], [*self._widths, STATE])}"
                )

    @classmethod
    def read(cls, path: Path | None, contract: Contract) -> "Names":
        """Read a JSON file such as {"observation/joints": "robot0_joint_pos", "obs/arm": ["eef_pos", "eef_quat"]}.

        Raises:
            ConfigError: it cannot be read, is no such map, or leads to what the contract does not have.
        """
        if path is None:
            return cls(contract)
        try:
            names = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"the robot's names in {path} cannot be read: {error}") from None
        if not isinstance(names, dict) or not all(map(_is_target, names.values())):
            raise ConfigError(
                f'{path}: expected a JSON object such as {{"observation/joints": "robot0_joint_pos"}}, from the '
                f"robot's names to the contract's, found {shown(names)}"
            )
        return cls(contract, names)

    def targets(self, name: str) -> tuple[str, ...]:
        """What of the contract a robot's name stands for; nothing where the policy does not observe it."""
        if name in self._targets:
            return self._targets[name]
        if name in self._widths:
            return (name,)
        if name in _STATES:
            return (STATE,)
        for prefix in _PREFIXES:
            if name.startswith(prefix) and name.removeprefix(prefix) in self._widths:
                return (name.removeprefix(prefix),)
        return ()

    def width(self, targets: tuple[str, ...]) -> int:
        """Numbers in one row of what a robot's name stands for."""
        return self.contract.observation_dim if targets == (STATE,) else sum(self._widths[name] for name in targets)


def read_rows(message: Mapping[str, Any], names: Names) -> tuple[np.ndarray, tuple[str, ...]]:
    """The observations of a message, float32 (k, observation_dim) with k >= 1, oldest first; and what is ignored.

    Raises:
        ServingError: an observation is no array of finite numbers.
        ContractError: one is missing, comes twice, or has another width.
    """
    found: dict[str, np.ndarray] = {}
    sources: dict[str, str] = {}
    given: list[str] = []
    ignored: list[str] = []
    for name, value in _entries(message):
        given.append(name)
        targets = names.targets(name)
        if not targets:
            ignored.append(name)
            continue
        array = _rows(value, name, names.width(targets))
        first = 0
        for target in targets:
            if target in sources:
                raise ContractError(f"'{target}' comes twice: as {shown(sources[target])} and as {shown(name)}")
            sources[target] = name
            last = first + names.width((target,))
            found[target], first = array[..., first:last], last
    return np.atleast_2d(_joined(found, given, names.contract)), tuple(ignored)


def as_floats(array: np.ndarray, name: str) -> np.ndarray:
    """The numbers as float32.

    Raises:
        ServingError: one is not finite, or larger than any sensor reads.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ServingError(f"{shown(name)}: expected finite float32 numbers, found NaN, infinity or one out of range")
    if array.size and (largest := float(np.abs(array).max())) > _LARGEST:
        raise ServingError(f"{shown(name)}: expected numbers up to {_LARGEST:.0e}, found {largest:.2g}: check its unit")
    return array


def _rows(value: Any, name: str, width: int) -> np.ndarray:
    """What was sent under `name` as float32 rows of `width` numbers; a single number is a row of width 1."""
    array = as_array(value, name)
    if width == 1 and array.ndim == 0:
        array = array.reshape(1)
    if array.shape[-1:] != (width,):
        raise ContractError(f"observation {shown(name)}: expected width {width}, found shape {array.shape}")
    if array.ndim > 2 or not 0 < array.size <= _MOST_ROWS * width:
        raise ContractError(
            f"observation {shown(name)}: expected one observation or 1 to {_MOST_ROWS} rows of observations, "
            f"found shape {array.shape}"
        )
    return as_floats(array, name)


def as_array(value: Any, name: str) -> np.ndarray:
    """The numbers that a client sends as an array, nested lists, or one number.

    Raises:
        ServingError: they are none.
    """
    name = shown(name)
    if not isinstance(value, np.ndarray):
        if not isinstance(value, list | int | float | np.number):
            raise ServingError(f"{name}: expected an array or a list of numbers, found {type(value).__name__}")
        try:
            value = np.asarray(value)
        except ValueError:
            raise ServingError(f"{name}: expected a list of numbers, or lists of equal length, found others") from None
    if value.dtype.kind not in "biuf":
        kind = "something else" if value.dtype.kind == "O" else f"dtype {value.dtype}"
        raise ServingError(f"{name}: expected numbers, found {kind}")
    return value


def _joined(found: Mapping[str, np.ndarray], given: list[str], contract: Contract) -> np.ndarray:
    if STATE in found:
        return found[STATE]
    expected = [key.name for key in contract.observations]
    for name in expected:
        if name not in found:
            told = ", ".join(map(shown, sorted(given)[:_TOLD])) + (", …" if len(given) > _TOLD else "")
            raise ContractError(f"observation '{name}' is missing: expected {expected}, found [{told}]")
    if len({array.shape[:-1] for array in found.values()}) > 1:
        shapes = {name: array.shape for name, array in found.items()}
        raise ContractError(f"expected the same number of rows in every observation, found {shapes}")
    return contract.flatten(found)


def _entries(message: Mapping[Any, Any], inside: str = "") -> Iterator[tuple[str, Any]]:
    """What a message holds beside our own keys, the maps in it opened: names joined by a slash."""
    for name, value in message.items():
        if not isinstance(name, str):
            raise ServingError(f"expected names as keys, found {shown(name)}")
        if name.startswith("__") and not inside:
            continue
        if isinstance(value, dict):
            yield from _entries(value, f"{inside}{name}/")
        else:
            yield inside + name, value


def _listed(target: str | list[str]) -> tuple[str, ...]:
    return (target,) if isinstance(target, str) else tuple(target)


def _is_target(target: Any) -> bool:
    return isinstance(target, str) or (
        isinstance(target, list) and len(target) > 0 and all(isinstance(part, str) for part in target)
    )
