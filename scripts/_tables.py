"""The paper's tables beside the measured cells in docs/results/."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lfm_policy.files import atomic_file, read_json
from lfm_policy.rollout.report import paired_comparison

TASKS = ("lift", "can", "square", "transport", "tool_hang")
NAMES = {
    "lfm": "LFM, simulation-free",
    "lfm_sequential": "LFM, sequential (Algorithm 1)",
    "lfm_combined": "LFM, combined",
    "fm": "global FM",
    "interflow": "InterFlow",
    "ddpm": "Diffusion Policy, DDPM",
    "ddim": "Diffusion Policy, DDIM",
}
PAPER = {
    "LFM": {"lift": "1.00", "can": "0.99", "square": "0.93", "transport": "0.88", "tool_hang": "0.53"},
    "FM": {"lift": "1.00", "can": "0.98", "square": "0.94", "transport": "0.81", "tool_hang": "0.52"},
}
"""Table 4 of arXiv 2410.02548 at its longest trainings: 100 rollouts, human demonstrations."""

INTRODUCTION = """# Measured results

Made by `scripts/reproduce.py` from the JSON files beside this page; each holds its command, commit, seeds, data and
cost. A rate is successes over unseen episodes (seeds 100000 …) of one fixed checkpoint, with its Wilson 95 % interval.
The demonstrations are the scripted expert's of this project, not robomimic's human ones, so the paper's row is context
and not a like-for-like comparison. "small" and "tiny" are CPU sizes (`config/size/`), "paper" is Table A.3's. Further
measurements: [notes](notes.md).
"""


def render(results: Path, console: Console) -> dict[str, Any]:
    """Write results/README.md from all cells, print them, and return them as one record."""
    cells = [read_json(file) for file in sorted((results / "table4").glob("*.json"))]
    parts = [INTRODUCTION, "## Table 4: success on robomimic\n", *_table4(cells)]
    pairs = list(_pairs(cells))
    if pairs:
        parts += ["\n## LFM minus global FM, on the same seeds\n", *pairs]
    with atomic_file(results / "README.md") as temporary:
        temporary.write_text("\n".join(parts) + "\n")
    table = Table("task", "method", "size", "success", "95 % interval", "NFE", "training", title="measured cells")
    for cell in cells:
        low, high = cell["interval"]
        method, minutes = NAMES[cell["method"]], cell["training"]["seconds"] / 60
        rate = f"{cell['success']:.2f} of {cell['episodes']}"
        interval = f"{low:.2f} … {high:.2f}"
        table.add_row(cell["task"], method, cell["size"], rate, interval, f"{cell['nfe']:g}", f"{minutes:.0f} min")
    console.print(table)
    return {"cells": cells}


def _table4(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| method | size | training | " + " | ".join(TASKS) + " |"
    yield "|---|---|---|" + "---|" * len(TASKS)
    for name, rates in PAPER.items():
        yield f"| {name}, published | 66 M | GPU | " + " | ".join(rates[task] for task in TASKS) + " |"
    rows: dict[tuple[str, str, int], dict[str, Mapping[str, Any]]] = {}
    for cell in cells:
        rows.setdefault((cell["size"], cell["method"], cell["seed"]), {})[cell["task"]] = cell
    for (size, method, seed), row in sorted(rows.items()):
        some = next(iter(row.values()))["training"]
        costs = f"{some['device']}, {some['updates']} updates a block, seed {seed}"
        numbers = " | ".join(_rate(row[task]) if task in row else "" for task in TASKS)
        yield f"| {NAMES[method]} | {size}, {some['parameters'] / 1e6:.1f} M | {costs} | {numbers} |"


def _rate(cell: Mapping[str, Any]) -> str:
    low, high = cell["interval"]
    minutes = cell["training"]["seconds"] / 60
    return (
        f"{cell['success']:.2f} [{low:.2f}, {high:.2f}] of {cell['episodes']}, NFE {cell['nfe']:g}, {minutes:.0f} min"
    )


def _pairs(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each LFM cell that has a global FM cell of the same task, size and seed."""
    baselines = {(c["task"], c["size"], c["seed"]): c for c in cells if c["method"] == "fm"}
    for cell in cells:
        baseline = baselines.get((cell["task"], cell["size"], cell["seed"]))
        if baseline is None or cell is baseline or _seeds(cell).keys() != _seeds(baseline).keys():
            continue
        pair = paired_comparison(_seeds(cell), _seeds(baseline))
        low, high = pair.interval
        yield (
            f"- {cell['task']}, {cell['size']}, {NAMES[cell['method']]}: {pair.difference:+.2f} "
            f"[{low:+.2f}, {high:+.2f}] over {pair.episodes} episodes"
        )


def _seeds(cell: Mapping[str, Any]) -> dict[int, bool]:
    first, failed = cell["first_evaluation_seed"], set(cell["failed_seeds"])
    return {seed: seed not in failed for seed in range(first, first + cell["episodes"])}
