"""Small LeRobot data sets: of our own writer, and rewritten as others would have left them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lfm_policy.contract import Contract
from lfm_policy.data.windows.store import Episode

LENGTHS = (30, 12, 25)


def episodes(contract: Contract, lengths: Sequence[int] = LENGTHS) -> list[Episode]:
    """Episodes of random numbers; pictures are of one grey each, which tells episode, time and camera."""
    generator = np.random.default_rng(0)
    found = []
    for number, length in enumerate(lengths):
        numbers = [
            generator.normal(size=(length, width)).astype(np.float32)
            for width in (contract.observation_dim, contract.action_dim)
        ]
        frames = None
        if contract.frames_shape is not None:
            grey = np.arange(length)[:, None] * 4 + number * 20 + np.arange(len(contract.cameras)) * 60
            shape = (length, *contract.frames_shape)
            frames = np.broadcast_to(grey[:, :, None, None, None], shape).astype(np.uint8)
        found.append(Episode(*numbers, frames))
    return found


def record(
    out: Path, contract: Contract, lengths: Sequence[int] = LENGTHS, video: bool = True, success: Sequence[bool] = ()
) -> list[Episode]:
    """Write such episodes as a data set; return them."""
    from lfm_policy.data.lerobot.write import new_dataset

    made = episodes(contract, lengths)
    with new_dataset(out, contract, video=video, extra={"next.success": "bool"} if success else {}) as writer:
        for number, episode in enumerate(made):
            ends = np.arange(len(episode.action)) == len(episode.action) - 1
            writer.add(episode, "reach", {"next.success": ends & success[number]} if success else {})
    return made


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_info(folder: Path, change: Callable[[Any], None]) -> None:
    """Change info.json."""
    edit_json(folder / "meta" / "info.json", change)


def edit_rows(folder: Path, column: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change a column of the first file of rows; fewer rows than before drop the others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "data" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(path)
    values = change(np.array(table.column(column).to_pylist()))
    table = table.slice(0, len(values))
    array = pa.array(values.tolist(), table.schema.field(column).type)
    pq.write_table(table.set_column(table.column_names.index(column), column, array), path)


def strangers(folder: Path) -> Path:
    """Take away what only our writer leaves."""
    (folder / "meta" / "lfm.json").unlink()
    return folder


def as_v21(folder: Path, out: Path) -> Path:
    """Write a data set of version 3.0 as one of 2.1: a file of rows, and of each camera, per episode."""
    import pyarrow.parquet as pq

    from lfm_policy.data.lerobot.info import read_info
    from lfm_policy.data.lerobot.table import read_table
    from lfm_policy.data.lerobot.video import Film, FilmWriter

    info = read_info(folder)
    (out / "meta").mkdir(parents=True)
    rows = pq.read_table(folder / "data" / "chunk-000" / "file-000.parquet")
    told = []
    for entry in read_table(folder, info):
        path = out / f"data/chunk-000/episode_{entry.index:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows.slice(entry.first_row, entry.length), path)
        for key, clip in entry.clips.items():
            size = info.features[key].size
            writer = FilmWriter(out / f"videos/chunk-000/{key}/episode_{entry.index:06d}.mp4", size, info.fps)
            film = Film(clip.path, size)
            pictures = np.empty((entry.length, *size, 3), np.uint8)
            film.read(clip.start_s, info.fps, pictures)
            writer.append(pictures)
            writer.close()
            film.close()
        told.append({"episode_index": entry.index, "tasks": list(entry.tasks), "length": entry.length})
    (out / "meta" / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    content = json.loads((folder / "meta" / "info.json").read_text()) | {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (out / "meta" / "info.json").write_text(json.dumps(content))
    return out
