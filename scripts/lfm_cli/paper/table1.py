"""Table 1 of the paper: negative log-likelihood on tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lfm_cli.paper.fig2 import METHODS
from lfm_cli.paper.tables import COSTS, Cells, Settings, Table, by_task, trained
from lfm_cli.stages import Stage
from lfm_policy.files import read_json

FILES = {
    "power": "power/data.npy",
    "gas": "gas/ethylene_CO.npy",
    "miniboone": "miniboone/data.npy",
    "bsds300": "BSDS300/BSDS300.hdf5",
    "patches": "tabular/bsds_patches_8x8.npz",
}
"""Below the folder `files`; patches are BSDS300's recipe on other patches, and no column of the paper."""
PAPER = {
    "LFM": {"power": "-0.67", "gas": "-12.43", "miniboone": "9.95", "bsds300": "-157.80"},
    "InterFlow": {"power": "-0.57", "gas": "-12.35", "miniboone": "10.42", "bsds300": "-156.22"},
    "best other": {
        "power": "-1.78 (nMDMA)",
        "gas": "-12.06 (BNAF)",
        "miniboone": "8.95 (BNAF)",
        "bsds300": "-157.75 (JKO-iFlow)",
    },
}


def _stages(settings: Settings, task: str, method: str) -> Iterator[Stage]:
    training = {"experiment": f"tabular/{task}", **METHODS[method], "data.path": settings.files / FILES[task]}
    yield Stage("train", training | settings.training(task, method))


def _cell(chain: Sequence[Stage]) -> dict[str, Any]:
    train = read_json(chain[-1].overrides["out"] / "summary.json")
    likelihood = ("nll", "nll_standard_error", "valid_nll", "valid_nll_standard_error", "test_points", "valid_points")
    others = ("divergence", "as_published", "source", "nfe_likelihood", "nfe_sample")
    return {
        **{key: train[key] for key in (*likelihood, *others)},
        "training": {key: train[key] for key in COSTS},
        "data": {key: value for key, value in train["data"].items() if key != "path"},
    }


def _section(cells: Cells) -> Iterator[str]:
    yield "## Table 1: negative log-likelihood on tables\n"
    yield "Nats, ± one standard error over the test points; validation beside it. The preparation is MAF's"
    yield "(`lfm_policy/data/tables.py`). `patches` are grey 8 x 8 patches by BSDS300's recipe: near BSDS300, not"
    yield "equal to it. Equal parameters and updates within a size.\n"
    yield "| table | method | size | training | test NLL | validation NLL | NFE |"
    yield "|---|---|---|---|---|---|---|"
    for name, row in PAPER.items():
        yield from (f"| {task} | {name}, published | | | {value} | | |" for task, value in row.items())
    for cell in by_task(cells):
        numbers = f"{_nll(cell)} | {cell['valid_nll']:.2f} | {cell['nfe_likelihood']}"
        yield f"{trained(cell)} {numbers} |"


def _nll(cell: Mapping[str, Any]) -> str:
    return f"{cell['nll']:.2f} ± {cell['nll_standard_error']:.2f}"


def _number(cell: Mapping[str, Any]) -> str:
    return f"test NLL {_nll(cell)}, validation {cell['valid_nll']:.2f}, NFE {cell['nfe_likelihood']}"


TABLE = Table(
    "table1",
    tuple(FILES),
    METHODS,
    (tuple(PAPER["LFM"]), ("lfm_sequential", "lfm", "fm", "interflow")),
    _stages,
    _cell,
    _section,
    _number,
)
