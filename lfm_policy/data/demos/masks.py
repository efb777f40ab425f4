"""Which demonstrations of a file are for training and which for validation: one rule for every command that asks.

`mask/train` and `mask/valid` name them, or robomimic's filter keys: `filter="20_percent"` chooses the masks
`20_percent_train` and `20_percent_valid`, or `20_percent` out of `train` and `valid`. Without masks every tenth is held
out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from lfm_policy.data.demos.hdf5 import require_inside, require_moderate
from lfm_policy.data.windows.store import Split
from lfm_policy.errors import ConfigError, DataError, nearest

HOLD_OUT = 10
"""Without a mask in the file, every tenth episode is for validation."""
SPLITS: tuple[Split, Split] = ("train", "valid")


def choose(file: Any, names: Sequence[str], where: str, wanted: str | None = None) -> dict[Split, tuple[str, ...]]:
    """Choose the names of each split, in the order of `names`.

    Args:
        file: the HDF5 file.
        names: of all its demonstrations.
        where: its path, for messages.
        wanted: a filter key; None for all demonstrations.

    Raises:
        ConfigError: there is no such filter key; lists those that there are.
        DataError: a mask is no list of demonstrations in the file, two overlap, or nothing is left to train on.
    """
    masks = _masks(file, names, where)
    if wanted is None:
        split = _among(names, masks)
    elif f"{wanted}_train" in masks:
        split = _among(names, {kind: masks.get(f"{wanted}_{kind}", ()) for kind in SPLITS})
    elif wanted in masks:
        split = _among([name for name in names if name in masks[wanted]], masks)
    else:
        keys = filter_keys(masks)
        known = f"; {nearest(wanted, keys)}" if keys else ": it has none"
        raise ConfigError(f"{where} has no filter key '{wanted}'{known}")
    if both := sorted(set(split["train"]) & set(split["valid"])):
        raise DataError(
            f"{where}: {both[:5]} ({len(both)} in all) are for training and for validation by its masks: the "
            "validation loss would be a training loss; take them out of one mask"
        )
    if not split["train"]:
        raise DataError(f"{where}: no demonstration is left to train on: mask/train is empty")
    return split


def filter_keys(masks: Mapping[str, Any]) -> list[str]:
    """Name the filter keys among a file's masks."""
    return sorted({name.removesuffix("_train").removesuffix("_valid") for name in masks} - set(SPLITS))


def _among(names: Sequence[str], masks: Mapping[str, Sequence[str]]) -> dict[Split, tuple[str, ...]]:
    """Return the masks' splits of `names`; what only `valid` names is held out, without both every tenth."""
    valid = set(masks["valid"]) if "valid" in masks else set()
    if "train" in masks:
        train = set(masks["train"])
    else:
        valid = valid if "valid" in masks else set(names[HOLD_OUT - 1 :: HOLD_OUT])
        train = set(names) - valid
    return {
        "train": tuple(name for name in names if name in train),
        "valid": tuple(name for name in names if name in valid),
    }


def _masks(file: Any, names: Sequence[str], where: str) -> dict[str, tuple[str, ...]]:
    group = file.get("mask")
    if group is None:
        return {}
    if not isinstance(group, h5py.Group):
        raise DataError(f"{where}: expected a group 'mask' with lists of demonstrations, found a {_kind(group)}")
    return {str(key): _read(group[key], set(names), f"{where}: mask/{key}") for key in group}


def _read(entry: Any, names: set[str], where: str) -> tuple[str, ...]:
    text = (
        isinstance(entry, h5py.Dataset) and len(entry.shape or ()) == 1 and (entry.dtype.kind in "SO" or not entry.size)
    )
    if not text:
        raise DataError(f"{where}: expected a list of names of demonstrations, found a {_kind(entry)}")
    require_inside(entry.id, where)
    require_moderate(entry.shape, entry.dtype.itemsize, where)
    chosen = tuple(
        value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in np.asarray(entry[()])
    )
    if unknown := sorted(set(chosen) - names):
        raise DataError(f"{where} names {unknown[:3]}, which are not in the file ({len(names)} episodes)")
    if len(set(chosen)) < len(chosen):
        twice = sorted({name for name in chosen if chosen.count(name) > 1})
        raise DataError(f"{where} names {twice[:3]} more than once: name each demonstration once")
    return chosen


def _kind(entry: Any) -> str:
    return f"data set of {entry.dtype} {entry.shape}" if isinstance(entry, h5py.Dataset) else type(entry).__name__
