"""The HTML report of a distillation, and that of a teacher and its students."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lfm_policy.reports.charts import Curve, chart
from lfm_policy.reports.page import (
    PAGE,
    Facts,
    Lines,
    Origin,
    Part,
    Pictures,
    Rates,
    Sheet,
    flat,
    pictures_in,
    rate_in,
    write_page,
)
from lfm_policy.training.log import read_metrics

_COSTS = ("parameters", "blocks", "nfe", "updates", "batch", "cached", "seconds", "device", "threads")


def write_distillation(summary: Mapping[str, Any], out: Path, origin: Origin) -> str | None:
    """Write `out`/report.html from a distillation's summary and its metrics.

    Args:
        summary: as in summary.json, with "success" and "teacher_success" where both were evaluated.
        out: folder of the distillation.
        origin: what made it.

    Returns:
        Why there is no page, or None.
    """
    fidelity = summary["fidelity"]
    lists = {name: value for name, value in fidelity.items() if isinstance(value, list | tuple)}
    parts: list[Part] = [
        *_success(summary),
        Facts("Faithfulness to the teacher", flat({k: v for k, v in fidelity.items() if k not in lists})),
        Pictures("Error along the chunk", _along(fidelity["error_by_step"])),
        Pictures("Loss of each block", _losses(out / "metrics.jsonl")),
        Facts("Cost", [(name, summary[name]) for name in _COSTS if summary.get(name) is not None]),
        *_made(summary, origin),
    ]
    return write_page(out / PAGE, f"Distillation: {summary['name']}", parts)


def write_pareto(summary: Mapping[str, Any], out: Path, origin: Origin) -> str | None:
    """Write `out`/report.html of a teacher and its students, from `lfm pareto`'s summary and picture.

    Returns:
        Why there is no page, or None.
    """
    rows: Sequence[Mapping[str, Any]] = summary["rows"]
    rates = [rate_in(row["name"], row) for row in rows if "success" in row]
    columns = ("model", "best", "NFE", "quality", "p50 [ms]", "p95 [ms]", "parameters", "solver", "digest")
    note = "Best: no other model is both better and faster. Quality: success, or the energy distance to the data."
    parts: list[Part] = [
        Rates("Success on the same seeds", rates, f"Differences are from {summary['reference']}."),
        Sheet("Quality, evaluations, time", columns, [_row(row) for row in rows], note),
        Pictures("Quality against cost", pictures_in(out / (summary["picture"] or "pareto.png"))),
        _seeds(rows),
        Lines("Command", [origin["command"]] if "command" in origin else []),
        Facts("What was run", [("commit", origin.get("commit")), *((row["name"], row["checkpoint"]) for row in rows)]),
    ]
    return write_page(out / PAGE, "Quality against evaluations against time", parts)


def _success(summary: Mapping[str, Any]) -> Iterator[Part]:
    if "success" not in summary:
        return
    difference = flat(summary["difference"])
    yield Rates("Success", [rate_in("student", summary["success"]), rate_in("teacher", summary["teacher_success"])])
    yield Facts("Student minus teacher, on the same seeds", difference)


def _along(errors: Sequence[float]) -> list[Any]:
    steps = list(range(len(errors)))
    return (
        chart({"student against teacher": Curve(steps, list(errors))}, "step of the chunk", "error")
        if steps[1:]
        else []
    )


def _losses(path: Path) -> list[Any]:
    """Draw the loss of every block over the updates, as it was logged."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for record in read_metrics(path):
        for name, value in record.items():
            if name.startswith("loss/") and value is not None:
                x, y = curves.setdefault(name.removeprefix("loss/"), ([], []))
                x.append(record["step"])
                y.append(value)
    return chart({name: Curve(x, y) for name, (x, y) in curves.items()}, "update", "loss", log=True)


def _made(summary: Mapping[str, Any], origin: Origin) -> Iterator[Part]:
    yield Lines("Command", [origin["command"]] if "command" in origin else [])
    names = ("target", "seed", "digest", "teacher")
    yield Facts("What was run", [("commit", origin.get("commit")), *flat({name: summary[name] for name in names})])


def _row(row: Mapping[str, Any]) -> list[Any]:
    quality = row["success"] if "success" in row else row["energy_distance"]
    time, solver = row["latency_ms"], row["solver"]
    return [
        row["name"],
        row["best"],
        row["nfe"],
        quality,
        time["p50"],
        time["p95"],
        row["parameters"],
        f"{solver['method']}, steps per block: {solver['steps']}",
        row["digest"],
    ]


def _seeds(rows: Sequence[Mapping[str, Any]]) -> Sheet:
    """Make a table with a row per seed and a column per model."""
    found = [row for row in rows if "failed_seeds" in row]
    seeds = range(found[0]["first_seed"], found[0]["first_seed"] + found[0]["episodes"]) if found else range(0)
    failed = [set(row["failed_seeds"]) for row in found]
    cells = [[seed, *(seed not in bad for bad in failed)] for seed in seeds]
    return Sheet("Seed by seed", ("seed", *(row["name"] for row in found)), cells)
