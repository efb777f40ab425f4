"""Writing a LeRobotDataset v3.0 that LeRobot's own reader loads, an episode at a time."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lfm_policy.contract import Contract
from lfm_policy.data.lerobot import info as layout
from lfm_policy.data.lerobot.growing import Films, Parquet
from lfm_policy.data.lerobot.names import features_of, vectors_of
from lfm_policy.data.lerobot.statistics import Statistics, joined, of_numbers, of_pictures
from lfm_policy.data.lerobot.video import PictureWriter
from lfm_policy.data.windows.store import Episode
from lfm_policy.errors import DataError
from lfm_policy.files import atomic_directory, write_json

NOTED = 50
"""Episodes that the table of episodes holds in one piece."""
COUNTED = {name: {"dtype": "int64", "shape": [1], "names": None} for name in layout.INDICES}
COUNTED["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
TYPES = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
Extra = Mapping[str, np.ndarray]
"""Further columns of an episode, (L,) each: float32, int64 or bool."""


@contextmanager
def new_dataset(
    out: str | Path, contract: Contract, *, video: bool = True, extra: Mapping[str, str] | None = None
) -> Iterator["Writer"]:
    """Yield the writer of a data set; the folder appears when all is written, and takes the place of an older one.

    Args:
        out: the folder.
        contract: what the numbers mean; kept beside LeRobot's description, for `prepare`.
        video: pictures as videos (H.264), else as PNG in the rows, without loss.
        extra: further columns, as {"next.success": "bool"}.

    Raises:
        DataError: something else is there already, or no episode was written.
        ContractError: the contract has names that LeRobot cannot have.
    """
    out = Path(out)
    if out.exists() and not (out / layout.INFO).is_file():
        raise DataError(f"{out} exists and is no LeRobot data set: choose another out=, or remove it")
    features = features_of(contract, video)
    features |= {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in (extra or {}).items()}
    with atomic_directory(out) as temporary:
        writer = Writer(temporary, contract, {**features, **COUNTED})
        try:
            yield writer
            writer.complete()
        finally:
            writer.release()
        writer.describe()


class Writer:
    """Writes the files of a data set into an empty folder; at most one episode is in memory.

    Args:
        directory: the folder.
        contract: see `new_dataset`.
        features: of info.json.
    """

    def __init__(self, directory: Path, contract: Contract, features: dict[str, dict[str, Any]]) -> None:
        self._directory, self._contract, self.features = directory, contract, features
        self._cameras = {f"{layout.PICTURES}{camera.name}": camera for camera in contract.cameras}
        self._tasks: dict[str, int] = {}
        self._statistics: dict[str, list[Statistics]] = {}
        self._noted: list[dict[str, Any]] = []
        self.episodes = self.frames = 0
        self._rows = Parquet(directory, layout.DATA_PATH, self._schema())
        self._table = Parquet(directory, layout.EPISODES_PATH, None)
        self._films: dict[str, Films] = {
            key: Films(directory, key, (camera.height, camera.width), contract.control_hz)
            for key, camera in self._cameras.items()
            if features[key]["dtype"] == "video"
        }
        self.told: dict[str, Any] = {}
        """What meta/lfm.json tells beside the contract."""
        self.files: dict[str, Any] = {}
        """Further files of the folder, as JSON, by path."""

    def add(
        self, episode: Episode, task: str, extra: Extra | None = None, told: Mapping[str, Any] | None = None
    ) -> None:
        """Write an episode.

        Args:
            episode: of the contract.
            task: in words.
            extra: the further columns.
            told: further columns of the table of episodes, one value each.
        """
        columns, length = self._columns(episode, extra or {}), len(episode.action)
        number = self._tasks.setdefault(task, len(self._tasks))
        first = self.frames
        columns |= {
            "timestamp": (np.arange(length) / self._contract.control_hz).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, self.episodes),
            "index": np.arange(first, first + length),
            "task_index": np.full(length, number),
        }
        statistics = {name: of_numbers(values) for name, values in columns.items()}
        arrays = {name: _array(values, self.features[name]["dtype"]) for name, values in columns.items()}
        row: dict[str, Any] = {"episode_index": self.episodes, "tasks": [task], "length": length, **(told or {})}
        for place, key in enumerate(self._cameras):
            assert episode.frames is not None
            pictures = episode.frames[:, place]
            statistics[key] = of_pictures(pictures)
            if key in self._films:
                row |= self._films[key].append(pictures)
            else:
                arrays[key] = _embedded(pictures)
        schema = self._rows.schema
        place_of_rows = self._rows.append(pa.table([arrays[name] for name in schema.names], schema=schema))
        row |= {f"data/{name}": value for name, value in place_of_rows.items()}
        row |= {"dataset_from_index": first, "dataset_to_index": first + length}
        self._note(row, statistics)
        self.episodes, self.frames = self.episodes + 1, first + length

    def release(self) -> None:
        """Close the files."""
        for part in (self._rows, self._table, *self._films.values()):
            part.close()

    def complete(self) -> None:
        """Write what is held back."""
        self._write_table()

    def describe(self) -> None:
        """Write what tells of the whole.

        Raises:
            DataError: there is no episode.
        """
        if not self.episodes:
            raise DataError("no episode to write: the source has none")
        features = {
            key: {**feature, **({"info": self._films[key].info} if key in self._films else {})}
            for key, feature in self.features.items()
        }
        rate = self._contract.control_hz
        write_json(
            self._directory / layout.INFO,
            {
                "codebase_version": layout.V30,
                "fps": int(rate) if float(rate).is_integer() else rate,
                "features": features,
                "total_episodes": self.episodes,
                "total_frames": self.frames,
                "total_tasks": len(self._tasks),
                "chunks_size": layout.CHUNKS_SIZE,
                "data_files_size_in_mb": layout.DATA_MB,
                "video_files_size_in_mb": layout.VIDEO_MB,
                "data_path": layout.DATA_PATH,
                "video_path": layout.VIDEO_PATH if self._films else None,
                "robot_type": ",".join(self._contract.robots).lower() or None,
                "splits": {"train": f"0:{self.episodes}"},
            },
        )
        whole = {key: joined(parts) for key, parts in self._statistics.items()}
        plain = {key: {name: value.tolist() for name, value in part.items()} for key, part in whole.items()}
        write_json(self._directory / layout.STATS, plain)
        write_tasks(self._directory / layout.TASKS, list(self._tasks))
        told = {"contract": self._contract.model_dump(mode="json"), **self.told}
        for name, content in {**self.files, layout.OURS: told}.items():
            write_json(self._directory / name, content)

    def _columns(self, episode: Episode, extra: Extra) -> dict[str, np.ndarray]:
        """Return the vectors of an episode, by feature."""
        where = self._contract.columns
        columns: dict[str, np.ndarray] = {
            feature: np.concatenate([episode.observation[:, where[key.name]] for key in keys], axis=1)
            for feature, keys in vectors_of(self._contract).items()
        }
        return {**columns, layout.ACTION: episode.action, **extra}

    def _note(self, row: Mapping[str, Any], statistics: Mapping[str, Statistics]) -> None:
        """Put an episode into the table, with its statistics."""
        for key, part in statistics.items():
            self._statistics.setdefault(key, []).append(part)
        flat = {f"stats/{key}/{name}": v.tolist() for key, part in statistics.items() for name, v in part.items()}
        self._noted.append({**row, **flat})
        if len(self._noted) >= NOTED:
            self._write_table()

    def _write_table(self) -> None:
        places = {f"meta/episodes/{name}": value for name, value in self._table.place().items()}
        if self._noted:
            self._table.append(pa.Table.from_pylist([{**row, **places} for row in self._noted]))
        self._noted = []

    def _schema(self) -> pa.Schema:
        fields = []
        for name, feature in self.features.items():
            if feature["dtype"] == "image":
                fields.append((name, PICTURE))
            elif feature["dtype"] != "video":
                width, kind = feature["shape"][0], TYPES[feature["dtype"]]
                fields.append((name, kind if width == 1 else pa.list_(kind, width)))
        return pa.schema(fields)


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """Write the table of tasks as pandas would, whose index holds the words: LeRobot looks them up there."""
    table = pa.table(
        {"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(list(tasks), pa.string())}
    )
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
        for name, kind, dtype in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    told = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.2.0"}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(told)}), path)


def _array(values: np.ndarray, dtype: str) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1).astype(dtype), TYPES[dtype])
    width = values.shape[1] if values.ndim == 2 else 1
    return flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)


def _embedded(pictures: np.ndarray) -> pa.Array:
    encoder = PictureWriter((pictures.shape[1], pictures.shape[2]))
    rows = [{"bytes": encoder.encode(picture), "path": f"frame-{i:06d}.png"} for i, picture in enumerate(pictures)]
    return pa.array(rows, PICTURE)
