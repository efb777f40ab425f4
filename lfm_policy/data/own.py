"""Demonstrations of your own, from wherever they are, as a prepared data set: episodes and a contract."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lfm_policy.contract import Contract
from lfm_policy.data.windows.store import Episode, Split, write_store
from lfm_policy.errors import ContractError, DataError


@dataclass(frozen=True)
class Demonstration:
    """One episode of L steps, in raw units: row t holds what was seen before step t, and the action of step t."""

    observations: Mapping[str, np.ndarray] | np.ndarray
    """(L, width) by the names of the contract's observations, in any order; or (L, observation_dim) in their order."""
    actions: np.ndarray
    """(L, action_dim)"""
    success: bool = True
    pictures: Mapping[str, np.ndarray] | None = None
    """uint8 (L, height, width, 3) by `Camera.key`, where the contract has cameras."""


def store_demonstrations(
    out: str | Path,
    demonstrations: Iterable[Demonstration],
    contract: Contract,
    *,
    hold_out: int = 10,
    failures: bool = False,
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write demonstrations as the data set that `lfm train data.path=` takes; only one shard is held in memory.

    Args:
        out: the data set to write, by convention NAME.zarr; an existing one there is replaced.
        demonstrations: the episodes, in order; a generator will do.
        contract: what their numbers mean.
        hold_out: every so-many-th episode is for validation; 0 for none.
        failures: keep episodes without success too.
        source: where they come from, as JSON, for the record.

    Returns:
        How many "episodes" and "steps" were written, "valid" of them for validation, and "failures" left out.

    Raises:
        DataError: an episode has other names, widths or lengths than the contract says, or numbers that are not finite;
            or there is none.
    """
    counts = {"episodes": 0, "steps": 0, "valid": 0, "failures": 0}
    split: dict[Split, list[int]] = {"train": [], "valid": []}  # filled as the episodes are written

    def chosen() -> Iterator[Episode]:
        for number, demonstration in enumerate(demonstrations):
            if not (demonstration.success or failures):
                counts["failures"] += 1
                continue
            index = counts["episodes"]
            held = hold_out > 0 and index % hold_out == hold_out - 1
            split["valid" if held else "train"].append(index)
            counts.update(episodes=index + 1, steps=counts["steps"] + len(demonstration.actions))
            counts["valid"] += held
            yield _episode(number, demonstration, contract)

    write_store(out, chosen(), contract, split, {"kind": "own", **(source or {})})
    return counts


def _episode(number: int, demonstration: Demonstration, contract: Contract) -> Episode:
    """Return the episode as the store has it; `number` counts all that came, for messages."""
    observations, action = demonstration.observations, np.asarray(demonstration.actions, np.float32)
    try:
        if isinstance(observations, Mapping):
            lengths = {name: len(values) for name, values in observations.items()} | {"actions": len(action)}
            if len(set(lengths.values())) > 1:
                raise DataError(f"episode {number}: expected as many rows everywhere, found {lengths}")
            rows = contract.flatten(observations)
        else:
            rows = np.asarray(observations, np.float32)
        frames = contract.stack(demonstration.pictures or {}) if contract.cameras else None
    except ContractError as error:
        raise DataError(f"episode {number}: {error}") from error
    return Episode(rows, action, frames)
