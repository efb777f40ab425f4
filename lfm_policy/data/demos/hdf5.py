"""Reading HDF5 files in robomimic's layout: arrays of numbers, at h5py's low level, and damage told as DataError."""

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lfm_policy.errors import DataError

LARGEST = 2**31
"""Bytes of one data set that are read into memory: 130 hours of 30 numbers at 20 Hz, an hour of small pictures."""


def open_hdf5(path: Path) -> h5py.File:
    """Open a demonstration file.

    Raises:
        DataError: not found, not to be read, still being written, truncated, not HDF5, or with links to other files.
    """
    if not path.is_file():
        raise DataError(f"no demonstration file at {path}: check source=, or collect one with lfm collect")
    try:
        file = h5py.File(path, "r")
    except PermissionError as error:
        raise DataError(f"{path} must not be read by this user: change its permissions (chmod a+r)") from error
    except OSError as error:
        if isinstance(error, BlockingIOError) or "lock file" in str(error) or "open for write" in str(error):
            raise DataError(
                f"{path} is still open in the program that writes it, or was not closed by it: wait until the recorder "
                "has ended; if it is gone, `h5clear -s` closes the file"
            ) from error
        if "truncated" in str(error):
            raise DataError(
                f"{path} is truncated ({path.stat().st_size} bytes): download or collect it again"
            ) from error
        raise DataError(f"{path} is not an HDF5 file ({error}): expected robomimic's demonstration format") from error
    try:
        require_no_links(file, path)
    except BaseException:
        file.close()
        raise
    return file


def require_no_links(file: h5py.File, path: Path) -> None:
    """Check that nothing in a file is taken from another file on this machine by an external link.

    Raises:
        DataError: there is such a link, or the file is damaged.
    """

    links: Any = importlib.import_module("h5py.h5l")  # which h5py's stubs leave out

    def foreign(name: bytes, info: Any) -> bytes | None:
        return name if info.type == links.TYPE_EXTERNAL else None

    with readable(path):
        found = file.id.links.visit(foreign, info=True)
        if found is not None:
            link: Any = file.get(found, getlink=True)
            where = found.decode(errors="replace")
            raise DataError(
                f"{path}: '{where}' is a link to another file, {link.filename!r}: copy what it leads to into this one"
            )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what h5py raises at damage inside a file (OSError, RuntimeError, KeyError, ValueError) into DataError."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataError(f"{path} is damaged and cannot be read ({error}): download or collect it again") from error


def find_dataset(group: h5py.Group, key: str) -> h5py.h5d.DatasetID | None:
    """Return the data set of this name, None if it is not there. Raises KeyError when damaged.

    Its handle: opening and reading it takes a third of the time that `group[key][()]` does.
    """
    try:
        return h5py.h5d.open(group.id, key.encode())
    except KeyError:
        if key in group:  # there, but damaged
            raise
        return None


def require_inside(dataset: h5py.h5d.DatasetID, where: str) -> None:
    """Check that a data set lies in its HDF5 file, and is not made of any other file on this machine.

    Raises:
        DataError: it is.
    """
    plist = dataset.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL:
        names = {plist.get_virtual_filename(n) for n in range(plist.get_virtual_count())} - {"."}
        if names:
            raise DataError(f"{where} is put together from other files, {sorted(names)}: copy them into the file")
    if plist.get_layout() == h5py.h5d.CONTIGUOUS and (count := plist.get_external_count()):
        name = plist.get_external(0)[0].decode(errors="replace")
        raise DataError(
            f"{where} lies outside of the file, in {name!r} ({count} in all): copy its content into the file"
        )


def require_moderate(shape: tuple[int, ...], size: int, where: str) -> None:
    """Check the size that a data set claims, before memory is taken: a file of a kilobyte may claim a terabyte.

    Args:
        shape: of the data set.
        size: of one of its values in memory [bytes].
        where: names it in messages.

    Raises:
        DataError: it claims more than LARGEST.
    """
    if (claimed := math.prod(shape) * size) > LARGEST:
        raise DataError(
            f"{where} claims {claimed:.3g} bytes ({shape}), and no demonstration may take more than {LARGEST:.3g}: "
            "is it damaged? Divide longer ones"
        )


def read_numbers(dataset: h5py.h5d.DatasetID, where: str) -> np.ndarray:
    """Read all of a data set as float64 (L, width).

    Args:
        dataset: of any type of numbers, in any layout.
        where: names it in messages.

    Raises:
        DataError: no numbers, of another shape, too many, not finite, or outside of the file.
        OSError: damaged.
    """
    shape = dataset.shape or ()
    kind = "f" if dataset.get_type().equal(h5py.h5t.NATIVE_DOUBLE) else dataset.dtype.kind
    if len(shape) != 2 or kind not in "fiu":
        raise DataError(f"{where}: expected numbers of shape (L, width), found {dataset.dtype} {shape}")
    require_inside(dataset, where)
    require_moderate(shape, np.dtype(np.float64).itemsize, where)
    array = np.empty(shape)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, array, h5py.h5t.NATIVE_DOUBLE)
    if not np.isfinite(array).all():
        bad = ~np.isfinite(array).all(axis=1)
        raise DataError(f"{where} has NaN or infinity in {bad.sum()} row(s), first in row {int(bad.argmax())}")
    return array


def dataset_names(group: h5py.Group) -> list[str]:
    """List all data sets below a group."""
    names: list[str] = []
    group.visititems(lambda name, entry: names.append(name) if isinstance(entry, h5py.Dataset) else None)
    return names
