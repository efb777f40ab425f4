"""Chains of scripts: each stage is one of the other scripts with its settings, run once, continued when interrupted."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfm_policy.errors import LFMError
from lfm_policy.files import read_json, write_json

VERBS = Path(__file__).resolve().parent


class OutOfTime(LFMError):
    """The time that a run was given is over."""


@dataclass(frozen=True)
class Stage:
    """One script with its settings; `overrides["out"]` is the folder that it leaves."""

    name: str
    """The script's name, or one that goes on after it and an underscore."""
    overrides: Mapping[str, Any]
    after: "Stage | None" = None
    """The stage whose output it reads."""

    @property
    def command(self) -> list[str]:
        """The script and its settings."""
        verb = self.name if (VERBS / f"{self.name}.py").exists() else self.name.split("_")[0]
        return [verb, *(f"{key}={value}" for key, value in self.overrides.items())]

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
        LFMError: the script failed; its own message is on the terminal.
    """
    known = read_json(records) if records.exists() else {}
    record = known.get(stage.name)
    if record is not None and record["history"] != stage.history:
        shutil.rmtree(stage.overrides["out"], ignore_errors=True)
        record = None
    record = record or {"history": stage.history, "seconds": 0.0, "done": False}
    if record["done"]:
        print(f"{stage.name}: finished before, in {record['seconds']:.0f} s")
        return
    write_json(records, {**known, stage.name: record})
    print(f"{stage.name}: lfm {' '.join(stage.command)}", flush=True)
    started = time.monotonic()
    code, in_time = wait([sys.executable, "-m", "lfm_cli", *stage.command], deadline)
    record["seconds"] += time.monotonic() - started
    record["done"] = code == 0
    write_json(records, {**known, stage.name: record})
    if code == 0:
        return
    if not in_time:
        raise OutOfTime(f"the time is over in stage '{stage.name}'; the same command continues from it")
    if code == 130:
        raise KeyboardInterrupt
    raise LFMError(f"stage '{stage.name}' ended with exit code {code}, see above; the same command continues from it")


def wait(command: list[str], deadline: float | None = None) -> tuple[int, bool]:
    """Run a command on this terminal: its exit code, and whether it ended before the deadline.

    Ctrl-C reaches the command too, and it gets the time to store its state; so does the deadline.
    """
    if deadline is not None:  # jobs in the background of a script ignore Ctrl-C, and so would what they start
        signal.signal(signal.SIGINT, signal.default_int_handler)
    in_time = True
    with subprocess.Popen(command) as process:
        while True:
            try:
                left = None if deadline is None or not in_time else max(0.0, deadline - time.monotonic())
                return process.wait(left), in_time
            except subprocess.TimeoutExpired:
                in_time = False
                process.send_signal(signal.SIGINT)
            except KeyboardInterrupt:
                continue
