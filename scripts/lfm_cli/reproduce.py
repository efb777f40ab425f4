"""Reproduce a table or figure of the paper: train, measure and tabulate, cell by cell, in as many sittings as it takes.

    lfm reproduce table=4 tasks=[lift,can] methods=[lfm,fm] size=small \\
        budget_minutes=60
    lfm reproduce table=fig2 tasks=[tree_grid] masks=data/masks \\
        budget_minutes=60
    lfm reproduce table=1 tasks=[patches] files=data size=small \\
        budget_minutes=90

Every cell becomes one JSON file under docs/results/, and all of them together docs/results/README.md and report.html.
Run the same command again to continue: finished cells are kept, the unfinished one goes on.
"""

import shlex
import time
from pathlib import Path

import rich.table
from rich.console import Console

from lfm_cli.origin import commit, origin, tell
from lfm_cli.paper import fig2 as _fig2
from lfm_cli.paper import images as _images
from lfm_cli.paper import table1 as _table1
from lfm_cli.paper import table4 as _table4
from lfm_cli.paper.page import write_reproduction
from lfm_cli.paper.tables import NAMES, Cells, Settings, Table
from lfm_cli.stages import OutOfTime, run
from lfm_policy.errors import ConfigError, nearest
from lfm_policy.files import read_json, write_json, write_text
from lfm_policy.reports.page import PAGE

RENAMED = {"steps": "updates"}
TABLES: dict[int | str, Table] = {1: _table1.TABLE, **_images.TABLES, 4: _table4.TABLE, "fig2": _fig2.TABLE}

INTRODUCTION = """# Measured results

Made by `lfm reproduce` from the JSON files beside this page; each holds its command, commit, seeds, data and
cost. A rate is successes over unseen episodes (seeds 100000 …) of one fixed checkpoint, with its Wilson 95 % interval.
The demonstrations are the scripted expert's of this project, not robomimic's human ones, so the paper's row is context
and not a like-for-like comparison. "simulation-free" is flow matching on a Gaussian path with one network per block,
not the paper's Algorithm 1, whose rows say "sequential". "small" and "tiny" are CPU sizes, "paper" is that of the
paper's appendix. What the tables show and do not show: [robots](robots.md), [densities](densities.md),
[pictures](pictures.md), [distillation](distillation.md); kills, damage and attacks: [trust](trust.md); further
measurements: [notes](notes.md).
"""


def main(settings: Settings) -> None:
    """Run the cells that are not finished, then render all results there are."""
    table = TABLES[settings.table]
    tasks, methods = settings.tasks or table.chosen[0], settings.methods or table.chosen[1]
    for kind, names, known in (("task", tasks, table.tasks), ("method", methods, table.methods)):
        for name in names:
            if name not in known:
                raise ConfigError(f"unknown {kind} '{name}': {nearest(name, known)}")
    if settings.table != 4 and settings.variant:
        raise ConfigError(
            f"temperature={settings.temperature:g} is for policies, table=4; found table={settings.table}: leave it 1"
        )
    console = Console()
    deadline = None if settings.budget_minutes is None else time.monotonic() + 60 * settings.budget_minutes
    try:
        for task in tasks:
            for method in methods:
                reproduce(settings, table, task, method, deadline)
            if table.closing is not None:
                run(table.closing(settings, task, methods), settings.out / task / "closing.stages.json", deadline)
    except OutOfTime as error:
        console.print(str(error), highlight=False)
    cells = render(settings.results)
    console.print(summary_table(table, cells[settings.table]))
    tables = [(known, cells[name]) for name, known in TABLES.items()]
    tell(write_reproduction(tables, settings.results, origin()), settings.results / PAGE, console)
    write_json(settings.out / "summary.json", {"cells": [cell for found in cells.values() for cell in found]})


def reproduce(settings: Settings, table: Table, task: str, method: str, deadline: float | None) -> None:
    """Run the stages of one cell that are not finished, and write what they measured."""
    chain = list(table.stages(settings, task, method))
    for stage in chain:
        shared = stage.name in ("collect", "prepare")
        records = f"{'data' if shared else settings.run(task, method).name}.stages.json"
        run(stage, settings.out / task / records, deadline)
    names = {"table": settings.table, "task": task, "method": method, "size": settings.size, "seed": settings.seed}
    commands = [shlex.join(["lfm", *command]) for command in chain[-1].history]
    cell = f"{settings.size}_{task}_{method}_seed{settings.seed}{settings.variant}"
    file = settings.results / table.folder / f"{cell}.json"
    write_json(file, names | table.cell(chain) | {"commands": commands, "commit": commit()})


def render(results: Path) -> dict[int | str, Cells]:
    """Write results/README.md from the cells of all tables, and return them."""
    cells: dict[int | str, Cells] = {
        name: [read_json(file) for file in sorted((results / table.folder).glob("*.json"))]
        for name, table in TABLES.items()
    }
    parts = [INTRODUCTION]
    for name, table in TABLES.items():
        parts += [*table.section(cells[name]), ""] if cells[name] else []
    write_text(results / "README.md", "\n".join(parts).rstrip() + "\n")
    return cells


def summary_table(table: Table, cells: Cells) -> rich.table.Table:
    """Make a table with a row for each measured cell of one table of the paper."""
    columns = ("task", "method", "size", "seed", "measured", "training")
    shown = rich.table.Table(*columns, title=f"measured cells of {table.folder}")
    for cell in cells:
        minutes = f"{cell['training']['seconds'] / 60:.0f} min"
        names = cell["task"], NAMES[cell["method"]], cell["size"], str(cell["seed"])
        shown.add_row(*names, table.number(cell), minutes)
    return shown
