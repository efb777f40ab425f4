"""The pictures of a prepared data set, unpacked: in memory, or in a file where they take too much of it."""

import tempfile

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from lfm_policy.data.windows.store import Split, Store
from lfm_policy.errors import DataError


def read_frames(store: Store, split: Split = "train", resident: bool = True) -> UInt8[Tensor, "S K H W 3"]:
    """Unpack the pictures of one split.

    Args:
        store: with cameras in its contract.
        split: whose rows.
        resident: in memory; otherwise in an unnamed file (in TMPDIR) that is mapped, of which the system keeps in
            memory what it has room for.

    Raises:
        DataError: the store has no pictures, or part of it is missing or damaged.
    """
    if store.contract.frames_shape is None:
        raise DataError(f"{store.path} holds no pictures: prepare demonstrations that do, with observations=images")
    ends = store.ends(split)
    shape = (int(ends[-1]) if len(ends) else 0, *store.contract.frames_shape)
    if resident:
        frames = np.empty(shape, np.uint8)
    else:
        with tempfile.TemporaryFile(prefix="lfm-frames-") as file:
            frames = np.memmap(file, np.uint8, "w+", shape=shape)
    first = 0
    for block in store.frame_blocks(split):
        frames[first : first + len(block)] = block
        first += len(block)
    return torch.from_numpy(frames)


def frame_bytes(store: Store) -> int:
    """Return the bytes of all pictures, unpacked."""
    return store.steps * int(np.prod(store.contract.frames_shape or (0,)))
