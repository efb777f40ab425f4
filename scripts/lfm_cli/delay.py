"""Success against delay: who waits for the policy, who goes on meanwhile, and how chunks follow one another.

    lfm delay policy=outputs/lift latencies=[0,2,4] \\
        cases=[sync-switch,async-switch,async-warm]

Every cell is an evaluation of its own, on the same seeds, in simulated steps (no clock is involved). Leaves
summary.json and delay.png in the output folder.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator
from rich.console import Console
from rich.table import Table

from lfm_cli.rollouts import rollouts
from lfm_cli.tables import grid
from lfm_policy.choices import Place, PolicyChoice, Sampling
from lfm_policy.chunks.delayed import Link
from lfm_policy.files import atomic_file, write_json

RENAMED = {"steps": "solver.steps"}


class Settings(Sampling, PolicyChoice):
    """A policy, and the delays that it is measured under."""

    latencies: tuple[int, ...] = Field(
        default=(0, 2, 4), min_length=1, description="simulated delays of a chunk [control steps]"
    )
    cases: tuple[str, ...] = Field(
        default=("sync-switch", "async-switch", "async-ensemble", "async-warm"),
        min_length=1,
        description="who waits, and the seam between chunks",
    )
    packet_loss: float = Field(default=0, ge=0, lt=1, description="simulated probability that a chunk never comes")
    episodes: int = Field(default=50, ge=1, description="episodes of each cell, the same seeds for all")
    seed: int = Field(default=100_000, ge=0, description="seed of the first episode; the others follow")
    workers: int = Field(default=2, ge=1, description="processes that hold an environment each")
    out: Place = Field(default=Path("outputs/delay"), description="output folder")

    @field_validator("cases")
    @classmethod
    def _known(cls, cases: tuple[str, ...]) -> tuple[str, ...]:
        for case in cases:
            inference, _, seam = case.partition("-")
            Link.model_validate({"inference": inference, "seam": seam})
        return cases


def main(settings: Settings) -> None:
    cells = [cell(settings, case, latency) for case in settings.cases for latency in settings.latencies]
    summary = {"cells": cells, "settings": settings.model_dump(mode="json")}
    console = Console()
    console.print(table(cells))
    write_json(settings.out / "summary.json", summary | {"plot": draw(settings.out / "delay.png", cells)})


def cell(settings: Settings, case: str, latency: int) -> dict[str, Any]:
    """Make one evaluation."""
    inference, _, seam = case.partition("-")
    link = {"inference": inference, "seam": seam, "latency_steps": latency, "packet_loss": settings.packet_loss}
    common = settings.model_dump(include={"policy", "weights", "trust_code", "episodes", "seed", "workers"})
    common |= settings.asked
    found = rollouts(f"{case}_{latency}", settings.out, **common, **link).summary
    keys = ("success", "interval", "mean_steps", "nfe", "seam_jerk", "inner_jerk", "failed_seeds")
    return {"case": case, "latency_steps": latency, **{key: found[key] for key in keys}}


def table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """Make a table with one row per cell."""
    columns = ("delay", "success", "95 %", "steps", "NFE", "at seams", "within")
    rows = grid("success against delay [control steps]; jerk at seams and within chunks [m/s³]", ("case",), columns)
    for row in cells:
        low, high = row["interval"]
        rate = (f"{row['success']:.2f}", f"{low:.2f} … {high:.2f}", f"{row['mean_steps'] or float('nan'):.1f}")
        jerk = (f"{row[key]:.0f}" for key in ("seam_jerk", "inner_jerk"))
        rows.add_row(row["case"], str(row["latency_steps"]), *rate, f"{row['nfe']:.1f}", *jerk)
    return rows


def draw(path: Path, cells: Sequence[Mapping[str, Any]]) -> str:
    """Draw success and seam jerk against delay; returns the picture's name, or why there is none."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return "skipped: matplotlib is not installed (pip install 'lfm-policy[media]')"
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for case in dict.fromkeys(row["case"] for row in cells):
        rows = [row for row in cells if row["case"] == case]
        delays = [row["latency_steps"] for row in rows]
        (line,) = left.plot(delays, [row["success"] for row in rows], marker="o", label=case)
        low, high = zip(*(row["interval"] for row in rows), strict=True)
        left.fill_between(delays, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
        right.plot(delays, [row["seam_jerk"] for row in rows], marker="o", color=line.get_color())
    left.set(xlabel="delay [control steps]", ylabel="success rate, Wilson 95 %", ylim=(0, 1.02))
    right.set(xlabel="delay [control steps]", ylabel="jerk between chunks [m/s³]", ylim=(0, None))
    left.legend(loc="lower left")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path.name
