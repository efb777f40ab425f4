"""Observations under the names and in the forms that robots send: arrays or lists, flat or in maps, openpi's names.

A contract's `position` is found as "position", as "observation/position" or "observation.position", inside a map
"observation", or under a name that a small JSON file gives it (`Names`); a camera's picture as "wrist_image" or
"observation.images.wrist" as well. What the contract does not name, such as
openpi's prompt, is ignored, and the client is told so once.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lfm_policy.contract import Camera, Contract
from lfm_policy.errors import ConfigError, ContractError, ServingError, nearest, shown

STATE = "observation.state"
"""Name of an observation that is already flattened in the contract's order, as LeRobot calls it."""

_PREFIXES = ("observation/", "observation.")
_PICTURES = ("observation.images.", "observation/images/")
"""LeRobot's prefixes of a camera's name."""
_STATES = {STATE, "observation/state"}
_MOST_ROWS = 4096
_LARGEST = 1e10
"""Largest magnitude of an observation: above what encoders count, below what overflows inside a network."""
_TOLD = 20
"""Names that a message lists."""


@dataclass(frozen=True)
class Observed:
    """What a message says about the robot."""

    rows: np.ndarray
    """float32 (k, observation_dim), oldest first."""
    frames: np.ndarray | None
    """uint8 (cameras, height, width, 3), the newest pictures; None where the contract has no cameras."""
    ignored: tuple[str, ...]
    """Entries that the policy does not observe."""


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
        self.cameras = {camera.key: camera for camera in contract.cameras}
        self._targets = {name: _listed(target) for name, target in (names or {}).items()}
        for target in (part for parts in self._targets.values() for part in parts):
            if target not in (STATE, *self._widths, *self.cameras):
                raise ConfigError(
                    f"the robot's names lead to {shown(target)}, which the policy does not observe: "
                    f"{nearest(str(target)[:80], [*self._widths, *self.cameras, STATE])}"
                )
        if mixed := [
            name for name, parts in self._targets.items() if len(parts) > 1 and {STATE, *self.cameras} & {*parts}
        ]:
            raise ConfigError(f"{shown(mixed[0])} leads to several of the contract's names: only vectors can be split")

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
        """Return what of the contract a robot's name stands for; nothing where the policy does not observe it."""
        if name in self._targets:
            return self._targets[name]
        if name in self._widths or name in self.cameras:
            return (name,)
        if name in _STATES:
            return (STATE,)
        for prefix in _PREFIXES:
            if name.startswith(prefix) and (bare := name.removeprefix(prefix)) in (*self._widths, *self.cameras):
                return (bare,)
        for camera in self.cameras.values():
            if name in [prefix + camera.name for prefix in _PICTURES]:
                return (camera.key,)
        return ()

    def width(self, targets: tuple[str, ...]) -> int:
        """Return how many numbers are in one row of what a robot's name stands for."""
        return self.contract.observation_dim if targets == (STATE,) else sum(self._widths[name] for name in targets)


def observe(message: Mapping[str, Any], names: Names) -> Observed:
    """Read the observations of a message.

    Raises:
        ServingError: an observation is no array of finite numbers.
        ContractError: one is missing, comes twice, or has another size.
    """
    found: dict[str, np.ndarray] = {}
    pictures: dict[str, np.ndarray] = {}
    sources: dict[str, str] = {}
    given: list[str] = []
    ignored: list[str] = []
    for name, value in _entries(message):
        given.append(name)
        targets = names.targets(name)
        if not targets:
            ignored.append(name)
            continue
        for target in targets:
            if target in sources:
                raise ContractError(f"'{target}' comes twice: as {shown(sources[target])} and as {shown(name)}")
            sources[target] = name
        if targets[0] in names.cameras:
            pictures[targets[0]] = _picture(value, name, names.cameras[targets[0]])
            continue
        array, first = _rows(value, name, names.width(targets)), 0
        for target in targets:
            last = first + names.width((target,))
            found[target], first = array[..., first:last], last
    rows = np.atleast_2d(_joined(found, given, names.contract))
    return Observed(rows, names.contract.stack(pictures) if names.cameras else None, tuple(ignored))


def as_floats(array: np.ndarray, name: str) -> np.ndarray:
    """Return the numbers as float32.

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
    """Return what came under `name` as float32 rows of `width` numbers; a single number is a row of width 1."""
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


def _picture(value: Any, name: str, camera: Camera) -> np.ndarray:
    """Return the newest of a camera's pictures, uint8 (height, width, 3)."""
    shape = camera.height, camera.width, camera.channels
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.shape[-3:] != shape or value.ndim > 4:
        found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ContractError(f"picture {shown(name)}: expected uint8 (height, width, 3) {shape}, found {found}")
    if not value.size:
        raise ContractError(f"picture {shown(name)}: expected one or more, oldest first, found none")
    return value[-1] if value.ndim == 4 else value


def as_array(value: Any, name: str) -> np.ndarray:
    """Return the numbers that a client sends as an array, nested lists, or one number.

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
    """Yield what a message holds beside our own keys, the maps in it opened: names joined by a slash."""
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
