"""What the kernel offers to processes that share files: locks that end with their holder, and exchanging two names.

`owned(folder)` gives an output folder one owner at a time.
"""

import ctypes
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from lfm_policy.errors import BusyError

_RENAME_EXCHANGE, _AT_FDCWD = 2, -100
_LONGEST_NAME = 200
"""Bytes of a folder's name that its lock's name repeats."""
_held: set[Path] = set()
"""The folders that this process owns."""


def lock(path: Path) -> int | None:
    """Lock a file, made if need be. Returns the descriptor that holds the lock until it is closed; None if it is held.

    Raises:
        OSError: the file cannot be made, or the file system has no locks.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except FileNotFoundError:  # removed and not made again: try once more, as where another file has its name
            os.close(handle)
            continue
        except OSError:
            os.close(handle)
            raise
        os.close(handle)  # its last holder removed it between the lines


def exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step. False where the system or the file system cannot.

    Raises:
        OSError: one is not there, or must not be renamed.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(second))


@contextmanager
def owned(folder: str | Path) -> Iterator[None]:
    """Own an output folder: no other process can meanwhile, and the kernel lets go of it however this one ends.

    The lock is a file beside the folder, which is removed in the end: the folder itself may be replaced as a whole. A
    process that owns the folder already keeps it.

    Raises:
        BusyError: another process owns it; says which, and since when.
        OSError: the folder neither exists nor can be made.
    """
    target = Path(os.path.realpath(folder))
    if target in _held:
        yield
        return
    with _taken(target):
        _held.add(target)
        try:
            yield
        finally:
            _held.discard(target)


@contextmanager
def _taken(target: Path) -> Iterator[None]:
    beside = _lock_file(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = lock(beside)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            print(f"note: the file system of {target} has no locks: let no other command write there", file=sys.stderr)
            yield
            return
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM) or not target.is_dir():
            raise
        with _itself_taken(target):
            yield
        return
    if handle is None:
        raise BusyError(_who(target, beside))
    try:
        os.truncate(handle, 0)
        os.write(handle, json.dumps(_self()).encode())
        yield
    finally:
        beside.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def _itself_taken(target: Path) -> Iterator[None]:
    """Lock a folder itself, where nothing can be written beside it."""
    handle = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(_who(target, None)) from None
        yield
    finally:
        os.close(handle)


def _lock_file(target: Path) -> Path:
    name = os.fsencode(target.name)
    text = target.name if len(name) <= _LONGEST_NAME else sha256(name).hexdigest()
    return target.parent / f".{text}.lock"


def _self() -> dict[str, str | int]:
    program = Path(sys.argv[0]).name.replace("__main__.py", "lfm")
    command = " ".join([program, *sys.argv[1:]])
    return {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": time.strftime("%F %T")}


def _who(target: Path, lock_file: Path | None) -> str:
    who = "another command"
    if lock_file is not None:
        with suppress(OSError, ValueError, TypeError, KeyError):  # its holder may be writing it now
            said = json.loads(lock_file.read_bytes())
            who = f"`{said['command']}` (process {said['pid']} on {said['host']}, since {said['since']})"
    return f"{target} is in use: {who} writes to it. Nothing was changed; wait for it, end it, or choose another out="
