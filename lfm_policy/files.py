"""Writing files so that an interruption leaves either the old content or the new, never a part of it.

What is being written lies in a folder `.lfm-*.tmp` beside its place, which its writer keeps locked. The kernel lets go
of the lock when the writer ends, however it ends, and so tells the folders of the dead from those of the living, in
other containers too, where a process number says nothing. Text is UTF-8, whatever the locale.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lfm_policy.errors import LFMError
from lfm_policy.locks import exchange, lock

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of the system where nothing can be written."""
FSYNCS = 8
"""Files fsynced at once: the file system commits them together, where one after the other each waits for its own."""
ATTEMPTS = 1000
"""How often others may be in the way of a folder that is being put in its place."""
PREFIX, SUFFIX = ".lfm-", ".tmp"
_LOCK, _NEW, _OLD = "lock", "new", "old"
_NOTHING = "nothing"


def resolved(path: str | Path) -> Path:
    """Return the place that a path leads to through links, also where nothing is yet.

    Raises:
        OSError: the links go in a circle.
    """
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return target


@contextmanager
def scratch(parent: str | Path) -> Iterator[Path]:
    """Yield a fresh folder in `parent`, made if need be; it is removed at the end.

    If this process is killed before, the next `scratch` or `sweep` in `parent` removes it.
    """
    parent = Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    folder, handle = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def sweep(parent: str | Path) -> None:
    """Remove what dead processes left in `parent`; a folder that they had put aside returns to its place."""
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX):
                _sweep_folder(Path(entry.path))


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path of the same name; on success it is fsynced and renamed to `path`, on error removed.

    Where `path` is a link, what it leads to is written.
    """
    path = resolved(path)
    with scratch(path.parent) as folder:
        temporary = _inside(folder, _NEW) / path.name
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary directory; on success its files are fsynced and it takes the place of `path`, in one step.

    Where `path` is a link, what it leads to is replaced. Files may be read by whom the directory lets in: safetensors
    writes for the owner alone, and a robot's server is often another user than the trainer.

    Raises:
        NotADirectoryError: `path` is a file.
    """
    path = resolved(path)
    with scratch(path.parent) as folder:
        temporary = _inside(folder, _NEW) / path.name
        temporary.mkdir()
        yield temporary
        content = list(temporary.rglob("*"))
        for file in content:
            if file.is_file():
                file.chmod(temporary.stat().st_mode & 0o666)
        with ThreadPoolExecutor(FSYNCS) as pool:
            list(pool.map(_fsync, content))  # the list raises what a thread raised
        _put_in_place(temporary, path, _inside(folder, _OLD))
        _fsync(path.parent)


@contextmanager
def replaced_or_same(path: str | Path, same: Callable[[Path, Path], bool]) -> Iterator[Path]:
    """Yield a directory as `atomic_directory` does; where nothing can be written, `path` stays if it is the same.

    Args:
        path: the directory to write.
        same: says whether the one that was filled is the one that is there.

    Raises:
        OSError: it cannot be written, and is not there or not the same.
    """
    with ExitStack() as stack:
        refusal = None
        try:
            folder = stack.enter_context(atomic_directory(path))
        except OSError as error:
            if error.errno not in READ_ONLY or not Path(path).exists():
                raise
            folder, refusal = Path(stack.enter_context(TemporaryDirectory())), error
        yield folder
        if refusal is not None:
            if not same(folder, Path(path)):
                raise refusal
            print(f"note: {path} is left as it was, and is the same: {refusal.strerror}", file=sys.stderr)


@contextmanager
def keeping(path: str | Path) -> Iterator[None]:
    """Let a result of before stand, with a note, where its folder is read-only or another user's.

    A finished command that is run again has nothing to write, but for what differs from time to time.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in READ_ONLY or not Path(path).exists():
            raise
        print(f"note: {path} is left as it was: {error.strerror}", file=sys.stderr)


def write_text(path: str | Path, text: str) -> None:
    """Write a text as `write_bytes` does, in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file, atomically. One that holds the content already is left alone, also where nothing can be written."""
    with suppress(OSError):
        if Path(path).read_bytes() == content:
            return
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def read_text(path: str | Path) -> str:
    """Read a text.

    Raises:
        OSError: it cannot be read, or is a pipe or a device.
        UnicodeDecodeError: it is not UTF-8.
    """
    require_regular(path)
    return Path(path).read_text(encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, as `write_text` does. Refuses NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: as `read_text`.
        json.JSONDecodeError: it is no JSON, not UTF-8, or nested deeper than anything of this package.
    """
    try:
        return json.loads(read_text(path))
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError(f"not UTF-8 ({error.reason})", "", error.start) from None
    except RecursionError:
        raise json.JSONDecodeError("nested too deep", "", 0) from None


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file.

    Raises:
        OSError: it cannot be read, or is a pipe or a device.
    """
    require_regular(path)
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Return the hexadecimal SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def require_same(
    there: Mapping[str, Any], here: Mapping[str, Any], what: str, advice: str, error: type[LFMError]
) -> None:
    """Check that what a folder holds was made with the settings that would be used now.

    Args:
        there: settings beside the content, as they were read from JSON.
        here: settings of now.
        what: begins the message ("outputs/x holds the episodes of another run").
        advice: ends it ("choose another out=").
        error: what to raise.

    Raises:
        LFMError: of type `error`; names every difference.
    """
    old, new = _flat(there), _flat(json.loads(json.dumps(here)))
    rows = [
        f"  {key}: there {old.get(key, _NOTHING)}, now {new.get(key, _NOTHING)}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    if rows:
        raise error("\n".join([f"{what}:", *rows, advice]))


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """Flatten nested mappings to dotted names, each with how its value is written."""
    if not isinstance(value, Mapping):
        return {name: repr(value)}
    parts = (_flat(item, f"{name}.{key}" if name else str(key)) for key, item in value.items())
    return {key: text for part in parts for key, text in part.items()}


def names_apart(paths: Sequence[str | Path]) -> list[str]:
    """Name different paths shortly: by their stems, or else by as much of their ends as tells them apart."""
    whole = [Path(os.path.abspath(path)) for path in paths]
    short = [path.stem for path in whole]
    for count in range(1, max((len(path.parts) for path in whole), default=0) + 1):
        if len(set(short)) == len(set(whole)):
            break
        short = ["/".join(path.parts[-count:]) for path in whole]
    return short


def require_regular(path: str | Path) -> None:
    """Check that reading a file ends.

    Raises:
        OSError: it is not there, or a directory, a pipe or a device.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "expected a file, found a pipe or a device", str(path))


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _locked_folder(parent: Path) -> tuple[Path, int | None]:
    """Make a new folder; return it and its lock's holder, None on file systems without locks: leftovers stay there."""
    while True:
        folder = parent / f"{PREFIX}{secrets.token_hex(6)}{SUFFIX}"
        folder.mkdir()
        try:
            handle = lock(folder / _LOCK)
        except FileNotFoundError:  # swept between the two lines
            continue
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                return folder, None
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if handle is not None:  # else it is being swept
            return folder, handle


def _sweep_folder(folder: Path) -> None:
    try:
        handle = lock(folder / _LOCK)
    except OSError:  # another one's, on a read-only or lockless file system, or gone meanwhile
        return
    if handle is None:
        return
    with suppress(FileNotFoundError):
        for name in os.listdir(folder / _OLD):
            if not os.path.lexists(folder.parent / name):
                os.rename(folder / _OLD / name, folder.parent / name)
    shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)


def _inside(folder: Path, name: str) -> Path:
    (folder / name).mkdir(exist_ok=True)
    return folder / name


def _put_in_place(new: Path, path: Path, aside: Path) -> None:
    """Give a directory its name; what had the name ends as `new` or in `aside`."""
    for _ in range(ATTEMPTS):  # of others, each of which may replace it between two of these lines
        try:
            os.rename(new, path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with suppress(FileNotFoundError):
            if exchange(new, path):
                return
            shutil.rmtree(aside / path.name, ignore_errors=True)
            os.rename(path, aside / path.name)
    raise FileExistsError(errno.EEXIST, "others keep replacing it", str(path))
