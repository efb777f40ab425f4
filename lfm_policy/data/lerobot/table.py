"""The table of episodes: which there are, and in which files their rows and pictures lie. Of versions 3.0 and 2.1."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lfm_policy.data.lerobot.info import EPISODES, V21, Info, place
from lfm_policy.errors import DataError
from lfm_policy.files import read_text


@dataclass(frozen=True)
class Clip:
    """Where the pictures of one camera in one episode are."""

    path: Path
    start_s: float
    """Time in the video of the episode's first picture [s]."""


@dataclass(frozen=True)
class Entry:
    """One episode."""

    index: int
    length: int
    first_row: int
    """What the column `index` says of its first row."""
    rows: Path
    """File with its rows."""
    clips: Mapping[str, Clip]
    """By the key of the camera, of videos."""
    tasks: tuple[str, ...]


def read_table(directory: Path, info: Info) -> list[Entry]:
    """Read the table of episodes, in their order.

    Raises:
        DataError: it is damaged, has a gap, or disagrees with info.json.
    """
    videos = [key for key, feature in info.pictures.items() if feature.dtype == "video"]
    entries = list((_old if info.codebase_version == V21 else _new)(directory, info, videos))
    _require_whole(directory, info, entries)
    return entries


def require_files(directory: Path, table: Iterable[Entry], cameras: Collection[str]) -> None:
    """Check that the files with the rows, and those with the pictures of some cameras, are there.

    Raises:
        DataError: one is missing.
    """
    needed: set[Path] = set()
    for entry in table:
        needed |= {entry.rows, *(clip.path for key, clip in entry.clips.items() if key in cameras)}
    if missing := sorted(str(path.relative_to(directory)) for path in needed if not path.is_file()):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{directory}: {missing[0]}{more} of {len(needed)} files missing: download the data set again")


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a parquet file.

    Raises:
        DataError: it is none, or damaged.
    """
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet ({error}): download it again") from None


def _new(directory: Path, info: Info, videos: list[str]) -> Iterator[Entry]:
    paths = sorted((directory / EPISODES).glob("chunk-*/file-*.parquet"))
    if not paths:
        raise DataError(f"{directory}: expected {EPISODES}/chunk-000/file-000.parquet, found none: download it again")
    for path in paths:
        file = open_parquet(path)
        columns = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        try:
            for batch in file.iter_batches(columns=columns):
                yield from (_entry(directory, info, videos, row) for row in batch.to_pylist())
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: expected the column {error} of LeRobot's episodes, found {columns}") from None
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is damaged ({error}): download it again") from None


def _entry(directory: Path, info: Info, videos: list[str], row: Mapping[str, Any]) -> Entry:
    def at(prefix: str) -> dict[str, int]:
        return {name: int(row[f"{prefix}/{name}"]) for name in ("chunk_index", "file_index")}

    clips = {
        key: Clip(_video(directory, info, video_key=key, **at(f"videos/{key}")), row[f"videos/{key}/from_timestamp"])
        for key in videos
    }
    return Entry(
        int(row["episode_index"]),
        int(row["length"]),
        int(row["dataset_from_index"]),
        place(directory, info.data_path, **at("data")),
        clips,
        tuple(row.get("tasks") or ()),
    )


def _old(directory: Path, info: Info, videos: list[str]) -> Iterator[Entry]:
    path, first = directory / "meta" / "episodes.jsonl", 0
    try:
        rows = [json.loads(line) for line in read_text(path).splitlines() if line.strip()]
        for row in rows:
            index, length = int(row["episode_index"]), int(row["length"])
            parts = {"episode_index": index, "episode_chunk": index // info.chunks_size}
            clips = {key: Clip(_video(directory, info, video_key=key, **parts), 0.0) for key in videos}
            rows_file = place(directory, info.data_path, **parts)
            yield Entry(index, length, first, rows_file, clips, tuple(map(str, row.get("tasks", ()))))
            first += length
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error!r}): expected a line of JSON per episode") from None


def _video(directory: Path, info: Info, **parts: Any) -> Path:
    if info.video_path is None:
        raise DataError(f"{directory}: info.json has videos, but no video_path")
    return place(directory, info.video_path, **parts)


def _require_whole(directory: Path, info: Info, entries: list[Entry]) -> None:
    """Check that episodes are 0, 1, … without a gap, as many and as long as info.json says."""
    indices = [entry.index for entry in entries]
    if indices != list(range(len(indices))):
        wrong = next(place for place, index in enumerate(indices) if index != place)
        raise DataError(f"{directory}: episodes have a gap: expected episode {wrong}, found {indices[wrong]}")
    frames = sum(entry.length for entry in entries)
    if (len(entries), frames) != (info.total_episodes, info.total_frames):
        raise DataError(
            f"{directory}: info.json says {info.total_episodes} episodes and {info.total_frames} frames, its table has "
            f"{len(entries)} and {frames}: it is not whole, or was not finalized by its writer"
        )
    for entry in entries:
        if entry.length < 1:
            raise DataError(f"{directory}: episode {entry.index} has no frames")
