"""Training windows of data sets that do not fit into memory, read from disk as they are asked for.

The store is compressed in chunks of thousands of rows, of which a random window needs sixteen. So it is unpacked once,
a block at a time, into an unnamed file of plain rows (in TMPDIR), where any window is one read. Batches are the bits
that `Windows` would give; what stays in memory is a few numbers per episode.
"""

import os
import tempfile
import weakref
from typing import IO

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from lfm_policy.data.windows.memory import WindowBatch, WindowIndex, pictures
from lfm_policy.data.windows.store import Split, Store


class StreamedWindows:
    """All windows of a set of episodes, on disk.

    Args:
        index: where they lie.
        file: rows of `observation_dim` + action_dim float32 each, one after the other; closed with this object.
        widths: observation_dim and action_dim.
        frames: pictures of every row, uint8 (S, K, H, W, 3).
    """

    def __init__(
        self, index: WindowIndex, file: IO[bytes], widths: tuple[int, int], frames: Tensor | None = None
    ) -> None:
        self._index, self._file, self._widths, self.frames = index, file, widths, frames
        weakref.finalize(self, file.close)

    @classmethod
    def from_store(
        cls,
        store: Store,
        split: Split = "train",
        horizon: int = 16,
        observation_steps: int = 2,
        action_steps: int = 8,
        frames: Tensor | None = None,
    ) -> "StreamedWindows":
        """Unpack one split of a prepared data set; pictures of it are given, from `read_frames`.

        Raises:
            DataError: the store is damaged or the split has no window.
        """
        index = WindowIndex.from_store(store, split, horizon, observation_steps, action_steps)
        file = tempfile.TemporaryFile(prefix="lfm-windows-")  # noqa: SIM115 (lives as long as the object)
        for observation, action in store.blocks(split):
            file.write(np.concatenate([observation, action], axis=1).data)
        file.flush()
        return cls(index, file, (store.contract.observation_dim, store.contract.action_dim), frames)

    def __len__(self) -> int:
        return len(self._index)

    def gather(self, index: Int[Tensor, " B"]) -> WindowBatch:
        """Return the windows at `index`, a batch in main memory."""
        rows = self._index.rows(index)
        # consecutive rows from the first one on; what a clamped window reads too much is not taken below
        width, file = sum(self._widths), self._file.fileno()
        found = np.empty((*rows.shape, width), dtype=np.float32)
        for window, first in zip(found, (rows[:, 0] * width * found.itemsize).tolist(), strict=True):
            os.preadv(file, [window.data], first)
        places = (rows - rows[:, :1])[..., None].expand(*rows.shape, width)
        observation, action = torch.from_numpy(found).gather(1, places).split(self._widths, dim=2)
        steps = self._index.observation_steps
        newest = rows[:, steps - 1]
        return WindowBatch(observation[:, :steps], action, newest, pictures(self.frames, newest))
