"""Commands forked from a process that has imported everything: what they do is the same, what they import is there.

`multiprocessing`'s spawned workers and the stages of a chain of commands are forked as well, so that imports, five
seconds of a core, are not what a random kill falls into. Forked workers inherit the lock of an output folder: whoever
starts the same command again first waits until the whole session of a killed one is gone.
"""

import contextlib
import importlib
import multiprocessing.context
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

OURS = ("lfm_policy", "lfm_envs", "lfm_cli", "lfm_config")
LATE = ("hydra", "matplotlib.figure", "onnx", "onnxruntime", "onnxscript", "torch.onnx", "torch.export", "zarr")
"""Imported within functions."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_LOOK_EVERY_S = 0.01


def preload() -> None:
    """Import our packages and what they need, and have workers and stages forked from now on.

    Raises:
        AssertionError: an import has started a thread, which a fork would lose.
    """
    for package in map(importlib.import_module, OURS):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                with contextlib.suppress(ModuleNotFoundError):  # of an optional library, which a command would miss too
                    importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    contexts = multiprocessing.context._concrete_contexts  # pyright: ignore[reportAttributeAccessIssue]
    contexts["spawn"] = contexts["fork"]
    stages = importlib.import_module("lfm_cli.stages")
    vars(stages)["subprocess"] = SimpleNamespace(Popen=Stage, TimeoutExpired=subprocess.TimeoutExpired)
    assert (threads := threading.enumerate()) == [threading.main_thread()], threads


class Run:
    """A command that runs in a session of its own, from `__enter__` on; whatever is left of it ends with the block.

    Args:
        arguments: verb and settings.
    """

    code: int | None = None
    """Its exit code, negative for a signal, once it has ended."""

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self.spent_s = 0.0
        """Processor time that it and its children had taken when it was last looked at [s]."""

    def __enter__(self) -> "Run":
        self._output = tempfile.TemporaryFile("w+", errors="replace")
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(self._arguments, self._output.fileno())
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        for pid in self.session():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._output.close()

    @property
    def message(self) -> str:
        """What it has printed."""
        self._output.seek(0)
        return self._output.read()

    def wait(self, spent_s: float = float("inf")) -> bool:
        """Wait until it has ended (True), or has spent some processor time (False)."""
        while self.code is None:
            self.spent_s = max(self.spent_s, _spent_s(self.pid))
            if self.spent_s >= spent_s:
                return False
            time.sleep(_LOOK_EVERY_S)
            self._reap(os.WNOHANG)
        return True

    def kill(self) -> None:
        """Kill the command itself, not what it has started."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self._reap(0)

    def session(self) -> list[int]:
        """Processes that it has left."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = stat.read_text().rpartition(")")[2].split()
                gone = (
                    fields[0] == "Z" and len(list(stat.parent.glob("task/*"))) < 2
                )  # else threads still hold its files
                if int(fields[3]) == self.pid and not gone:
                    found.append(int(stat.parent.name))
        return found

    def _reap(self, flags: int) -> None:
        pid, status, usage = os.wait4(self.pid, flags)
        if pid:
            self.code = os.waitstatus_to_exitcode(status)
            self.spent_s = max(self.spent_s, usage.ru_utime + usage.ru_stime)


class Stage:
    """A command that another one has forked, with as much of `subprocess.Popen` as `lfm_cli.stages` uses.

    Args:
        command: `python -m lfm_cli VERB ...`.
        env: its environment.
    """

    def __init__(self, command: list[str], env: Mapping[str, str]) -> None:
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            os.environ.clear()
            os.environ.update(env)
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _run(command[3:])

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: it runs on after `timeout` [s].
        """
        end = float("inf") if timeout is None else time.monotonic() + timeout
        while not (ended := os.waitpid(self._pid, os.WNOHANG))[0]:
            if time.monotonic() >= end:
                raise subprocess.TimeoutExpired("lfm", timeout or 0.0)
            time.sleep(_LOOK_EVERY_S)
        return os.waitstatus_to_exitcode(ended[1])

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self._pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def _become(arguments: list[str], output: int) -> None:
    """Run a command in this process, a fork's child, in a session of its own."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, file in enumerate((nothing, output, output)):
        os.dup2(file, number)
    _run(arguments)


def _run(arguments: list[str]) -> None:
    """Run a command in this process and end it as an interpreter would."""
    code = 1
    try:
        from lfm_cli.__main__ import main

        sys.argv = ["lfm", *arguments]
        main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        multiprocessing.util._exit_function()  # pyright: ignore[reportAttributeAccessIssue] (ends workers)
        os._exit(code)


def _spent_s(pid: int) -> float:
    """Processor time of a process and those that it has started, ended ones included [s]."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS_PER_S + sum(_spent_s(int(child)) for child in children)
