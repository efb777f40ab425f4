"""Chains of commands: each stage is one of the other verbs with its settings, run once, continued when interrupted."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfm_cli.arguments import argument
from lfm_cli.describe import VERBS
from lfm_policy.errors import LFMError
from lfm_policy.files import read_json, write_json
from lfm_policy.locks import owned
from lfm_policy.processes import PARENT

GRACE_S = 15.0
"""Time that a command has to end when it is asked to, before it is asked again or killed [s]."""


class OutOfTime(LFMError):
    """The time that a run was given is over."""


@dataclass(frozen=True)
class Stage:
    """One verb with its settings; `overrides["out"]` is the folder that it leaves."""

    name: str
    """The verb's name, or one that goes on after it and an underscore."""
    overrides: Mapping[str, Any]
    after: "Stage | None" = None
    """The stage whose output it reads."""

    @property
    def command(self) -> list[str]:
        """The verb and its settings."""
        verb = next(verb for verb in (self.name, self.name.split("_")[0]) if verb in VERBS or "_" not in verb)
        return [verb, *(argument(key, value) for key, value in self.overrides.items())]

    @property
    def line(self) -> str:
        """The command as one types it."""
        return shlex.join(["lfm", *self.command])

    @property
    def history(self) -> list[list[str]]:
        """The commands that its output is a function of."""
        return [*(self.after.history if self.after else []), self.command]


def run(stage: Stage, records: Path, deadline: float | None = None) -> None:
    """Run one stage, unless it is finished; what it made with other settings is removed first.

    Args:
        stage: what to run.
        records: JSON file that remembers the stages of this chain.
        deadline: moment of `time.monotonic` at which the stage is interrupted [s].

    Raises:
        OutOfTime: the deadline has passed; the stage continues at the next call.
        LFMError: the command failed; its own message is on the terminal.
    """
    known = read_json(records) if records.exists() else {}
    record = known.get(stage.name)
    if record is not None and record["history"] != stage.history:
        with owned(stage.overrides["out"]):
            shutil.rmtree(stage.overrides["out"], ignore_errors=True)
        record = None
    record = record or {"history": stage.history, "seconds": 0.0, "done": False}
    if record["done"]:
        print(f"{stage.name}: finished before, in {record['seconds']:.0f} s")
        return
    write_json(records, {**known, stage.name: record})
    print(f"{stage.name}: {stage.line}", flush=True)
    started = time.monotonic()
    end = wait([sys.executable, "-m", "lfm_cli", *stage.command], deadline)
    record["seconds"] += time.monotonic() - started
    record["done"] = end.code == 0
    write_json(records, {**known, stage.name: record})
    _require_success(stage, end)


def _require_success(stage: Stage, end: "End") -> None:
    if end.asked is not None and end.asked in (signal.SIGTERM, signal.SIGHUP):
        print(f"ended by {end.asked.name} in stage '{stage.name}'; the same command continues from it", flush=True)
        sys.exit(128 + end.asked)
    if end.asked is not None or (end.in_time and end.code in (128 + signal.SIGINT, -signal.SIGINT)):
        raise KeyboardInterrupt
    if end.code == 0:
        return
    if not end.in_time:
        raise OutOfTime(f"the time is over in stage '{stage.name}'; the same command continues from it")
    how = f"exit code {end.code}, see above" if end.code > 0 else f"signal {signal.Signals(-end.code).name}"
    raise LFMError(f"stage '{stage.name}' ended with {how}; the same command continues from it")


@dataclass(frozen=True)
class End:
    """How a command ended."""

    code: int
    """Its exit code; negative for the signal that ended it."""
    in_time: bool
    """Whether it ended before the deadline."""
    asked: signal.Signals | None
    """What this process was asked to end by meanwhile."""


def wait(command: list[str], deadline: float | None = None) -> End:
    """Run a command on this terminal, and end it with this process.

    What asks this process to end (Ctrl-C, TERM, HUP) asks the command too, which gets the time to store its state; so
    does the deadline. If this process is killed, the kernel kills the command; see `lfm_policy.processes`.

    Args:
        command: `python -m lfm_cli VERB ...`, or another one, which then outlives a killed parent.
        deadline: moment of `time.monotonic` at which the command is interrupted [s].
    """
    if deadline is not None:  # jobs in the background of a script ignore Ctrl-C, and so would what they start
        signal.signal(signal.SIGINT, signal.default_int_handler)
    asked: list[signal.Signals] = []
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: object) -> None:
        asked.append(signal.Signals(number))
        if process is not None:
            _ask(process, asked[-1])

    with _handling(pass_on):
        process = subprocess.Popen(command, env=os.environ | {PARENT: str(os.getpid())})
        for number in asked:  # before it had begun
            process.send_signal(number)
        code, in_time = _code(process, deadline)
    return End(code, in_time, asked[0] if asked else None)


def _code(process: "subprocess.Popen[bytes]", deadline: float | None) -> tuple[int, bool]:
    try:
        return process.wait(None if deadline is None else max(0.0, deadline - time.monotonic())), True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        return process.wait(), False


@contextmanager
def _handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Handle the signals that ask to end; those that this process was started to ignore (nohup) stay ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, current in before.items():
        if current not in (signal.SIG_IGN, None):
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, current in before.items():
            if current is not None:  # else it is not Python's
                signal.signal(number, current)


def _ask(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Pass a signal on. Ctrl-C on a terminal reaches a command by itself, and twice would disturb how it ends."""
    if number != signal.SIGINT:
        process.send_signal(number)
        _later(process.kill)
    elif _in_foreground():
        _later(lambda: process.send_signal(number))
    else:
        process.send_signal(number)


def _later(action: Callable[[], None]) -> None:
    timer = threading.Timer(GRACE_S, action)
    timer.daemon = True
    timer.start()


def _in_foreground() -> bool:
    """Say whether what is typed on a terminal goes to this process's group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)
