"""Demonstration files in robomimic's HDF5 layout, validated as they are read: one clear error for each fault.

Three kinds: "native" files of this project (their contract and absolute actions are inside), "robomimic" files
(official low_dim, observations and deltas) and "raw" robosuite collections (simulator states and deltas only).
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from pydantic import ValidationError

from lfm_policy.actions.poses import DELTA_WIDTH
from lfm_policy.contract import Contract
from lfm_policy.data.demos.checksums import Checksums, require_seal
from lfm_policy.data.demos.hdf5 import dataset_names, find_dataset, open_hdf5, read_numbers, readable
from lfm_policy.data.demos.masks import choose, filter_keys
from lfm_policy.data.demos.recording import Recording, parse_recording
from lfm_policy.data.windows.store import Split
from lfm_policy.errors import DataError, nearest, printable
from lfm_policy.files import sha256

Kind = Literal["native", "robomimic", "raw"]

SATURATED = 1.0
"""Commands beyond are clipped by the controller."""
FAR_OUT = 10.0
"""Commands beyond cannot be deltas, of any kind of file; a human's device sends some beyond 1, before clipping."""


@dataclass(frozen=True)
class Demo:
    """One validated demonstration of L steps."""

    name: str
    actions: np.ndarray
    """(L, 7 * arms): deltas, clipped to [-1, 1]."""
    clipped: int
    """How many numbers of `actions` were beyond [-1, 1]."""
    states: np.ndarray | None
    """(L, n): the simulator's state before each action."""
    actions_abs: np.ndarray | None
    """(L, 7 * arms): position [m], axis-angle [rad], gripper, in the world frame; native files only."""
    observation: np.ndarray | None
    """(L, observation_dim), in the contract's order; None in raw files."""


@dataclass(frozen=True)
class DemoFile:
    """An open demonstration file."""

    path: Path
    kind: Kind
    recording: Recording
    contract: Contract
    """The contract of the prepared data: the file's own (native), or that of its environment here."""
    names: tuple[str, ...]
    """Episodes, in numerical order."""
    split: Mapping[Split, tuple[int, ...]]
    """Indices into `names`, from the file's masks or every tenth held out."""
    data: Any
    """The HDF5 group "data"."""
    checksums: Checksums
    own_notes: tuple[str, ...] = ()
    """What was passed over in the file."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how the file is read."""
        return (*self.recording.notes, *self.own_notes)

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the file."""
        return sha256(self.path)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Demo:
        """Read and validate one demonstration.

        Raises:
            DataError: a key is missing, a value is not finite or out of range, a width or length is wrong.
        """
        with readable(self.path):
            return _read_demo(self, self.names[index])

    def array(self, index: int, key: str) -> np.ndarray | None:
        """Read an array of a demonstration as it is in the file, of finite numbers (L, width); None if it is not there.

        Raises:
            DataError: not numbers of that shape, or not those that were recorded.
        """
        name = self.names[index]
        with readable(self.path):
            dataset = find_dataset(self.data[name], key)
            values = None if dataset is None else read_numbers(dataset, f"{self.path}: {name}/{key}")
            self.checksums.require(name, key, values)
            return values

    def model_xml(self, index: int) -> str | None:
        """Return the simulator's model of a demonstration; None if it is not there."""
        name = self.names[index]
        with readable(self.path):
            model = self.data[name].attrs.get("model_file")
            self.checksums.require_model(name, model)
            return model

    def source(self) -> dict[str, Any]:
        """Give the provenance as JSON: file name, checksum, kind and how it was recorded."""
        recorded = self.recording.model_dump(mode="json")
        return {"file": self.path.name, "sha256": self.sha256, "kind": self.kind, "recorded": recorded}


@contextmanager
def open_demos(
    path: str | Path, contracts: Mapping[str, Contract], strict: bool = True, mask: str | None = None
) -> Iterator[DemoFile]:
    """Open a demonstration file and validate what does not need reading the episodes.

    Args:
        path: the HDF5 file.
        contracts: the contract of each known environment, by its class name ("Lift").
        strict: refuse actions that are not deltas of the controllers used here, and what does not fit its checksum.
        mask: filter key of the demonstrations to take ("20_percent"); None for all.

    Raises:
        DataError: not found, truncated, not HDF5, not a demonstration file, an unknown environment, another controller,
            masks that cannot be used.
        ConfigError: the file has no such filter key.
    """
    path = Path(path)
    if path.is_file() and os.access(path, os.R_OK):  # else opening it says what is wrong
        require_seal(path)
    with open_hdf5(path) as file:
        with readable(path):
            demos = _describe(path, file, contracts, strict, mask)
        if strict:
            demos.recording.require_deltas(str(path))
            demos.recording.require_controllers(demos.contract, str(path))
        yield demos


def _describe(path: Path, file: Any, contracts: Mapping[str, Contract], strict: bool, mask: str | None) -> DemoFile:
    if not isinstance(file.get("data"), h5py.Group):
        raise DataError(f"{path}: expected a group 'data' with demonstrations, found {sorted(file)}")
    data = file["data"]
    metadata = next((name for name in ("env_args", "env_info") if name in data.attrs), None)
    if metadata is None:
        raise DataError(f"{path}: expected env_args (or env_info) among data's attributes, found {sorted(data.attrs)}")
    version = data.attrs.get("repository_version")
    recording = parse_recording(data.attrs[metadata], version, f"{path} ({metadata})")
    if "contract" not in data.attrs and recording.environment not in contracts:
        hint = nearest(recording.environment, contracts)
        raise DataError(f"{path}: environment '{recording.environment}' is not one of the tasks here: {hint}")
    names, others = _demonstrations(data)
    if not names:
        raise DataError(f"{path}: expected demonstrations data/demo_0, …, found {sorted(data) or 'none'}")
    notes = [printable(f"data/{', data/'.join(others)} passed over: no demonstrations")] if others else []
    chosen = choose(file, names, str(path), mask)
    if mask is None and (keys := filter_keys(file.get("mask", {}))):
        notes.append(printable(f"it also has masks {', '.join(keys)}, which were not used: choose one with filter="))
    if mask is not None:
        names = [name for name in names if name in {*chosen["train"], *chosen["valid"]}]
        notes.append(f"filter={mask} takes {len(names)} demonstrations")
    index = {name: i for i, name in enumerate(names)}
    split: dict[Split, tuple[int, ...]] = {kind: tuple(index[name] for name in chosen[kind]) for kind in chosen}
    kind = _kind(data, names[0])
    contract = _own_contract(path, data) if kind == "native" else contracts[recording.environment]
    checksums = Checksums(file if strict else {}, str(path))
    return DemoFile(path, kind, recording, contract, tuple(names), split, data, checksums, tuple(notes))


def _demonstrations(data: Any) -> tuple[list[str], list[str]]:
    """Return the demonstrations in numerical order, and what else is there under such a name."""
    found: list[str] = sorted((name for name in data if name.startswith("demo")), key=_number)
    names = [name for name in found if _is_demonstration(name, data.get(name))]
    return names, [name for name in found if name not in set(names)]


def _is_demonstration(name: str, entry: Any) -> bool:
    return isinstance(entry, h5py.Group) and ("actions" in entry or _number(name)[0] >= 0)


def _kind(data: Any, first: str) -> Kind:
    if "contract" in data.attrs:
        return "native"
    return "robomimic" if "env_args" in data.attrs and "obs" in data[first] else "raw"


def _own_contract(path: Path, data: Any) -> Contract:
    try:
        return Contract.model_validate_json(data.attrs["contract"])
    except ValidationError as error:
        raise DataError(f"{path}: its contract cannot be read, collect it again with this version ({error})") from error


def _number(name: str) -> tuple[int, str]:
    digits = name.rpartition("_")[2]
    return (int(digits) if digits.isdigit() else -1, name)


def _read_demo(file: DemoFile, name: str) -> Demo:
    group, contract, where = file.data[name], file.contract, f"{file.path}: {name}"
    arrays = _read_arrays(file, name, where)
    deltas, states, actions_abs = arrays["actions"], arrays.get("states"), arrays.get("actions_abs")
    length, width = len(deltas), DELTA_WIDTH * len(contract.controllers)
    if length == 0:
        raise DataError(f"{where} has no steps: remove it from the file")
    _require_shape(deltas, (length, width), "actions", where)
    _require_range(deltas, where)
    if states is not None:
        _require_shape(states, (length, states.shape[1]), "states", where)
    if actions_abs is not None:
        _require_shape(actions_abs, (length, width), "actions_abs", where)
    if (said := group.attrs.get("num_samples", length)) != length:
        raise DataError(f"{where}: num_samples says {said}, but there are {length} actions")
    return Demo(
        name=name,
        actions=np.clip(deltas, -SATURATED, SATURATED),
        clipped=int((np.abs(deltas) > SATURATED).sum()),
        states=states,
        actions_abs=actions_abs,
        observation=None if file.kind == "raw" else _observation(arrays, contract, length, where),
    )


def _read_arrays(file: DemoFile, name: str, where: str) -> dict[str, np.ndarray]:
    """Read the arrays that a demonstration of this kind must have, and states if any; float64 (L, width) each."""
    group, required = file.data[name], ["actions", "actions_abs" if file.kind == "native" else "states"]
    if file.kind != "raw":
        required += [f"obs/{key.name}" for key in file.contract.observations]
    found = {key: find_dataset(group, key) for key in dict.fromkeys([*required, "states"])}
    missing = [key for key in required if found[key] is None]
    if missing:
        raise DataError(f"{where}: missing {missing}; found {dataset_names(group)}")
    arrays = {key: read_numbers(entry, f"{where}/{key}") for key, entry in found.items() if entry is not None}
    for key in found:
        file.checksums.require(name, key, arrays.get(key))
    return arrays


def _observation(arrays: Mapping[str, np.ndarray], contract: Contract, length: int, where: str) -> np.ndarray:
    parts = {key.name: arrays[f"obs/{key.name}"] for key in contract.observations}
    for key in contract.observations:
        _require_shape(parts[key.name], (length, key.dim), f"obs/{key.name}", where)
    return contract.flatten(parts)


def _require_shape(array: np.ndarray, shape: tuple[int, int], key: str, where: str) -> None:
    if array.shape == shape:
        return
    if len(array) != shape[0]:
        raise DataError(f"{where}: lengths disagree: {key} has {len(array)} rows, actions {shape[0]}")
    raise DataError(f"{where}: expected {key} of width {shape[1]}, found {array.shape[1]}")


def _require_range(deltas: np.ndarray, where: str) -> None:
    largest = float(np.abs(deltas).max())
    if largest > FAR_OUT:
        raise DataError(
            f"{where}: expected delta actions within [-1, 1], found one of magnitude {largest:.3g}: "
            "are these absolute poses, or actions in physical units?"
        )
