"""The tables that verbs end with: numbers with their units, readable in 80 columns."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

LONGEST = 200
"""Letters of a value that a table shows; summary.json has all of it."""


def pairs(title: str, values: Mapping[str, Any], units: Mapping[str, str] | None = None) -> Table:
    """Make a table with a row per value; records inside are named with dots, and what is unknown is left out."""
    table = Table(title=escape(title), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _flat(values):
        unit = (units or {}).get(name, "")
        table.add_row(name.replace("_", " "), escape(f"{text(value)} {unit}".strip()))
    return table


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif value is not None:
            yield name, value


def text(value: Any) -> str:
    """Write a value as one reads it: numbers to four digits, lists with spaces between."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    found = " ".join(text(item) for item in value) if isinstance(value, list | tuple) else str(value)
    return found if len(found) <= LONGEST else f"{found[:LONGEST]} … (summary.json has all of it)"


def show_training(summary: Mapping[str, Any], out: Path) -> None:
    """Print what was trained, at what cost, and how good it is."""
    from rich.console import Console

    values = {key: value for key, value in summary.items() if key not in ("network", "digest", "data", "source")}
    console = Console()
    units = {"seconds": "s", "peak_memory_mb": "MB", "updates": "per block", "batch": "samples"}
    console.print(pairs(summary["name"], {k: v for k, v in values.items() if k != "name"}, units))
    console.print(f"all of it: {out / 'summary.json'}", markup=False, highlight=False, soft_wrap=True)


def grid(title: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    """Make a table whose names may break over lines, and whose numbers never do."""
    table = Table(title=escape(title), title_justify="left")
    for column in names:
        table.add_column(escape(column), overflow="fold")
    for column in numbers:
        table.add_column(escape(column), justify="right", no_wrap=True)
    return table


def pareto(rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """Yield tables: quality, then cost, a row per model; * marks those that no other beats in both quality and time."""
    policies = "success" in rows[0]
    kind = ("success", "95 %", "minus reference") if policies else ("energy distance", "floor", "NLL [nats]")
    quality = grid("quality (* no other is both better and faster)", ("model",), ("NFE", *kind))
    for row in rows:
        quality.add_row(escape(f"{row['name']}{' *' if row['best'] else ''}"), str(row["nfe"]), *_quality(row))
    yield quality
    columns = ("p50 [ms]", "p95 [ms]", "p99 [ms]", "waiting", "ahead")
    cost = grid("time of a call, and highest control rate: waiting for it, or one ahead [Hz]", ("model",), columns)
    for row in rows:
        time, rate = row["latency_ms"], row["highest_rate_hz"]
        times = (f"{time[key]:.1f}" for key in ("p50", "p95", "p99"))
        cost.add_row(escape(row["name"]), *times, f"{rate['waiting']:.0f}", f"{rate['one_chunk_ahead']:.0f}")
    yield cost


def _quality(row: Mapping[str, Any]) -> list[str]:
    if "success" in row:
        low, high = row["interval"]
        pair = row["difference"]
        least, most = (0.0, 0.0) if pair is None else pair["interval"]
        more = "reference" if pair is None else f"{pair['difference']:+.2f} \\[{least:+.2f}, {most:+.2f}]"
        return [f"{row['success']:.3f}", f"{low:.2f} … {high:.2f}", more]
    nll = "" if row["nll"] is None else f"{row['nll']:.3f}"
    return [f"{row['energy_distance']:.4f}", f"{row['energy_distance_floor']:.4f}", nll]


def monitor(results: Mapping[str, Any]) -> Table:
    """Make a table with a row per score and disturbance."""
    title = "how well each score tells disturbed episodes from others"
    table = grid(title, ("score", "disturbance"), ("noticed", "after", "balanced", "95 %", "AUROC", "ms"))
    for name, row in results.items():
        false = row["false_alarms"]
        table.add_row(name, "none", f"{false['count']}/{false['of']}", "", "", "", "", f"{row['ms']:.0f}")
        for kind, found in (row["disturbances"] | {"all": row["all"]}).items():
            low, high = found["interval"]
            noticed, after = found["noticed_share"], found.get("steps_to_alarm")
            table.add_row(
                "",
                kind,
                f"{noticed['count']}/{noticed['of']}",
                "" if after is None else f"{after:.0f}",
                f"{found['balanced_accuracy']:.2f}",
                f"{low:.2f} … {high:.2f}",
                f"{found['auroc']:.2f}" if "auroc" in found else "",
                "",
            )
    return table


def rendered(summary: Mapping[str, Any]) -> Table:
    """Make a table of what was drawn, and how fast."""
    cameras = summary["cameras"]
    names = ", ".join(camera["name"] for camera in cameras)
    shape = f"{cameras[0]['height']} x {cameras[0]['width']} pixels, {cameras[0]['drawing']}"
    values = {
        "cameras": f"{names} ({shape})",
        "pictures": summary["pictures"],
        "seconds": f"{summary['seconds']:.0f} ({summary['cpu_seconds']:.0f} s of processors in the workers)",
        "file": summary["file"],
    }
    return pairs("pictures of demonstrations", values)


def densities(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Make a table with a row per run on a density."""
    title = "negative log-likelihood (NLL) [nats]; evaluations per log p, per sample (NFE)"
    table = grid(title, ("run", "method"), ("NLL", "±", "floor", "log p", "sample", "size"))
    for row in rows:
        numbers = (f"{row[key]:.3f}" for key in ("nll", "nll_standard_error", "floor"))
        counts = (text(row[key]) for key in ("nfe_likelihood", "nfe_sample"))
        method = row["method"] if row["method"] != "lfm" else f"lfm, {str(row['mode']).replace('_', ' ')}"
        table.add_row(escape(row["run"]), method, *numbers, *counts, f"{row['parameters'] / 1e6:.2f} M")
    return table


def pictures(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Make a table with a column per run, a row per measure."""
    table = Table("", *(escape(row["run"]) for row in rows), title="generated pictures")
    for key in [key for key in rows[0] if key not in ("run", "solver")]:
        table.add_row(key.replace("_", " "), *("" if row.get(key) is None else text(row[key]) for row in rows))
    return table


def blocks(summary: Mapping[str, Any], each: int = 5) -> Iterator[Table]:
    """Yield tables with a column per block, `each` of them in a table; a row per measure."""
    found = summary["blocks"]
    for first in range(0, len(found), each):
        part = found[first : first + each]
        table = Table("", *(f"block {row['block']}" for row in part), title=summary["name"])
        for key, name in MEASURES.items():
            if any(row[key] is not None for row in part):
                table.add_row(name, *(_measured(row, key) for row in part))
        yield table


def _measured(row: Mapping[str, Any], key: str) -> str:
    if row[key] is None:
        return ""
    return f"{row['kl']:.3f} ± {row['kl_error']:.3f}" if key == "kl" else f"{row[key]:.3g}"


MEASURES = {
    "gamma": "OU step γ",
    "loss": "matching loss",
    "distance": "distance to the OU target",
    "distance_of_equals": "the same, of equals",
    "kl": "KL divergence to noise",
    "contraction": "its contraction",
    "speed": "speed",
    "curvature": "curvature",
    "one_step": "error of one Euler step",
    "inversion": "inversion error",
}
"""The fields of `BlockReport` that are shown, and what they are called."""
