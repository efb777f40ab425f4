"""Kill commands at random moments: `python -m tests.slow.kills commands=train,prepare kills=100 results=FILE`.

The models that distill, evaluate and export need are made first, or taken from `inputs=FOLDER`. A round begins afresh,
is killed (SIGKILL, to the command alone) up to a few times at moments drawn from the processor time of a whole run, and
is then left to finish. Its outcome must be that of a run that was never killed, bit for bit where bits are promised;
nothing temporary may be left, no stage or worker may live on, and each command must start at once after the kill before
it.

Commands, their workers and their stages are forked from a process that has imported all they need (see `forked`), so
that kills fall into what they do and not into imports. Counted is also into which tenth of a whole run's processor time
the first kill of each round fell; the kills after it fall into runs that continue.
"""

import hashlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lfm_policy.files import read_json, write_json
from tests.slow.forked import Run, preload

KILLS_A_ROUND = 8
ORPHANS_END_S = 10.0
TINY = ["size=tiny", "network.dims=[8,16]", "network.time_dim=8", "batch=16", "epochs=null", "optimiser.warmup_steps=4"]
QUIET = ["threads=1", "logging.mode=disabled"]


class Command(NamedTuple):
    """A command line that ends in `out`."""

    arguments: Callable[[Path, Path], list[str]]
    """From the folder of inputs and `out`."""
    outcome: Callable[[Path], Any]
    """What must be equal, from `out`."""


def _train(inputs: Path, out: Path, *more: str) -> list[str]:
    overrides = [*TINY, *QUIET, f"data.path={inputs / 'd.zarr'}", "updates=20", "checkpoint_seconds=0.05"]
    return ["train", "experiment=robot/lift", *overrides, *more, f"out={out}"]


def _distill(inputs: Path, out: Path) -> list[str]:
    lengths = ["blocks=2", "updates=30", "batch=8", "conditions=2", "draws=2", "checkpoint_seconds=0.05", "cached=256"]
    return ["distill", f"policy={inputs / 'teacher'}", *lengths, *QUIET, f"out={out}"]


def _evaluate(inputs: Path, out: Path) -> list[str]:
    sampling = ["episodes=2", "solver.steps=1", "workers=2", "videos=0"]
    return ["evaluate", f"policy={inputs / 'teacher'}", *sampling, f"out={out}"]


def _reproduce(inputs: Path, out: Path) -> list[str]:
    chosen = ["table=fig2", "tasks=[gaussian]", "methods=[lfm]", "size=tiny", "updates=30"]
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
        lambda inputs, out: ["collect", "task=lift", "episodes=2", "workers=2", f"out={out}"], _tree("summary.json")
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
        lambda inputs, out: ["export", f"policy={inputs / 'one_block'}", "solver.steps=1", f"out={out}"],
        lambda out: read_json(out / "checksums.json"),
    ),
}


def finish(arguments: list[str]) -> float:
    """Run a command to its end. Returns the processor time that it and what it started took [s]."""
    with Run(arguments) as run:
        run.wait()
        _require_success(run)
        return run.spent_s


def kill_once(arguments: list[str], spent_s: float) -> float | None:
    """Kill a command once it has spent some processor time, and wait for what it had started.

    Returns None if it was killed, and the processor time that it took if it had ended before [s].
    """
    with Run(arguments) as run:
        if run.wait(spent_s):
            _require_success(run)
            return run.spent_s
        run.kill()
        deadline = time.monotonic() + ORPHANS_END_S
        while left := run.session():
            if time.monotonic() > deadline:
                raise AssertionError(f"{left} live on after the kill")
            time.sleep(0.05)
        return None


def _require_success(run: Run) -> None:
    if run.code != 0:
        raise AssertionError(f"exit code {run.code}: {run.message[-2000:]}")


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders."""
    return [
        str(path) for path in folder.rglob(".*") if path.name.startswith(".lfm-") or path.suffix in (".tmp", ".lock")
    ]


def run(
    name: str, kills: int, inputs: Path, folder: Path, rng: random.Random, deadline: float
) -> Iterator[dict[str, Any]]:
    """Kill one command so often, or until the deadline. Yields counts and what went wrong, after every round."""
    command = COMMANDS[name]
    whole = folder / f"{name}.whole" / "out"
    length = finish(command.arguments(inputs, whole))
    expected, done, rounds, wrong, tenths = command.outcome(whole), 0, 0, [], [0] * 10
    while done < kills and time.monotonic() < deadline:
        place = folder / f"{name}.{rounds}"
        try:
            moments, took = _round(
                command.arguments(inputs, place / "out"), min(KILLS_A_ROUND, kills - done), rng, length
            )
            for moment in moments[:1]:
                tenths[int(10 * moment / length)] += 1
            done, length = done + len(moments), length if took is None else took
            if command.outcome(place / "out") != expected:
                wrong.append(f"round {rounds}: another outcome")
            if left := leftovers(place):
                wrong.append(f"round {rounds}: left {left}")
        except AssertionError as error:
            wrong.append(f"round {rounds}: {error}")
        shutil.rmtree(place, ignore_errors=True)
        rounds += 1
        counts = {"kills": done, "rounds": rounds, "processor_seconds_of_a_whole_run": round(length, 2)}
        yield {**counts, "first_kills_by_tenth_of_a_run": tenths, "wrong": wrong}


def _round(arguments: list[str], most: int, rng: random.Random, length: float) -> tuple[list[float], float | None]:
    """Kill a command up to `most` times, then let it finish.

    Returns the processor times at which it was killed, and that of a whole run if it never was [s]: it need not be that
    of the first one, which finds nothing in memory.
    """
    moments: list[float] = []
    while len(moments) < most:
        moment = rng.uniform(0, length)
        if (took := kill_once(arguments, moment)) is not None:
            return moments, None if moments else took
        moments.append(moment)
    finish(arguments)
    return moments, None


def prepare_inputs(folder: Path) -> None:
    """Demonstrations, a data set, a teacher, and a policy of one block, which is exported sooner."""
    if not (folder / "teacher" / "summary.json").exists():
        finish(["collect", "task=lift", "episodes=3", "workers=1", f"out={folder / 'demos'}"])
        finish(["prepare", f"source={folder / 'demos' / 'demos.hdf5'}", f"out={folder / 'd.zarr'}"])
        finish(_train(folder, folder / "teacher"))
    finish(_train(folder, folder / "one_block", "method=fm"))


def add_to(file: Path, command: str, counts: dict[str, Any], seed: int) -> None:
    """Add the counts of one command to a file of results."""
    known = read_json(file) if file.exists() else {}
    line = f"python -m tests.slow.kills {' '.join(sys.argv[1:])}"
    kills = {**known.get("kills", {}), command: {**counts, "seed": seed, "command": line}}
    write_json(file, {**known, "kills": kills})


def main() -> None:
    """Print a line of counts after every round, and add it to a file of results."""
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    seed = int(given.get("seed", np.random.SeedSequence().generate_state(1)[0]))
    minutes, results = float(given.get("minutes", 600)), given.get("results")
    print(f"seed={seed}", flush=True)
    preload()
    folder = Path(tempfile.mkdtemp(prefix="lfm-kills-"))
    inputs = Path(given.get("inputs", folder / "inputs"))
    try:
        if not (inputs / "one_block" / "summary.json").exists():
            prepare_inputs(inputs)
        for command in given.get("commands", ",".join(COMMANDS)).split(","):
            until = time.monotonic() + 60 * minutes
            for counts in run(command, int(given.get("kills", 100)), inputs, folder, random.Random(seed), until):
                print(f"{command}: {counts}", flush=True)
                if results:
                    add_to(Path(results), command, counts, seed)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
