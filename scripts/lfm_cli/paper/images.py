"""Tables 2 and 3 of the paper: Fréchet distances on pictures, and after distillation."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lfm_cli.paper import fig2
from lfm_cli.paper.tables import COSTS, NAMES, Cells, Settings, Table, by_task, trained
from lfm_cli.stages import Stage
from lfm_policy.files import read_json

FILES = {
    "cifar10": "cifar-10-batches-bin",
    "cifar10_subset": "images/cifar10_subset.npz",
    "imagenet32": "imagenet32",
    "flowers128": "flowers",
    "lsun_church128": "lsun_church",
}
"""Below the folder `files`; the subset of CIFAR-10 is no column of the paper."""
METHODS: Mapping[str, Mapping[str, str]] = {
    **fig2.METHODS,
    "lfm_linear": {"method": "lfm", "flow.interpolant": "linear"},
}
"""Of chains both interpolants, as of global flows: InterFlow's path is LFM's, FM's is straight."""
COMPARED = {"lfm": ("interflow", "shared"), "lfm_linear": ("fm",)}
"""Of each method those with the same path."""
STUDENTS = (4, 2)
"""Network evaluations after distillation."""
DISTILLATION = {"paper": 20_000, "small": 500, "tiny": 100}
"""Updates of each block."""
PAPER = {
    2: (
        "| cifar10 | LFM, published | 160 M | 50000 batches of 200 | FID 8.45 | |",
        "| cifar10 | InterFlow, published | 160 M | 500000 batches of 400 | FID 10.27 | |",
        "| imagenet32 | LFM, published | 120 M | 200000 batches of 256 | FID 7.00 | |",
        "| imagenet32 | InterFlow, published | 120 M | 600000 batches of 512 | FID 8.49 | |",
    ),
    3: (
        "| flowers128 | LFM, published | 464 M | 40000 batches of 40 | FID 59.7; 71.0, 75.2 distilled | 4, 2 |",
        "| flowers128 | InterFlow, published | 464 M | | FID 59.7; 80.0, 82.4 distilled | 4, 2 |",
    ),
}


def _stages(settings: Settings, task: str, method: str, distilled: bool) -> Iterator[Stage]:
    model = settings.run(task, method)
    training = {"experiment": f"image/{task.removesuffix('_subset')}", **METHODS[method]}
    training |= {"data.path": settings.files / FILES[task]}
    before = Stage("train", training | settings.training(task, method))
    yield before
    students = []
    for blocks in STUDENTS if distilled else ():
        students.append(model.with_name(f"{model.name}_{blocks}"))
        updates = DISTILLATION[settings.size] if settings.updates is None else settings.updates
        values = {
            "policy": model,
            "blocks": blocks,
            "out": students[-1],
            "updates": updates,
            "batch": 32,
            "draws": 2,
        }
        before = Stage(f"distill_{blocks}", values, before)
        yield before
    report = {"runs": [model], "students": students, "out": model.with_name(f"{model.name}_report")}
    yield Stage("report_images", report, before)


def _cell(chain: Sequence[Stage]) -> dict[str, Any]:
    train = read_json(chain[0].overrides["out"] / "summary.json")
    rows = read_json(chain[-1].overrides["out"] / "summary.json")["runs"]
    return {
        "measured": [{key: value for key, value in row.items() if key != "run"} for row in rows],
        "training": {key: train[key] for key in COSTS},
        "data": {key: value for key, value in train["data"].items() if key not in ("path", "classifiers")},
    }


def _section(cells: Cells, table: int) -> Iterator[str]:
    yield f"## Table {table}: " + ("generated pictures\n" if table == 2 else "generated pictures, and distilled\n")
    yield "Lower is better. The classifier Fréchet distance takes the features of a small classifier trained on the"
    yield "same pictures: it is no FID, and comparable only within one data set. After /: test pictures in the place of"
    yield "generated ones.\n"
    yield "| pictures | method | size | training | distance | NFE |"
    yield "|---|---|---|---|---|---|"
    yield from PAPER[table]
    for cell in by_task(cells):
        numbers = "; ".join(_distance(row) for row in cell["measured"])
        evaluations = ", ".join(str(row["nfe_sample"]) for row in cell["measured"])
        yield f"{trained(cell, 1)} {numbers} | {evaluations} |"
    lines = list(_ratios(cells))
    if lines:
        yield ""
    yield from lines


def _ratios(cells: Cells) -> Iterator[str]:
    """Yield the distance of LFM over that of methods with the same path, where two seeds or more have both."""
    from scipy.stats import t  # a second, which asking for help should not wait for

    found: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for cell in by_task(cells):
        methods = found.setdefault((cell["task"], cell["size"]), {})
        methods.setdefault(cell["method"], {})[cell["seed"]] = cell["measured"][0]["classifier_frechet"]
    for (task, size), methods in found.items():
        pairs = [(name, other) for name, others in COMPARED.items() for other in others]
        for name, method in pairs:
            ours, theirs = methods.get(name, {}), methods.get(method, {})
            seeds = sorted(ours.keys() & theirs.keys())
            if len(seeds) < 2:
                continue
            logs = np.log([ours[seed] / theirs[seed] for seed in seeds])
            mean, reach = logs.mean(), t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs))
            low, ratio, high = (f"{value:.2f}" for value in np.exp([mean - reach, mean, mean + reach]))
            yield f"{task}, {size}: distance of {NAMES[name]}, over that of {NAMES[method]}, on {len(seeds)} seeds: "
            yield f"{ratio} [{low}, {high}] (geometric mean, 95 % t interval)."


def _distance(row: Mapping[str, Any]) -> str:
    classifier = f"classifier {row['classifier_frechet']:.2f} / {row['classifier_frechet_of_test']:.2f}"
    return f"FID {row['fid']:.2f}, {classifier}" if "fid" in row else classifier


def _number(cell: Mapping[str, Any]) -> str:
    return "; ".join(f"{_distance(row)}, NFE {row['nfe_sample']}" for row in cell["measured"])


def _table(number: int, chosen: tuple[str, ...]) -> Table:
    stages: Callable[[Settings, str, str], Iterator[Stage]] = partial(_stages, distilled=number == 3)
    section: Callable[[Cells], Iterator[str]] = partial(_section, table=number)
    methods = ("lfm", "interflow")
    return Table(f"table{number}", tuple(FILES), METHODS, (chosen, methods), stages, _cell, section, _number)


TABLES = {2: _table(2, ("cifar10", "imagenet32")), 3: _table(3, ("flowers128",))}
