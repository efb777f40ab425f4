"""Machine code from Python functions, where torch and numpy have no single operator for what is to be done."""

import inspect
import os
import stat
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lfm_policy import compiling
from lfm_policy.errors import ConfigError

VARIABLE = "NUMBA_CACHE_DIR"
"""Where numba keeps machine code, if somebody says so."""


def use_writable_cache() -> None:
    """Let numba use a temporary folder where it could keep machine code nowhere. Before numba is imported.

    It tries the folder of the code and the user's cache; without either, functions that are to be kept (robosuite's
    are) cannot be compiled.
    """
    spec = find_spec("numba")
    installed = [Path(__file__).parent, *([Path(spec.origin).parents[1]] if spec and spec.origin else [])]
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if not os.environ.get(VARIABLE) and not (all(map(_writable, installed)) or _writable(user)):
        os.environ[VARIABLE] = str(_temporary_folder())


def _writable(folder: Path) -> bool:
    """Say whether files can be made in a folder, which is made if need be; only trying tells (mounts, containers)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _temporary_folder() -> Path:
    """Return the same folder in every process of a user; a fresh one if somebody else could have put code into it."""
    folder = Path(tempfile.gettempdir()) / f"lfm-numba-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix="lfm-numba-"))


use_writable_cache()
if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
    raise ConfigError(
        "this package needs machine code, and the environment variable NUMBA_DISABLE_JIT forbids it: unset it"
    )

import numba  # noqa: E402
from numba.core import event  # noqa: E402
from numba.core.dispatcher import Dispatcher  # noqa: E402


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile with numba, kept on disk between runs."""
    function = inspect.unwrap(function)  # of what checks its types at run time
    return numba.njit(cache=True, **options)(function)


def called_by(function: Any) -> set[Any]:
    """Return a compiled function and all compiled functions that it calls by name, and that those call."""
    found, new = set(), {function}
    while new:
        found |= new
        new = {other for each in new for other in _names(each.py_func) if isinstance(other, Dispatcher)} - found
    return found


def _names(function: Callable[..., Any]) -> list[Any]:
    closed = inspect.getclosurevars(function)
    return [*closed.globals.values(), *closed.nonlocals.values()]


class _Watch(event.Listener):
    """Hears numba compile, and reports; what lies on the disk makes no event.

    The time left follows from the length of the functions that are done and of those that are not.
    """

    def __init__(self) -> None:
        self._outer: Any = None
        self._parts: set[Any] = set()
        self._done: set[Any] = set()
        self._before = 0

    def on_start(self, event: Any) -> None:
        """Note that a function is begun; the outermost tells how much there is to do."""
        if self._outer is None:
            self._outer, self._began = event.data["dispatcher"], time.monotonic()
            self._parts, self._done = called_by(self._outer), set()
        self._report()

    def on_end(self, event: Any) -> None:
        """Note that a function is done; with the outermost, those that lay on the disk are too."""
        function = event.data["dispatcher"]
        if function is self._outer:
            self._done = self._parts
            self._report()
            self._before += len(self._parts)
            self._outer = None
        else:
            self._done |= {function} & self._parts
            self._report()

    def _report(self) -> None:
        passed = time.monotonic() - self._began
        if passed < compiling.SILENT_S:
            return
        done, total = (sum(len(each.py_func.__code__.co_code) for each in of) for of in (self._done, self._parts))
        left = passed * (total - done) / done if done else None
        compiling.report(compiling.Compiling(self._before + len(self._done), self._before + len(self._parts), left))


event.register("numba:compile", _Watch())
