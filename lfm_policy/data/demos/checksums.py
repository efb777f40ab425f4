"""Checksums of demonstrations, beside them in their file: what was recorded is what is read, or an error.

The group `checksums` of a file holds, for each demonstration, a JSON object with the SHA-256 of every data set and of
the model, and as its attribute `data` that of the contract and the environment. Behind the end of the HDF5 file stands
its seal, the SHA-256 of all before it: a damaged file is refused before HDF5, which may not return from one, sees it.
HDF5 takes the seal off when somebody edits the file. Files without any of this (robomimic's, those of earlier versions,
copies that other tools made) are read as they are.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lfm_policy.data.demos.hdf5 import dataset_names
from lfm_policy.errors import DataError
from lfm_policy.files import digest, sha256

SEAL = b"LFM-SHA256"
GROUP, DATA, MODEL = "checksums", "data", "model_file"
BLOCK = 1 << 20
_DESCRIBING = ("contract", "env_args")


def array_digest(values: np.ndarray) -> str:
    """Return the SHA-256 of an array's shape and values: bytes as they are, other numbers as float64."""
    values = np.ascontiguousarray(values if values.dtype == np.uint8 else values.astype("<f8", copy=False))
    return hashlib.sha256(f"{values.shape}".encode() + values.tobytes()).hexdigest()


def demo_checksums(demo: Any) -> str:
    """Compute the checksums of a demonstration (a group), as JSON."""
    sums = {name: array_digest(demo[name][()]) for name in dataset_names(demo)}
    return json.dumps(sums | {MODEL: _text_digest(demo.attrs[MODEL])})


def write_data_checksum(file: Any) -> None:
    """Write the checksum of what a file says about all of its demonstrations."""
    file.require_group(GROUP).attrs[DATA] = _describing(file["data"])


def seal(path: Path) -> None:
    """Put the seal behind a closed file."""
    value = bytes.fromhex(sha256(path))
    with path.open("ab") as file:
        file.write(SEAL + value)


def require_seal(path: Path) -> None:
    """Check the seal of a file, if it has one.

    Raises:
        DataError: the file is not what was sealed.
        OSError: it cannot be read.
    """
    width, rest = len(SEAL) + hashlib.sha256().digest_size, path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, rest - width))
        end = file.read()
        if len(end) < width or not end.startswith(SEAL):
            return
        file.seek(0)
        content, rest = hashlib.sha256(), rest - width
        while block := file.read(min(rest, BLOCK)):
            content.update(block)
            rest -= len(block)
    if content.digest() != end[len(SEAL) :]:
        raise DataError(f"{path} is damaged: it does not fit the checksum at its end. Collect or copy it again")


class Checksums:
    """The checksums in an open file; nothing is checked where there are none.

    Args:
        file: the HDF5 file; an empty mapping if nothing is to be checked.
        where: its path, for messages.

    Raises:
        DataError: the contract or the environment is not what was written.
    """

    def __init__(self, file: Any, where: str) -> None:
        self._group, self._where = file.get(GROUP), where
        self._last: tuple[str, Mapping[str, str]] = ("", {})
        if self._group is not None and self._group.attrs.get(DATA) != _describing(file["data"]):
            raise self._changed("what it says about its contract or environment")

    def of(self, name: str) -> Mapping[str, str]:
        """Look up the checksums of a demonstration.

        Raises:
            DataError: the file has some, but not of this one, or they are damaged.
        """
        if self._group is None:
            return {}
        if self._last[0] != name:
            try:
                self._last = name, dict(json.loads(self._group[name][()]))
            except (KeyError, ValueError, TypeError) as error:
                raise self._changed(f"{name}, whose checksums cannot be read ({error})") from None
        return self._last[1]

    def require(self, name: str, key: str, values: np.ndarray | None) -> None:
        """Check a data set of a demonstration, None if it is not there.

        Raises:
            DataError: it is not what was written.
        """
        expected = self.of(name).get(key)
        if expected is not None and (values is None or array_digest(values) != expected):
            raise self._changed(f"{name}/{key}")

    def require_model(self, name: str, model: str | None) -> None:
        """Check the simulator's model of a demonstration.

        Raises:
            DataError: it is not what was written.
        """
        expected = self.of(name).get(MODEL)
        if expected is not None and (model is None or _text_digest(model) != expected):
            raise self._changed(f"the {MODEL} of {name}")

    def _changed(self, what: str) -> DataError:
        return DataError(
            f"{self._where} is damaged or was edited: {what} does not fit its checksum. Collect or copy it again; if "
            f"it was edited on purpose, delete the group '{GROUP}' in the file"
        )


def _describing(data: Any) -> str:
    return digest({name: str(data.attrs.get(name)) for name in _DESCRIBING})


def _text_digest(text: Any) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()
