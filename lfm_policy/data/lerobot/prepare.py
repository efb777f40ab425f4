"""From LeRobot data sets, of a folder or of the hub, to one prepared store."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lfm_policy.contract import Contract
from lfm_policy.data.lerobot.info import ACTION, INDICES, OBSERVATION
from lfm_policy.data.lerobot.names import Meaning, see
from lfm_policy.data.lerobot.read import Dataset, open_dataset
from lfm_policy.data.lerobot.sources import locate
from lfm_policy.data.windows.store import SHORTEST, Episode, Split, write_store
from lfm_policy.errors import ConfigError, DataError

Seen = Literal["state", "images"]
HELD_OUT = 10
"""Every so-many-th episode is for validation, where a data set does not say which are."""


@dataclass(frozen=True)
class View:
    """What of a data set a policy is to see."""

    observations: Seen = "state"
    """state: all rows of numbers; images: without the objects' poses, with pictures."""
    cameras: tuple[str, ...] | None = None
    """Whose pictures, in this order; None: all."""
    image_size: int | None = None
    """Side that pictures are scaled to [pixels]; None: as they are."""
    failures: bool = False
    """Keep episodes whose `next.success` is never true."""

    @property
    def files(self) -> tuple[str, ...]:
        """What a download needs."""
        return ("meta/*", "data/*", *(("videos/*",) if self.observations == "images" else ()))


@dataclass
class Counts:
    """What came of one data set."""

    episodes: int = 0
    steps: int = 0
    failures: int = 0
    """Left out."""
    shortest: int = 0


def prepare(
    sources: Sequence[str | Path], out: str | Path, view: View | None = None, meaning: Meaning | None = None
) -> dict[str, Any]:
    """Write LeRobot data sets, one after the other, as the store that `lfm train data.path=` takes.

    One episode is in memory, with its pictures, and one shard of the store.

    Args:
        sources: folders, or "user/repository" of the hub.
        out: the store, by convention NAME.zarr.
        view: what a policy is to see.
        meaning: what the data sets do not say themselves.

    Returns:
        What was found and written, as JSON.

    Raises:
        ConfigError: pictures are chosen, but not to be seen.
        DataError: one cannot be used.
        ContractError: they mean different things.
    """
    view = view or View()
    if view.observations == "state" and (view.cameras is not None or view.image_size is not None):
        raise ConfigError("cameras= and image_size= are for observations=images: add it, or leave them out")
    named = [str(source).rstrip("/") for source in sources]
    if len({os.path.realpath(name) for name in named}) < len(named):
        raise DataError(f"source= names one data set more than once: {named}")
    found = [open_dataset(locate(source, view.files), Path(source).name, meaning) for source in named]
    contract = _joint_contract(found, named, view)
    for data in found:
        data.require_files(contract)
    counts = [Counts() for _ in found]
    split: dict[Split, list[int]] = {"train": [], "valid": []}
    origin = {"kind": "lerobot", "data": [_origin(data, name) for data, name in zip(found, named, strict=True)]}
    write_store(out, _episodes(found, contract, view, counts, split), contract, split, origin)
    return {
        "out": str(out),
        "contract": contract.model_dump(mode="json"),
        "sources": [
            {**_origin(data, name), **vars(count), "notes": _notes(data, view, count)}
            for data, name, count in zip(found, named, counts, strict=True)
        ],
        "valid": len(split["valid"]),
    }


def _origin(data: Dataset, name: str) -> dict[str, Any]:
    return {"name": name, "version": data.info.codebase_version, "sha256": data.identity}


def _joint_contract(found: Sequence[Dataset], named: Sequence[str], view: View) -> Contract:
    """Return the contract of all data sets, which have to mean the same.

    The names of data sets are not compared: to merge them is what was asked for.
    """
    first, contracts = found[0], []
    for data, name in zip(found, named, strict=True):
        _require_same_features(first, named[0], data, name)
        contract = data.contract
        if view.observations == "images":
            contract = see(contract, data.cameras, view.cameras, view.image_size)
        else:
            contract = Contract.model_validate(dict(contract) | {"cameras": ()})
        if contract.suite == "lerobot":
            versions = {"suite_version": first.info.codebase_version, "environment": first.name}
            contract = Contract.model_validate(dict(contract) | versions)
        contracts.append(contract)
    for contract, name in zip(contracts[1:], named[1:], strict=True):
        contracts[0].require_match(contract, named[0], name)
    return contracts[0]


def _require_same_features(first: Dataset, ours: str, other: Dataset, theirs: str) -> None:
    """Check that data sets have the same columns at the same rate, by their names in LeRobot."""
    if first.info.fps != other.info.fps:
        raise DataError(
            f"{ours} has {first.info.fps:g} frames per second and {theirs} {other.info.fps:g}: data of different rates "
            "are not merged; prepare them one by one, or resample one"
        )
    a, b = (
        {key for key in data.info.features if key == ACTION or key.startswith(OBSERVATION)} for data in (first, other)
    )
    if a != b:
        raise DataError(
            f"{ours} and {theirs} have different features: only the first has {sorted(a - b)}, only the second "
            f"{sorted(b - a)}: rename them, or prepare the data sets one by one"
        )


def _episodes(
    found: Sequence[Dataset], contract: Contract, view: View, counts: Sequence[Counts], split: dict[Split, list[int]]
) -> Iterator[Episode]:
    """Yield what is kept, and fill counts and split on the way."""
    number, longest = 0, 0
    for data, count in zip(found, counts, strict=True):
        masks = data.masks()
        for index, (episode, success) in enumerate(data.episodes(contract)):
            if not (success or view.failures):
                count.failures += 1
                continue
            held = index in masks.get("valid", ()) if masks else number % HELD_OUT == HELD_OUT - 1
            if not masks or held or index in masks.get("train", (index,)):
                split["valid" if held else "train"].append(number)
            length = len(episode.action)
            count.episodes, count.steps = count.episodes + 1, count.steps + length
            count.shortest += length < SHORTEST
            longest = max(longest, length)
            number += 1
            yield episode
    if number and longest < SHORTEST:
        raise DataError(f"a training takes windows of {SHORTEST} steps, and the longest episode has {longest}")
    if not number and any(count.failures for count in counts):
        raise DataError("no episode is a success (next.success): failures=true keeps the others")


def _notes(data: Dataset, view: View, count: Counts) -> list[str]:
    """Tell what a user should know about how a data set was read."""
    notes = list(data.notes)
    if count.failures:
        notes.append(f"{count.failures} episodes without success (next.success) left out: failures=true keeps them")
    if count.shortest:
        notes.append(f"{count.shortest} of its episodes are shorter than {SHORTEST} steps: too short for a window")
    if data.cameras and view.observations == "state":
        notes.append(f"its pictures ({', '.join(data.cameras)}) were left out: observations=images takes them")
    known = (ACTION, *INDICES)
    others = [key for key in data.info.features if not key.startswith(OBSERVATION) and key not in known]
    if others:
        notes.append(f"columns that are neither observation nor action passed over: {', '.join(others)}")
    if data.contract.space == "vector" and data.contract.suite == "lerobot":
        notes.append("actions are taken as a vector of numbers; where they are joint positions, say space=joints")
    return notes
