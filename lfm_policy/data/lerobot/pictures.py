"""The pictures of a data set, episode by episode: out of its videos, or out of its rows."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from lfm_policy.contract import Camera
from lfm_policy.data.lerobot.info import Info
from lfm_policy.data.lerobot.table import Entry
from lfm_policy.data.lerobot.video import Film, read_picture
from lfm_policy.errors import DataError

LARGEST_IN_MEMORY = 256 << 20
"""Bytes of an episode's pictures."""


class Pictures:
    """Reads the pictures of some cameras; keeps the video of each open.

    Args:
        info: of the data set.
        keys: the feature of each camera; cameras say what size the pictures are to be.
    """

    def __init__(self, info: Info, keys: Mapping[Camera, str]) -> None:
        self._keys, self._fps = keys, info.fps
        self._open: dict[str, tuple[Path, Film]] = {}
        self.columns = [key for key in keys.values() if info.features[key].dtype == "image"]
        """Of those that lie in the rows themselves."""

    def read(self, entry: Entry, table: pa.Table, where: str) -> np.ndarray:
        """Return the pictures of an episode, uint8 (L, cameras, height, width, 3)."""
        size = next((camera.height, camera.width) for camera in self._keys)
        frames = _room((len(table), len(self._keys), *size, 3))
        for place, key in enumerate(self._keys.values()):
            if key in self.columns:
                for row, cell in enumerate(table.column(key)):
                    content = (cell.as_py() or {}).get("bytes")
                    if not content:
                        raise DataError(f"{where}: {key} holds no picture in frame {row}, only a path: embed them")
                    frames[row, place] = read_picture(content, size, f"{where}, frame {row}: {key}")
            else:
                clip = entry.clips[key]
                self._film(key, clip.path, size).read(clip.start_s, self._fps, frames[:, place])
        return frames

    def _film(self, key: str, path: Path, size: tuple[int, int]) -> Film:
        known = self._open.get(key)
        if known is None or known[0] != path:
            if known is not None:
                known[1].close()
            self._open[key] = known = (path, Film(path, size))
        return known[1]

    def close(self) -> None:
        """Close the videos."""
        for _, film in self._open.values():
            film.close()


def _room(shape: tuple[int, ...]) -> np.ndarray:
    """Return an array for the pictures of an episode: in memory, or in a file without a name if they are many."""
    if int(np.prod(shape)) <= LARGEST_IN_MEMORY:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:  # the map holds it until nobody needs the array
        return np.memmap(file, np.uint8, "w+", shape=shape)
