"""The prepared data set: a zarr 3 group that holds the contract, the provenance and the flat arrays of all episodes."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from pydantic import ValidationError
from zarr.codecs import ZstdCodec

from lfm_policy.contract import Contract
from lfm_policy.errors import DataError
from lfm_policy.files import digest, read_json, replaced_or_same

FORMAT = "lfm-data/1"
CHUNK_ROWS = 2_048
SHARD_ROWS = 64 * CHUNK_ROWS
DIGESTED = ("contract", "source", "content")
"""Attributes that the attribute `sha256` is of; stores of earlier versions have none."""
BLOCK_ROWS = 32 * CHUNK_ROWS
"""Rows that are read at once."""
SHORTEST = 8
"""Steps of an episode from which the presets can cut a window: T - To - Ta + 2; see `memory.WindowIndex`."""
FRAME_ROWS = 16
"""Pictures of one camera that are compressed together."""
FRAME_BYTES = 64 << 20
"""Pictures in one shard, which is held in memory while it is written, have about as many bytes."""

Split = Literal["train", "valid"]


@dataclass(frozen=True)
class Episode:
    """One demonstration, in raw units: row t holds the observation before step t and the action of step t."""

    observation: np.ndarray
    """(L, D)"""
    action: np.ndarray
    """(L, A)"""
    frames: np.ndarray | None = None
    """uint8 (L, cameras, height, width, 3), if the contract has cameras."""


@dataclass(frozen=True)
class Store:
    """An open prepared data set. The large arrays stay on disk until they are read."""

    path: Path
    contract: Contract
    source: Mapping[str, Any]
    """Where the data comes from: files with checksums, kind, what the conversion did."""
    episode_end: np.ndarray
    """int64 (E,): the row after each episode's last."""
    train: np.ndarray
    valid: np.ndarray
    """int64: indices of the episodes of each split."""
    observation: "zarr.Array[Any]"
    """float32 (S, D), on disk."""
    action: "zarr.Array[Any]"
    """float32 (S, A), on disk."""
    digest: str
    """SHA-256 of all of it: contract, provenance, rows and splits."""
    frames: "zarr.Array[Any] | None" = None
    """uint8 (S, cameras, height, width, 3), on disk, if the contract has cameras."""

    @property
    def identity(self) -> dict[str, Any]:
        """What a training on it depends on, as JSON."""
        return {**self.source, "contract": self.contract.model_dump(mode="json"), "data": self.digest}

    def __len__(self) -> int:
        return len(self.episode_end)

    @property
    def steps(self) -> int:
        """Rows of all episodes together."""
        return int(self.episode_end[-1])

    def episode(self, index: int) -> Episode:
        """Read one episode. Raises DataError when its part of the store is damaged."""
        rows = slice(int(self.episode_end[index - 1]) if index else 0, int(self.episode_end[index]))
        frames = None if self.frames is None else self._values(self.frames, rows)
        return Episode(self._rows(self.observation, rows), self._rows(self.action, rows), frames)

    def read(self, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read all rows of a split: observation float32 (S', D), action float32 (S', A), episode_end int64 (E',).

        Raises:
            DataError: part of the store is missing or damaged.
        """
        observation, action = zip(*self.blocks(split), strict=True)
        return np.concatenate(observation), np.concatenate(action), self.ends(split)

    def blocks(self, split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows of a split in order, (observation, action) of up to BLOCK_ROWS at a time; some may have none.

        Raises:
            DataError: part of the store is missing or damaged.
        """
        rows = np.repeat(self._chosen(split), np.diff(self.episode_end, prepend=0))
        for start in range(0, self.steps, BLOCK_ROWS):
            part = slice(start, min(start + BLOCK_ROWS, self.steps))
            yield self._rows(self.observation, part)[rows[part]], self._rows(self.action, part)[rows[part]]

    def frame_blocks(self, split: Split) -> Iterator[np.ndarray]:
        """Yield a split's pictures in order, uint8 (n, cameras, height, width, 3), one shard at a time; maybe n = 0.

        Raises:
            DataError: the store has none, or part of it is missing or damaged.
        """
        if self.frames is None:
            raise DataError(f"{self.path} holds no pictures: prepare demonstrations that do, with observations=images")
        rows = np.repeat(self._chosen(split), np.diff(self.episode_end, prepend=0))
        shard = (self.frames.shards or self.frames.chunks)[0]
        for start in range(0, self.steps, shard):
            if not (self.path / "frames" / "c" / f"{start // shard}").is_dir():  # it would read as zeros
                raise _damaged(self.path, f"'frames' has no rows {start} … {min(start + shard, self.steps) - 1}")
            part = slice(start, min(start + shard, self.steps))
            yield self._values(self.frames, part)[rows[part]]

    def ends(self, split: Split) -> np.ndarray:
        """Return int64 (E',): the row after each episode's last, among the rows of the split."""
        return np.cumsum(np.diff(self.episode_end, prepend=0)[self._chosen(split)])

    def _chosen(self, split: Split) -> np.ndarray:
        chosen = np.zeros(len(self), dtype=bool)
        chosen[self.train if split == "train" else self.valid] = True
        return chosen

    def _values(self, array: "zarr.Array[Any]", rows: slice) -> np.ndarray:
        try:
            return np.asarray(array[rows])
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise _damaged(self.path, f"'{array.basename}' cannot be read ({error})") from error

    def _rows(self, array: "zarr.Array[Any]", rows: slice) -> np.ndarray:
        values = self._values(array, rows)
        if not np.isfinite(values).all():  # a missing shard reads as NaN
            raise _damaged(self.path, f"'{array.basename}' has missing rows")
        return values


def write_store(
    path: str | Path,
    episodes: Iterable[Episode],
    contract: Contract,
    split: Mapping[Split, Iterable[int]],
    source: Mapping[str, Any],
) -> None:
    """Write a prepared data set, streaming: at most one shard is held in memory. `path` appears when all is written.

    Args:
        path: the directory to make, by convention NAME.zarr; an existing data set there is replaced. One that is the
            same may stay where nothing can be written.
        episodes: the demonstrations in order.
        contract: what their numbers mean.
        split: episode indices of "train" and "valid".
        source: provenance, as JSON.

    Raises:
        DataError: an episode is empty, not finite or not as wide as the contract says; an index is out of range.
        OSError: it cannot be written, and is not there.
    """
    path = Path(path)
    if path.exists() and not (path / "zarr.json").is_file():
        raise DataError(f"{path} exists and is not a prepared data set: choose another output, or remove it")
    with replaced_or_same(path, _same) as temporary:
        group = zarr.open_group(temporary, mode="w", zarr_format=3)
        writers = [
            _numbers(group, "observation", contract.observation_dim),
            _numbers(group, "action", contract.action_dim),
        ]
        if contract.frames_shape is not None:
            writers.append(_pictures(group, contract.frames_shape))
        lengths = []
        for episode in episodes:
            _check_episode(len(lengths), episode, contract)
            parts: tuple[Any, ...] = (episode.observation, episode.action, episode.frames)
            for writer, part in zip(writers, parts, strict=False):  # frames have no writer where there are none
                writer.append(part)
            lengths.append(len(episode.action))
        if not lengths:
            raise DataError(f"no episode to write to {path}: the source has no demonstrations")
        for writer in writers:
            writer.close()
        content = {writer.name: writer.sha256.hexdigest() for writer in writers}
        content |= _write_indices(group, lengths, split)
        told = {"contract": contract.model_dump(mode="json"), "source": dict(source), "content": content}
        # written last and as a whole: a directory without them is not a data set
        group.attrs.update({"format": FORMAT, **told, "sha256": digest(told)})


def _same(new: Path, old: Path) -> bool:
    return open_store(new).digest == open_store(old).digest


def open_store(path: str | Path) -> Store:
    """Open a prepared data set; the arrays are read when asked for.

    Raises:
        DataError: nothing there, not a prepared data set, another format version, or damaged.
    """
    path = Path(path)
    attributes = _attributes(path)
    try:
        contract = Contract.model_validate(attributes["contract"])
        group = zarr.open_group(path, mode="r", zarr_format=3)
        observation, action = _array(group, "observation"), _array(group, "action")
        frames = _array(group, "frames") if contract.cameras else None
        indices = {name: np.asarray(_array(group, name)[:]) for name in ("episode_end", "train", "valid")}
    except (KeyError, ValidationError, OSError, ValueError, RuntimeError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    source, sums = attributes.get("source", {}), {name: _sha256(array) for name, array in indices.items()}
    recorded = attributes.get("content", sums)
    if changed := [name for name, value in sums.items() if recorded.get(name) != value]:
        raise _damaged(path, f"{changed} are not what was written")
    old = {"contract": attributes["contract"], "source": source, "content": sums}
    arrays = {"observation": observation, "action": action, "frames": frames, **indices}
    store = Store(path, contract, source, digest=attributes.get("sha256", digest(old)), **arrays)
    _check_store(store)
    return store


class _RowWriter:
    """Appends rows to a sharded array, a whole shard at a time.

    Args:
        group: where the array is made.
        name: of the array.
        shape: of one row.
        chunks: shape of what is compressed together.
        shard: rows of a shard, a multiple of those of a chunk.
        dtype: of the numbers.
        fill: what missing chunks read as.
    """

    def __init__(
        self,
        group: zarr.Group,
        name: str,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        shard: int,
        dtype: str,
        fill: float | int,
    ) -> None:
        self._array = group.create_array(
            name,
            shape=(0, *shape),
            chunks=chunks,
            shards=(shard, *shape),
            dtype=dtype,
            fill_value=fill,
            compressors=ZstdCodec(level=3, checksum=True),
        )
        self._buffer = np.empty((shard, *shape), dtype=dtype)
        self._held = 0
        self.name, self.sha256 = name, hashlib.sha256()

    def append(self, rows: np.ndarray) -> None:
        while len(rows):
            part = rows[: len(self._buffer) - self._held]
            self._buffer[self._held : self._held + len(part)] = part
            self._held += len(part)
            rows = rows[len(part) :]
            if self._held == len(self._buffer):
                self.close()

    def close(self) -> None:
        if self._held:
            self._array.append(self._buffer[: self._held])
            self.sha256.update(self._buffer[: self._held].data)
            self._held = 0


def _numbers(group: zarr.Group, name: str, width: int) -> _RowWriter:
    return _RowWriter(group, name, (width,), (CHUNK_ROWS, width), SHARD_ROWS, "float32", np.nan)


def _pictures(group: zarr.Group, shape: tuple[int, int, int, int]) -> _RowWriter:
    """Make the array of pictures: chunks hold those of one camera, which resemble each other."""
    shard = FRAME_ROWS * max(1, FRAME_BYTES // (FRAME_ROWS * int(np.prod(shape))))
    return _RowWriter(group, "frames", shape, (FRAME_ROWS, 1, *shape[1:]), shard, "uint8", 0)


def _write_indices(group: zarr.Group, lengths: list[int], split: Mapping[Split, Iterable[int]]) -> dict[str, str]:
    """Write where episodes end and the splits. Returns the SHA-256 of each."""
    values = {"episode_end": np.cumsum(lengths, dtype=np.int64)}
    for name in ("train", "valid"):
        values[name] = np.array(sorted(split.get(name, ())), dtype=np.int64)
        outside = [int(i) for i in values[name] if not 0 <= i < len(lengths)]
        if outside:
            raise DataError(f"split '{name}' names episodes {outside}, expected indices in 0 … {len(lengths) - 1}")
    for name, array in values.items():
        options = {"dtype": "int64", "fill_value": -1, "compressors": ZstdCodec(level=3, checksum=True)}
        group.create_array(name, shape=array.shape, chunks=(max(len(array), 1),), **options)[:] = array
    return {name: _sha256(array) for name, array in values.items()}


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _check_episode(index: int, episode: Episode, contract: Contract) -> None:
    for name, array, width in (
        ("observation", episode.observation, contract.observation_dim),
        ("action", episode.action, contract.action_dim),
    ):
        expected = (len(episode.action), width)
        if array.shape != expected or len(array) == 0:
            raise DataError(f"episode {index}: expected {name} of shape (L > 0, {width}), found {array.shape}")
        if not np.isfinite(array).all():
            row = int(np.argmax(~np.isfinite(array).all(axis=1)))
            raise DataError(f"episode {index}: {name} has NaN or infinity, first in row {row}")
    if contract.frames_shape is None:
        return
    shape, frames = (len(episode.action), *contract.frames_shape), episode.frames
    if frames is None or frames.shape != shape or frames.dtype != np.uint8:
        found = "none" if frames is None else f"{frames.dtype} {frames.shape}"
        raise DataError(f"episode {index}: expected pictures uint8 {shape}, found {found}")


def _attributes(path: Path) -> dict[str, Any]:
    """Read the group's attributes without zarr, so that each way of not being a data set gets its own message."""
    if not path.exists():
        raise DataError(f"no data set at {path}: make it with lfm prepare source=FILE out={path}")
    metadata = path / "zarr.json"
    if not metadata.is_file():
        raise DataError(f"{path} is not a prepared data set (no zarr.json in it): make one with lfm prepare")
    try:
        attributes = read_json(metadata).get("attributes", {})
    except (ValueError, AttributeError, OSError) as error:
        raise _damaged(path, f"zarr.json cannot be read ({error})") from error
    found = attributes.get("format")
    if found != FORMAT:
        raise DataError(f"{path}: expected format '{FORMAT}', found {found!r}: prepare it again with this version")
    if "sha256" in attributes and attributes["sha256"] != digest({key: attributes.get(key) for key in DIGESTED}):
        raise _damaged(path, "its contract, provenance or checksums in zarr.json were changed")
    return attributes


def _array(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise KeyError(f"array '{name}' is missing")
    return array


def _check_store(store: Store) -> None:
    ends, contract = store.episode_end, store.contract
    if len(ends) == 0 or ends[0] <= 0 or (np.diff(ends) <= 0).any():
        raise _damaged(store.path, "'episode_end' does not increase")
    for array, width in ((store.observation, contract.observation_dim), (store.action, contract.action_dim)):
        if array.shape != (ends[-1], width):
            raise _damaged(store.path, f"'{array.basename}' has shape {array.shape}, expected ({ends[-1]}, {width})")
        parts = -(-int(ends[-1]) // (array.shards or array.chunks)[0])  # claimed rows would take memory, there or not
        if (found := len(list((store.path / array.basename / "c").glob("*")))) != parts:
            raise _damaged(store.path, f"'{array.basename}' has {found} of {parts} parts")
    if store.frames is not None and (store.frames.shape, store.frames.dtype) != (
        (ends[-1], *(contract.frames_shape or ())),
        np.uint8,
    ):
        raise _damaged(store.path, f"'frames' are {store.frames.dtype} {store.frames.shape}")
    for name, indices in (("train", store.train), ("valid", store.valid)):
        if ((indices < 0) | (indices >= len(ends))).any():
            raise _damaged(store.path, f"split '{name}' names episodes outside 0 … {len(ends) - 1}")


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path} is damaged: {what}. Prepare it again with lfm prepare")
