"""The numbered files of a data set that is being written: the next begins when LeRobot's limit of size is reached."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lfm_policy.data.lerobot import info as layout
from lfm_policy.data.lerobot.video import FilmWriter

MB = 1 << 20


class Parquet:
    """Appends tables to numbered parquet files.

    Args:
        directory: of the data set.
        template: of the files' paths.
        schema: of the tables; None: that of the first one.
    """

    def __init__(self, directory: Path, template: str, schema: pa.Schema | None) -> None:
        self._directory, self._template, self.schema = directory, template, schema or pa.schema([])
        self._number, self._writer, self._path = 0, None, directory

    def place(self) -> dict[str, int]:
        """Return where the next table goes."""
        if self._writer is not None and self._path.stat().st_size >= layout.DATA_MB * MB:
            self.close()
            self._number += 1
        return place_of(self._number)

    def append(self, table: pa.Table) -> dict[str, int]:
        """Write a table as one row group; return where it went."""
        place = self.place()
        if self._writer is None:
            self.schema, self._path = table.schema, self._directory / self._template.format(**place)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="snappy")
        self._writer.write_table(table)
        return place

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Films:
    """The videos of one camera, many episodes in each.

    Args:
        directory: of the data set.
        key: of the camera.
        size: height and width of its pictures.
        fps: pictures per second.
    """

    def __init__(self, directory: Path, key: str, size: tuple[int, int], fps: float) -> None:
        self._directory, self._key, self._size, self._fps = directory, key, size, fps
        self._number = 0
        self._film: FilmWriter | None = None
        self.info: dict[str, Any] = {}

    def append(self, pictures: np.ndarray) -> dict[str, Any]:
        """Append the pictures of an episode; return where they are, as the table of episodes says it."""
        if self._film is not None and self._film.path.stat().st_size >= layout.VIDEO_MB * MB:
            self.close()
            self._number += 1
        place = place_of(self._number)
        if self._film is None:
            path = self._directory / layout.VIDEO_PATH.format(video_key=self._key, **place)
            self._film = FilmWriter(path, self._size, self._fps)
            self.info = self._film.info
        first = self._film.count
        self._film.append(pictures)
        times = {"from_timestamp": first / self._fps, "to_timestamp": self._film.count / self._fps}
        return {f"videos/{self._key}/{name}": value for name, value in {**place, **times}.items()}

    def close(self) -> None:
        """Finish the video."""
        if self._film is not None:
            self._film.close()
            self._film = None


def place_of(number: int) -> dict[str, int]:
    """Return chunk and file of the number-th file."""
    return {"chunk_index": number // layout.CHUNKS_SIZE, "file_index": number % layout.CHUNKS_SIZE}
