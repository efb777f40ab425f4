"""Success against delay: who waits for the policy, who goes on meanwhile, and how chunks follow one another.

    lfm delay checkpoint=outputs/lift latencies=[0,2,4] cases=[sync-switch,async-switch,async-warm]

Every cell is an evaluation of its own, on the same seeds, in simulated steps (no clock is involved). Leaves
summary.json and delay.png in the output folder.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator
from rich.console import Console
from rich.table import Table

from lfm_cli import command_line as _cli
from lfm_cli.rollouts import rollouts
from lfm_policy.chunks.delayed import Link
from lfm_policy.files import atomic_file, write_json
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """See config/delay.yaml."""

    checkpoint: Path
    steps: int | None = Field(ge=1)
    temperature: float | None = Field(ge=0, allow_inf_nan=False)
    latencies: tuple[int, ...] = Field(min_length=1)
    cases: tuple[str, ...] = Field(min_length=1)
    loss: float = Field(ge=0, lt=1)
    episodes: int = Field(ge=1)
    seed: int = Field(ge=0)
    workers: int = Field(ge=1)
    out: Path

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
    """One evaluation."""
    inference, _, seam = case.partition("-")
    link = {"inference": inference, "seam": seam, "latency_steps": latency, "loss": settings.loss}
    common = settings.model_dump(include={"checkpoint", "steps", "temperature", "episodes", "seed", "workers"})
    found = rollouts(f"{case}_{latency}", settings.out, **common, **link).summary
    keys = ("success", "interval", "mean_steps", "nfe", "seam_jerk", "inner_jerk", "failed_seeds")
    return {"case": case, "latency_steps": latency, **{key: found[key] for key in keys}}


def table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """One row a cell."""
    columns = ("case", "delay [steps]", "success", "95 % interval", "steps", "NFE", "jerk at seams, within [m/s³]")
    rows = Table(*columns, title="success against delay")
    for row in cells:
        low, high = row["interval"]
        rate = (f"{row['success']:.2f}", f"{low:.2f} … {high:.2f}", f"{row['mean_steps'] or float('nan'):.1f}")
        jerk = f"{row['seam_jerk']:.0f}, {row['inner_jerk']:.0f}"
        rows.add_row(row["case"], str(row["latency_steps"]), *rate, f"{row['nfe']:.1f}", jerk)
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


if __name__ == "__main__":
    _cli.run("delay", Settings, main, __doc__)
