"""Reading a LeRobot data set: one episode after the other, in bounded memory, every fault named."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from lfm_policy.contract import Camera, Contract
from lfm_policy.data.demos.recording import parse_recording
from lfm_policy.data.lerobot.info import ACTION, ENV_ARGS, MASKS, OBSERVATION, OURS, PICTURES, SUCCESS, Info, read_info
from lfm_policy.data.lerobot.names import Meaning, cameras_of, contract_of, vectors_of
from lfm_policy.data.lerobot.pictures import Pictures
from lfm_policy.data.lerobot.table import Entry, open_parquet, read_table, require_files
from lfm_policy.data.windows.store import Episode
from lfm_policy.errors import DataError
from lfm_policy.files import digest, read_json, sha256

ROWS, ROWS_WITH_PICTURES = 4096, 32
"""Rows that are read from parquet at once."""
LARGEST_JITTER = 0.2
"""Of the time between two rows; real recorders are that regular."""


@dataclass(frozen=True)
class Dataset:
    """An open LeRobot data set."""

    directory: Path
    name: str
    info: Info
    contract: Contract
    """Of all vectors that are there; cameras only where the data set brings its own contract."""
    notes: tuple[str, ...]
    table: Sequence[Entry]

    @cached_property
    def cameras(self) -> dict[str, tuple[int, int]]:
        """Height and width of the pictures of each camera."""
        return cameras_of(self.info)

    @cached_property
    def identity(self) -> str:
        """SHA-256 of its description: which version of the data set it is."""
        sums = {path.name: sha256(path) for path in sorted((self.directory / "meta").glob("*.json*"))}
        return digest(sums)

    def keys(self, cameras: Sequence[Camera]) -> list[str]:
        """Return the features with the pictures of some cameras."""
        pairs = [(f"{PICTURES}{camera.name}", f"{OBSERVATION}{camera.name}") for camera in cameras]
        return [next(key for key in pair if key in self.info.pictures) for pair in pairs]

    def require_files(self, contract: Contract) -> None:
        """Check that all files are there which `episodes` reads.

        Raises:
            DataError: one is missing.
        """
        require_files(self.directory, self.table, self.keys(contract.cameras))

    def masks(self) -> dict[str, set[int]]:
        """Return the episodes that are for training and for validation, where the data set says so."""
        path = self.directory / MASKS
        if not path.exists():
            return {}
        try:
            masks = read_json(path)["masks"]
            return {name: set(map(int, masks[name])) for name in ("train", "valid") if name in masks}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read ({error!r}): remove it to hold out every tenth") from None

    def episodes(self, contract: Contract) -> Iterator[tuple[Episode, bool]]:
        """Yield every episode as a policy under `contract` sees it, and whether it is a success.

        Raises:
            DataError: numbers, times or pictures are missing, damaged, or not what info.json says.
        """
        keys = dict(zip(contract.cameras, self.keys(contract.cameras), strict=True))
        with closing(Pictures(self.info, keys)) as pictures:
            for rows, entries in groupby(self.table, lambda entry: entry.rows):
                yield from self._file(rows, list(entries), contract, pictures)

    def _file(
        self, path: Path, entries: Sequence[Entry], contract: Contract, pictures: Pictures
    ) -> Iterator[tuple[Episode, bool]]:
        vectors = vectors_of(contract)
        wanted = ["episode_index", "frame_index", "index", "timestamp", ACTION, *vectors, *pictures.columns]
        columns = [*wanted, *([SUCCESS] if SUCCESS in self.info.features else [])]
        tables = _per_episode(path, columns, ROWS_WITH_PICTURES if pictures.columns else ROWS)
        for entry in entries:
            index, table = next(tables, (None, None))
            where = f"{path}, episode {entry.index}"
            if table is None or index != entry.index:
                raise DataError(f"{path}: expected episode {entry.index} next, found {index}: the data set has a gap")
            self._require_regular(entry, table, where)
            values = {key: self._vector(table, key, where) for key in (ACTION, *vectors)}
            parts: dict[str, np.ndarray] = {}
            for feature, keys in vectors.items():
                ends = np.cumsum([key.dim for key in keys])
                split = np.split(values[feature], ends[:-1], axis=1)
                parts |= {key.name: part for key, part in zip(keys, split, strict=True)}
            success = table.column(SUCCESS).to_numpy().any() if SUCCESS in columns else True
            frames = pictures.read(entry, table, where) if contract.cameras else None
            yield Episode(contract.flatten(parts), values[ACTION], frames), bool(success)

    def _vector(self, table: pa.Table, key: str, where: str) -> np.ndarray:
        """Return a column of numbers, float32 (L, width)."""
        width = self.info.features[key].shape[0]
        column = table.column(key).combine_chunks()
        flat = column.flatten() if pa.types.is_nested(column.type) else column
        try:
            values = flat.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        except (pa.ArrowException, ValueError) as error:
            raise DataError(f"{where}: {key} holds no numbers ({error})") from None
        if len(values) != width * len(table):
            raise DataError(f"{where}: {key} has rows of another width than {width}, which {self.name} says")
        rows = values.reshape(len(table), width)
        if not np.isfinite(rows).all():
            row = int(np.argmax(~np.isfinite(rows).all(axis=1)))
            raise DataError(f"{where}: {key} has NaN, infinity or nothing, first in frame {row}: leave the episode out")
        return rows

    def _require_regular(self, entry: Entry, table: pa.Table, where: str) -> None:
        """Check that the rows are frames 0, 1, … of the episode, in time with info.json's fps."""
        if len(table) != entry.length:
            raise DataError(f"{where}: expected {entry.length} frames, found {len(table)}")
        for name, first in (("frame_index", 0), ("index", entry.first_row)):
            found = table.column(name).to_numpy()
            gaps = np.flatnonzero(found != np.arange(first, first + len(found)))
            if len(gaps):
                row = int(gaps[0])
                raise DataError(f"{where}: {name} has a gap: expected {first + row}, found {found[row]}")
        period = np.diff(table.column("timestamp").to_numpy().astype(np.float64))
        wrong = np.abs(period * self.info.fps - 1) > LARGEST_JITTER
        if wrong.any():
            row, rate = int(np.argmax(wrong)), 1 / max(float(np.median(period)), 1e-9)
            raise DataError(
                f"{where}: info.json says fps {self.info.fps:g}, but its timestamps are those of {rate:.3g} per second "
                f"(frame {row + 1} comes {period[row]:.4g} s after the one before)"
            )


def open_dataset(directory: str | Path, name: str | None = None, meaning: Meaning | None = None) -> Dataset:
    """Open a LeRobot data set, version 3.0 or 2.1.

    Args:
        directory: its folder.
        name: what to call it; the folder's name by default.
        meaning: what the user says of it.

    Raises:
        DataError: it is none, is damaged or not whole.
    """
    directory = Path(directory)
    info, name = read_info(directory), name or directory.resolve().name
    table = read_table(directory, info)
    meaning = meaning or Meaning()
    own, said_by = (meaning.contract, "the environment") if meaning.contract else (own_contract(directory), OURS)
    if own is not None:
        _require_features(directory, info, own, said_by)
        return Dataset(directory, name, info, own, (), table)
    contract, notes = contract_of(info, name, meaning, _recording(directory))
    return Dataset(directory, name, info, contract, tuple(notes), table)


def own_contract(directory: Path) -> Contract | None:
    """Return the contract that our own writer left beside LeRobot's files."""
    path = directory / OURS
    if not path.exists():
        return None
    try:
        return Contract.model_validate(read_json(path)["contract"])
    except (OSError, json.JSONDecodeError, KeyError, TypeError, ValidationError) as error:
        raise DataError(f"{path} cannot be read ({error!r}): remove it to read the features alone") from None


def _require_features(directory: Path, info: Info, contract: Contract, said_by: str) -> None:
    """Check that a data set has the features of a contract, as wide as there, at its rate."""
    expected: Mapping[str, int] = {
        ACTION: contract.action_dim,
        **{feature: sum(key.dim for key in keys) for feature, keys in vectors_of(contract).items()},
    }
    for key, width in expected.items():
        found = list(info.features[key].shape) if key in info.features else "none"
        if found != [width] or contract.control_hz != info.fps:
            raise DataError(
                f"{directory} holds other data than {said_by} says: expected {key} of {width} numbers, "
                f"{contract.control_hz:g} per second, found {found}, {info.fps:g} per second"
            )


def _recording(directory: Path) -> Any:
    """Return the simulator's settings of data that come from robomimic; None for others."""
    path = directory / ENV_ARGS
    if not path.exists():
        return None
    return parse_recording(path.read_text(encoding="utf-8"), None, str(path))


def _per_episode(path: Path, columns: Sequence[str], size: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of a file, episode by episode; those of one are in memory, and a batch."""
    file = open_parquet(path)
    if missing := [name for name in columns if name not in file.schema_arrow.names]:
        raise DataError(f"{path}: info.json names the columns {missing}, found {file.schema_arrow.names}")
    held: list[pa.RecordBatch] = []
    last: int | None = None
    try:
        for batch in file.iter_batches(batch_size=size, columns=list(columns)):
            indices = batch.column("episode_index").to_numpy()
            edges = [0, *(np.flatnonzero(np.diff(indices)) + 1).tolist(), len(indices)]
            for start, end in pairwise(edges):
                if last is not None and held and indices[start] != last:
                    yield last, pa.Table.from_batches(held)
                    held = []
                last = int(indices[start])
                held.append(batch.slice(start, end - start))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged ({error}): download it again") from None
    if last is not None:
        yield last, pa.Table.from_batches(held)
