"""What the reproduced tables have in common: the settings of a reproduction, and what a table is made of."""

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lfm_cli.stages import Stage
from lfm_policy.settings import Frozen

NAMES = {
    "lfm": "LFM, simulation-free",
    "lfm_sequential": "LFM, sequential (Algorithm 1)",
    "lfm_combined": "LFM, combined",
    "fm": "global FM",
    "interflow": "InterFlow",
    "ddpm": "Diffusion Policy, DDPM",
    "ddim": "Diffusion Policy, DDIM",
}
_ROOT = Path(__file__).parents[1]
Cells = Sequence[Mapping[str, Any]]
COSTS = ("parameters", "blocks", "mode", "samples", "updates", "batch", "seconds", "device", "threads")
"""What a cell remembers of its training's summary."""


class Settings(Frozen):
    """Settings of config/reproduce.yaml."""

    table: Literal[1, 2, 3, 4, "fig2"]
    tasks: tuple[str, ...] | None
    methods: tuple[str, ...] | None
    model: Literal["paper", "small", "tiny"]
    seed: int = Field(ge=0)
    demonstrations: int = Field(ge=2)
    source: Path | None
    masks: Path
    files: Path
    evaluations: int = Field(ge=1)
    temperature: float = Field(ge=0, allow_inf_nan=False)
    steps: int | None = Field(ge=1)
    threads: int | None = Field(ge=1)
    backend: Literal["local", "ray"]
    workers: int = Field(ge=1)
    budget_minutes: float | None = Field(gt=0)
    out: Path
    results: Path

    def run(self, task: str, method: str) -> Path:
        """The folder of one training."""
        return self.out / task / f"{self.model}_{method}_seed{self.seed}"

    @property
    def variant(self) -> str:
        """What tells evaluations of one training apart, at the end of names."""
        return "" if self.temperature == 1 else f"_temperature{self.temperature:g}"

    def training(self, task: str, method: str) -> dict[str, Any]:
        """Overrides that the trainings of all tables take."""
        values: dict[str, Any] = {"size": self.model, "seed": self.seed, "out": self.run(task, method)}
        if self.steps is not None:
            values |= {"steps": self.steps, "epochs": "null"}
        return values if self.threads is None else values | {"threads": self.threads}


@dataclass(frozen=True)
class Table:
    """One table of the paper: which cells it has, how one is measured, how all are shown."""

    folder: str
    """Of its cells in docs/results."""
    tasks: tuple[str, ...]
    """Its columns."""
    methods: Mapping[str, Mapping[str, str]]
    """Its rows, with the overrides of each training."""
    chosen: tuple[tuple[str, ...], tuple[str, ...]]
    """Tasks and methods unless told otherwise."""
    stages: Callable[[Settings, str, str], Iterator[Stage]]
    """The scripts that a cell is made of."""
    cell: Callable[[Sequence[Stage]], dict[str, Any]]
    """What they measured."""
    section: Callable[[Cells], Iterator[str]]
    """Markdown lines."""
    number: Callable[[Mapping[str, Any]], str]
    """A cell in a few characters."""
    closing: Callable[[Settings, str, Sequence[str]], Stage] | None = None
    """A script that shows the methods of a task together."""


def by_task(cells: Cells) -> Cells:
    """Cells in the order of tables with a row each."""
    return sorted(cells, key=lambda cell: (cell["task"], cell["size"], cell["method"]))


def trained(cell: Mapping[str, Any], digits: int = 2) -> str:
    """The first columns of a cell's row: task, method, size in millions to so many digits, training."""
    training = cell["training"]
    size = f"{cell['size']}, {training['parameters'] / 1e6:.{digits}f} M"
    minutes = f"{training['seconds'] / 60:.0f} min"
    cost = f"{training['device']}, {training['updates']} updates of {training['batch']}, {minutes}"
    return f"| {cell['task']} | {NAMES[cell['method']]} | {size} | {cost}, seed {cell['seed']} |"


def commit() -> str:
    """The checkout's commit, marked when files differ from it, other than results."""

    def git(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *command], cwd=_ROOT, check=check, capture_output=True, text=True)

    try:
        name = git("describe", "--always", "--abbrev=12", "--exclude=*").stdout.strip()
        changed = git("diff", "--quiet", "HEAD", "--", ".", ":(exclude)docs/results", check=False).returncode
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "unknown: not a git checkout"
    return f"{name}-dirty" if changed else name
