"""The HTML report of a reproduction: all measured cells, table by table."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lfm_cli.paper.tables import NAMES, Cells, Table
from lfm_policy.reports.page import PAGE, Cell, Facts, Lines, Origin, Part, Rates, Sheet, rate_in, write_page


def write_reproduction(tables: Sequence[tuple[Table, Cells]], results: Path, origin: Origin) -> str | None:
    """Write report.html into the folder of results; returns why there is none, or None."""
    parts = [part for table, cells in tables if cells for part in _parts(table, cells)]
    made = [
        Lines("Command", [origin["command"]]),
        Facts("What wrote this page", [("commit", origin["commit"])]),
    ]
    return write_page(results / PAGE, "Measured results", [*parts, *made])


def _parts(table: Table, cells: Cells) -> Iterator[Part]:
    title = table.folder.replace("table", "Table ").replace("fig", "Figure ")
    rates = [rate_in(_name(cell), cell) for cell in cells if "success" in cell]
    yield Rates(f"{title}: success", rates, "Bands are Wilson 95 % intervals; unseen seeds, one fixed checkpoint each.")
    columns = ("task", "method", "size", "seed", "measured", "updates", "minutes", "parameters", "device", "commit")
    yield Sheet(f"{title}: cells", columns, [_row(table, cell) for cell in cells])
    for task in dict.fromkeys(cell["task"] for cell in cells):
        yield _seeds(title, task, [cell for cell in cells if cell["task"] == task and "failed_seeds" in cell])
    lines = [line for cell in cells for line in (f"# {_name(cell)}", *cell.get("commands", ()))]
    yield Lines(f"{title}: commands", lines)


def _row(table: Table, cell: Mapping[str, Any]) -> list[Cell]:
    training = cell["training"]
    cost = (training["updates"], training["seconds"] / 60, training["parameters"], training["device"])
    names = (cell["task"], NAMES[cell["method"]], cell["size"], cell["seed"])
    return [*names, table.number(cell), *cost, cell.get("commit")]


def _name(cell: Mapping[str, Any]) -> str:
    warm = "" if cell.get("temperature", 1.0) == 1 else f", temperature {cell['temperature']:g}"
    return f"{cell['task']}, {NAMES[cell['method']]}, {cell['size']}, seed {cell['seed']}{warm}"


def _seeds(title: str, task: str, cells: Cells) -> Sheet:
    """Make a table with a row per evaluation seed and a column per cell; what was not played is unknown."""
    failed = [set(cell["failed_seeds"]) for cell in cells]
    played = [range(cell["first_evaluation_seed"], cell["first_evaluation_seed"] + cell["episodes"]) for cell in cells]
    rows = [
        [seed, *(seed not in bad if seed in seeds else None for bad, seeds in zip(failed, played, strict=True))]
        for seed in sorted({seed for seeds in played for seed in seeds})
    ]
    names = [_name(cell).removeprefix(f"{task}, ") for cell in cells]
    return Sheet(f"{title}: {task}, seed by seed", ("seed", *names), rows)
