"""Reproduce a table of the paper: train, evaluate and tabulate, cell by cell, in as many sittings as it takes.

    python scripts/reproduce.py table=4 tasks=[lift,can] methods=[lfm,fm] model=small budget_minutes=60

Every cell becomes one JSON file under docs/results/, and all of them together docs/results/README.md. Run the same
command again to continue: finished cells are kept, the unfinished one goes on.
"""

import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import _cli
from _stages import OutOfTime, Stage, run
from _tables import render
from pydantic import Field
from rich.console import Console

from lfm_policy.errors import ConfigError, nearest
from lfm_policy.files import read_json, write_json
from lfm_policy.settings import Frozen

UNSEEN = 100_000
"""First seed of the evaluation."""

METHODS: Mapping[str, Mapping[str, str]] = {
    "lfm": {"method": "lfm"},
    "lfm_sequential": {"method": "lfm", "flow.mode": "sequential"},
    "lfm_combined": {"method": "lfm", "flow.mode": "combined"},
    "fm": {"method": "fm"},
    "interflow": {"method": "interflow"},
    "ddpm": {"method": "ddpm"},
    "ddim": {"method": "ddim"},
}
TASKS = ("lift", "can", "square", "transport", "tool_hang")


class Settings(Frozen):
    """Settings of config/reproduce.yaml."""

    table: Literal[4]
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    model: Literal["paper", "small", "tiny"]
    seed: int = Field(ge=0)
    demonstrations: int = Field(ge=2)
    source: Path | None
    evaluations: int = Field(ge=1)
    steps: int | None = Field(ge=1)
    threads: int | None = Field(ge=1)
    workers: int = Field(ge=1)
    budget_minutes: float | None = Field(gt=0)
    out: Path
    results: Path


def main(settings: Settings) -> None:
    """Run the cells that are not finished, then render all results there are."""
    for kind, names, known in (("task", settings.tasks, TASKS), ("method", settings.methods, METHODS)):
        for name in names:
            if name not in known:
                raise ConfigError(f"unknown {kind} '{name}': {nearest(name, known)}")
    console = Console()
    deadline = None if settings.budget_minutes is None else time.monotonic() + 60 * settings.budget_minutes
    try:
        for task, method in ((task, method) for task in settings.tasks for method in settings.methods):
            file = settings.results / "table4" / f"{settings.model}_{task}_{method}_seed{settings.seed}.json"
            records = settings.out / task / f"{settings.model}_{method}_seed{settings.seed}.stages.json"
            chain = list(stages(settings, task, method))
            for stage in chain:
                shared = stage.name in ("collect", "prepare")
                run(stage, settings.out / task / "data.stages.json" if shared else records, deadline)
            write_json(file, cell(settings, task, method, chain))
    except OutOfTime as error:
        console.print(str(error), highlight=False)
    summary = render(settings.results, console)
    write_json(settings.out / "summary.json", summary)


def stages(settings: Settings, task: str, method: str) -> Iterator[Stage]:
    """The scripts that a cell is made of."""
    s, folder = settings, settings.out / task
    source, before = s.source, None
    if source is None:
        demos = {"task": task, "episodes": s.demonstrations, "seed": 0, "workers": s.workers, "out": folder / "demos"}
        before = Stage("collect", demos)
        source = folder / "demos" / "demos.hdf5"
        yield before
    before = Stage("prepare", {"source": source, "out": folder / "data.zarr"}, before)
    yield before
    model = folder / f"{s.model}_{method}_seed{s.seed}"
    training = {"experiment": f"robot/{task}", "size": s.model, **METHODS[method], "seed": s.seed}
    training |= {"data.path": folder / "data.zarr", "out": model}
    if s.steps is not None:
        training |= {"steps": s.steps, "epochs": "null"}
    if s.threads is not None:
        training |= {"threads": s.threads}
    before = Stage("train", training, before)
    yield before
    evaluation = {"checkpoint": model, "episodes": s.evaluations, "seed": UNSEEN, "workers": s.workers, "videos": 0}
    yield Stage("evaluate", {**evaluation, "out": folder / f"{model.name}_evaluation"}, before)


def cell(settings: Settings, task: str, method: str, chain: list[Stage]) -> dict[str, Any]:
    """What one cell measured, and how."""
    train, evaluation = (read_json(stage.overrides["out"] / "summary.json") for stage in chain[-2:])
    data = read_json(chain[-3].overrides["out"] / "summary.json")
    keys = ("success", "interval", "episodes", "failed_seeds", "mean_steps", "nfe", "ms_per_chunk")
    costs = ("parameters", "blocks", "mode", "updates", "epochs", "batch", "seconds", "device", "threads")
    return {
        "table": 4,
        "task": task,
        "method": method,
        "size": settings.model,
        "seed": settings.seed,
        "first_evaluation_seed": UNSEEN,
        **{key: evaluation[key] for key in keys},
        "training": {key: train[key] for key in costs},
        "data": data,
        "commands": [f"python scripts/{' '.join(command)}" for command in chain[-1].history],
        "commit": _commit(),
    }


def _commit() -> str:
    """The checkout's commit, marked when files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(
            command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True
        ).stdout.strip()
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "unknown: not a git checkout"


if __name__ == "__main__":
    _cli.run("reproduce", Settings, main, __doc__)
