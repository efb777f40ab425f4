"""What the reproduced tables have in common: the settings of a reproduction, and what a table is made of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lfm_cli.stages import Stage
from lfm_policy.choices import Place, Size
from lfm_policy.settings import Frozen

NAMES = {
    "lfm": "LFM, simulation-free",
    "lfm_sequential": "LFM, sequential (Algorithm 1)",
    "lfm_combined": "LFM, combined",
    "lfm_linear": "LFM, simulation-free, straight paths",
    "fm": "global FM",
    "interflow": "InterFlow",
    "shared": "one network for all blocks",
    "regression": "regression",
    "mip": "minimal iterative policy",
    "shortcut": "shortcut model",
    "ddpm": "Diffusion Policy, DDPM",
    "ddim": "Diffusion Policy, DDIM",
}
Cells = Sequence[Mapping[str, Any]]
COSTS = ("parameters", "blocks", "mode", "samples", "updates", "batch", "seconds", "device", "threads")
"""What a cell remembers of its training's summary."""


class Settings(Frozen):
    """Which cells of which table, and at what size."""

    table: Literal[1, 2, 3, 4, "fig2"] = Field(
        default=4,
        description="1: likelihood on tables; 2, 3: pictures; 4: success rates on robomimic; fig2: likelihood in the "
        "plane",
    )
    tasks: tuple[str, ...] | None = Field(
        default=None,
        description="for table 4: lift, can, square, transport, tool_hang; fig2: tree, rose, tree_grid, two_moons, …; "
        "1: power, gas, miniboone, bsds300, patches; 2, 3: cifar10, imagenet32, flowers128, …; null: the paper's",
    )
    methods: tuple[str, ...] | None = Field(
        default=None,
        description="lfm, lfm_sequential, lfm_combined, shared, fm, interflow; of 2, 3 lfm_linear too; of 4 also "
        "regression, mip, shortcut, ddpm, ddim; null: the paper's",
    )
    size: Size = Field(default="paper", description="how large the networks, how long the training")
    seed: int = Field(default=0, ge=0, description="seed of the training")
    demonstrations: int = Field(default=200, ge=2, description="scripted demonstrations to collect, for table 4")
    source: Place | None = Field(
        default=None,
        description="an HDF5 file to learn from in their place, for table 4, such as robomimic's (lfm download)",
    )
    masks: Place = Field(default=Path("data/masks"), description="folder of tree.png and rose.png, for fig2")
    files: Place = Field(
        default=Path("data"),
        description="for tables 1, 2, 3: folder of the tables and pictures, laid out as data/README.md says",
    )
    evaluations: int = Field(default=100, ge=1, description="unseen episodes, seeds 100000 …, for table 4")
    temperature: float = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="for table 4: deviation of the noise that policies act from; another than 1 is a cell of its own",
    )
    updates: int | None = Field(default=None, ge=1, description="updates of each block; null: those of the size")
    threads: int | None = Field(
        default=1, ge=1, description="CPU threads of a training; more than one pays only on idle cores"
    )
    backend: Literal["local", "ray"] = Field(
        default="local", description="where table 4 is evaluated; ray: on the CPUs of a cluster"
    )
    workers: int = Field(default=2, ge=1, description="simulator processes")
    budget_minutes: float | None = Field(
        default=None, gt=0, description="stop after this long; the same command continues later [min]"
    )
    out: Place = Field(default=Path("outputs/reproduce"), description="runs, data and evaluations")
    results: Place = Field(
        default=Path("docs/results"), description="one JSON file per cell, and README.md, rendered from all of them"
    )

    def run(self, task: str, method: str) -> Path:
        """Return the folder of one training."""
        return self.out / task / f"{self.size}_{method}_seed{self.seed}"

    @property
    def variant(self) -> str:
        """What tells evaluations of one training apart, at the end of names."""
        return "" if self.temperature == 1 else f"_temperature{self.temperature:g}"

    def training(self, task: str, method: str) -> dict[str, Any]:
        """Return overrides that the trainings of all tables take."""
        values: dict[str, Any] = {"size": self.size, "seed": self.seed, "out": self.run(task, method)}
        if self.updates is not None:
            values |= {"updates": self.updates}
        return values if self.threads is None else values | {"threads": self.threads}


@dataclass(frozen=True)
class Table:
    """One table of the paper: which cells it has, how one is measured, how all are shown."""

    folder: str
    """Folder of its cells in docs/results."""
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
    """Return cells in the order of tables with one row each."""
    return sorted(cells, key=lambda cell: (cell["task"], cell["size"], cell["method"]))


def trained(cell: Mapping[str, Any], digits: int = 2) -> str:
    """Write the first columns of a cell's row: task, method, size in millions to so many digits, training."""
    training = cell["training"]
    size = f"{cell['size']}, {training['parameters'] / 1e6:.{digits}f} M"
    minutes = f"{training['seconds'] / 60:.0f} min"
    cost = f"{training['device']}, {training['updates']} updates of {training['batch']}, {minutes}"
    return f"| {cell['task']} | {NAMES[cell['method']]} | {size} | {cost}, seed {cell['seed']} |"
