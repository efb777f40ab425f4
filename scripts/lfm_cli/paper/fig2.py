"""Figure 2 of the paper: negative log-likelihood on densities in the plane, and pictures of samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lfm_cli.paper.tables import COSTS, Cells, Settings, Table, by_task, trained
from lfm_cli.stages import Stage
from lfm_policy.files import read_json

METHODS: Mapping[str, Mapping[str, str]] = {
    "lfm": {"method": "lfm", "flow.mode": "simulation_free"},
    "lfm_sequential": {"method": "lfm", "flow.mode": "sequential"},
    "lfm_combined": {"method": "lfm", "flow.mode": "combined"},
    "shared": {"method": "shared"},
    "fm": {"method": "fm"},
    "interflow": {"method": "interflow"},
}
MASKS = ("tree", "tree_grid", "rose", "rose_grid")
ANALYTIC = ("checkerboard", "eight_gaussians", "gaussian", "pinwheel", "two_moons")
PAPER = {"LFM": ("2.24", "2.60"), "FM": ("2.35", "2.64"), "InterFlow": ("2.36", "2.64")}
"""NLL on tree and rose after 50000 batches of 10000; 1.20 M parameters."""


def _stages(settings: Settings, task: str, method: str) -> Iterator[Stage]:
    training = {"experiment": f"2d/{task}", **METHODS[method]}
    if task in MASKS:
        training |= {"data.mask": settings.masks / f"{task.removesuffix('_grid')}.png"}
    yield Stage("train", training | settings.training(task, method))


def _cell(chain: Sequence[Stage]) -> dict[str, Any]:
    train = read_json(chain[-1].overrides["out"] / "summary.json")
    keys = ("nll", "nll_standard_error", "valid_nll", "floor", "nfe_likelihood", "nfe_sample")
    return {
        **{key: train[key] for key in keys},
        "training": {key: train[key] for key in COSTS},
        "data": {key: value for key, value in train["data"].items() if key != "mask"},
    }


def _closing(settings: Settings, task: str, methods: Sequence[str]) -> Stage:
    """Make one report on all methods of a task: a function of all their trainings."""
    before = None
    for method in methods:
        (train,) = _stages(settings, task, method)
        before = replace(train, after=before)
    runs = [settings.run(task, method) for method in methods]
    out = settings.results / "fig2" / f"{settings.size}_{task}_seed{settings.seed}"
    points = 2_000 if settings.size == "tiny" else 20_000
    return Stage("report_density", {"runs": runs, "points": points, "out": out}, before)


def _section(cells: Cells) -> Iterator[str]:
    yield "## Figure 2: negative log-likelihood in the plane\n"
    yield "Nats on unseen points, ± one standard error; the floor is the density's entropy. Grids: the velocity reads"
    yield "learned grids, a network of this project and not the paper's MLP. Equal parameters and updates in a size.\n"
    yield "| density | method | size | training | NLL | floor | NFE |"
    yield "|---|---|---|---|---|---|---|"
    for name, (tree, rose) in PAPER.items():
        yield f"| tree, rose | {name}, published | 1.2 M | 50000 updates of 10000 | {tree}, {rose} | 1.95, 2.49 | |"
    for cell in by_task(cells):
        numbers = f"{_nll(cell)} | {cell['floor']:.3f} | {cell['nfe_sample']}"
        own = cell["task"].endswith("_grid") and cell["size"] == "paper"  # no row of the paper has such a network
        yield f"{trained({**cell, 'size': 'grid'} if own else cell)} {numbers} |"


def _nll(cell: Mapping[str, Any]) -> str:
    return f"{cell['nll']:.3f} ± {cell['nll_standard_error']:.3f}"


def _number(cell: Mapping[str, Any]) -> str:
    return f"NLL {_nll(cell)}, floor {cell['floor']:.3f}, NFE {cell['nfe_sample']}"


TABLE = Table(
    "fig2",
    (*MASKS, *ANALYTIC),
    METHODS,
    (("tree", "rose"), tuple(METHODS)),
    _stages,
    _cell,
    _section,
    _number,
    _closing,
)
