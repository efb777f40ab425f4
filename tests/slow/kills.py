"""Kill commands at random moments: `python -m tests.slow.kills commands=train,prepare kills=100`.

A round begins afresh, is killed (SIGKILL, to the command alone) a few times at moments drawn from the length of a whole
run, and is then left to finish. Its outcome must be that of a run that was never killed, bit for bit where bits are
promised; nothing temporary may be left, no stage or worker may live on, and each command must start at once after the
kill before it.
"""

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lfm_policy.files import read_json

KILLS_A_ROUND = 5
ORPHANS_END_S = 10.0
TINY = ["size=tiny", "network.dims=[8,16]", "network.time_dim=8", "batch=16", "epochs=null", "optimiser.warmup_steps=4"]
QUIET = ["threads=1", "logging.mode=disabled"]


class Command(NamedTuple):
    """A command line that ends in `out`."""

    arguments: Callable[[Path, Path], list[str]]
    """From the folder of inputs and `out`."""
    outcome: Callable[[Path], Any]
    """What must be equal, from `out`."""


def _train(inputs: Path, out: Path) -> list[str]:
    overrides = [*TINY, *QUIET, f"data.path={inputs / 'd.zarr'}", "updates=150", "checkpoint_seconds=0.1"]
    return ["train", "experiment=robot/lift", *overrides, f"out={out}"]


def _distill(inputs: Path, out: Path) -> list[str]:
    lengths = ["blocks=2", "updates=100", "batch=8", "conditions=2", "draws=2", "checkpoint_seconds=0.1", "cached=512"]
    return ["distill", f"policy={inputs / 'teacher'}", *lengths, *QUIET, f"out={out}"]


def _evaluate(inputs: Path, out: Path) -> list[str]:
    sampling = ["episodes=4", "solver.steps=1", "workers=2", "videos=0"]
    return ["evaluate", f"policy={inputs / 'teacher'}", *sampling, f"out={out}"]


def _reproduce(inputs: Path, out: Path) -> list[str]:
    chosen = ["table=fig2", "tasks=[gaussian]", "methods=[fm,lfm]", "size=tiny", "updates=100"]
    return ["reproduce", *chosen, f"results={out / 'results'}", f"out={out}"]


def _tree(*ignored: str) -> Callable[[Path], Any]:
    """The SHA-256 of every file in a folder, other than some."""

    def outcome(out: Path) -> dict[str, str]:
        files = [file for file in sorted(out.rglob("*")) if file.is_file() and file.name not in ignored]
        return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    return outcome


def _weights(out: Path) -> Any:
    files = sorted((out / "checkpoint").glob("*.safetensors"))
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return sums, read_json(out / "summary.json")["digest"], [json.loads(line)["step"] for line in lines]


def _episodes(out: Path) -> Any:
    rows = [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]
    keys = ("seed", "success", "steps", "digest")
    return sorted([row[key] for key in keys] for row in rows), read_json(out / "summary.json")["success"]


def _cells(out: Path) -> Any:
    cells = [read_json(file) for file in sorted((out / "results" / "fig2").glob("*.json"))]
    return [{key: cell[key] for key in ("task", "method", "nll", "valid_nll", "nfe_sample")} for cell in cells]


COMMANDS = {
    "collect": Command(
        lambda inputs, out: ["collect", "task=lift", "episodes=3", "workers=2", f"out={out}"], _tree("summary.json")
    ),
    "prepare": Command(
        lambda inputs, out: ["prepare", f"source={inputs / 'demos' / 'demos.hdf5'}", "replay=1", f"out={out}"],
        _tree("summary.json"),
    ),
    "train": Command(_train, _weights),
    "distill": Command(_distill, _weights),
    "evaluate": Command(_evaluate, _episodes),
    "reproduce": Command(_reproduce, _cells),
    "export": Command(
        lambda inputs, out: ["export", f"policy={inputs / 'teacher'}", "solver.steps=1", f"out={out}"],
        lambda out: read_json(out / "checksums.json"),
    ),
}


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Start a command in a session of its own."""
    command = [sys.executable, "-m", "lfm_cli", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(arguments: list[str]) -> float:
    """Run a command to its end. Returns how long it took [s]."""
    begun = time.monotonic()
    process = start(arguments)
    message = process.communicate()[1]
    if process.returncode != 0:
        raise AssertionError(f"exit code {process.returncode}: {message[-2000:]}")
    return time.monotonic() - begun


def session(pid: int) -> list[int]:
    """Processes that run in a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def kill_once(arguments: list[str], seconds: float) -> bool:
    """Kill a command after some time, and wait for what it had started. False if it had ended before."""
    process = start(arguments)
    try:
        message = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
        deadline = time.monotonic() + ORPHANS_END_S
        while left := session(process.pid):
            if time.monotonic() > deadline:
                raise AssertionError(f"{left} live on after the kill") from None
            time.sleep(0.05)
        return True
    if process.returncode != 0:
        raise AssertionError(f"exit code {process.returncode}: {message[-2000:]}")
    return False


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders."""
    return [
        str(path) for path in folder.rglob(".*") if path.name.startswith(".lfm-") or path.suffix in (".tmp", ".lock")
    ]


def run(name: str, kills: int, inputs: Path, folder: Path, rng: random.Random, deadline: float) -> dict[str, Any]:
    """Kill one command so often, or until the deadline. Returns counts and what went wrong."""
    command = COMMANDS[name]
    whole = folder / f"{name}.whole" / "out"
    length = finish(command.arguments(inputs, whole))
    expected, done, rounds, wrong = command.outcome(whole), 0, 0, []
    while done < kills and time.monotonic() < deadline:
        place = folder / f"{name}.{rounds}"
        arguments = command.arguments(inputs, place / "out")
        try:
            for _ in range(min(KILLS_A_ROUND, kills - done)):
                done += kill_once(arguments, rng.uniform(0, length))
            finish(arguments)
            if command.outcome(place / "out") != expected:
                wrong.append(f"round {rounds}: another outcome")
            if left := leftovers(place):
                wrong.append(f"round {rounds}: left {left}")
        except AssertionError as error:
            wrong.append(f"round {rounds}: {error}")
        shutil.rmtree(place, ignore_errors=True)
        rounds += 1
    return {"kills": done, "rounds": rounds, "seconds of a whole run": round(length, 1), "wrong": wrong}


def prepare_inputs(folder: Path) -> None:
    """Demonstrations, a data set and a teacher."""
    finish(["collect", "task=lift", "episodes=3", "workers=2", f"out={folder / 'demos'}"])
    finish(["prepare", f"source={folder / 'demos' / 'demos.hdf5'}", f"out={folder / 'd.zarr'}"])
    finish(_train(folder, folder / "teacher"))


def main() -> None:
    """Print a line of counts for each command."""
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    seed = int(given.get("seed", np.random.SeedSequence().generate_state(1)[0]))
    minutes = float(given.get("minutes", 600))
    print(f"seed={seed}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name) / "inputs"
        prepare_inputs(inputs)
        for command in given.get("commands", ",".join(COMMANDS)).split(","):
            until = time.monotonic() + 60 * minutes
            counts = run(command, int(given.get("kills", 100)), inputs, Path(name), random.Random(seed), until)
            print(f"{command}: {counts}", flush=True)


if __name__ == "__main__":
    main()
