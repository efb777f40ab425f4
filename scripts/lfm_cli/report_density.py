"""Compare density runs: `lfm report_density runs=[outputs/lfm,outputs/fm] out=outputs/report`.

Negative log-likelihood beside its floor, the density with each model's samples in the style of the paper's Figure 2,
and trajectories from noise to data.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lfm_cli import command_line as _cli
from lfm_policy.data.densities import Density
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.files import atomic_file, read_json, write_json
from lfm_policy.flow import Solver
from lfm_policy.models.density import FlowModel
from lfm_policy.settings import Frozen, parse
from lfm_policy.training.experiments.density import density_report, load_density
from lfm_policy.training.experiments.settings import DensityData

COLUMNS = ("run", "method", "mode", "nll", "nll_standard_error", "floor", "nfe_likelihood", "nfe_sample", "parameters")


class Settings(Frozen):
    """Settings of config/report_density.yaml."""

    runs: tuple[Path, ...] = Field(min_length=1)
    out: Path
    points: int = Field(ge=1)
    pieces: int = Field(ge=1)
    solver: Solver | None


@dataclass(frozen=True)
class Run:
    """A finished run."""

    name: str
    record: dict[str, Any]
    data: DensityData
    model: FlowModel


def main(settings: Settings) -> None:
    """Measure where the solver is another one, draw, write summary.json."""
    runs = [load_run(folder, settings.solver) for folder in settings.runs]
    if len({(run.data.density, run.data.mask) for run in runs}) > 1:
        raise ConfigError("the runs are of different densities: give those of one density at a time")
    density = load_density(runs[0].data)
    rows = [measured(run, density, fresh=settings.solver is not None) for run in runs]
    settings.out.mkdir(parents=True, exist_ok=True)
    pictures = draw(settings, runs, rows, density)
    write_json(settings.out / "summary.json", {"runs": rows, "pictures": pictures})
    console = Console()
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*(f"{row[c]:.4f}" if isinstance(row[c], float) else str(row[c]) for c in COLUMNS))
    console.print(table)


def load_run(folder: Path, solver: Solver | None) -> Run:
    """Read a run's record and model.

    Raises:
        CheckpointError: the run is not finished, or is no density run.
    """
    if not (folder / "summary.json").exists():
        raise CheckpointError(f"{folder} holds no finished run: expected summary.json, written by lfm train")
    record = read_json(folder / "summary.json")
    if "floor" not in record:
        raise CheckpointError(f"{folder} is no density run: its summary.json has no floor")
    model = FlowModel.from_pretrained(folder)
    model.chain.solver = solver or model.chain.solver
    return Run(folder.name, record, parse(DensityData, record["data"], f"{folder}/summary.json"), model)


def measured(run: Run, density: Density, fresh: bool) -> dict[str, Any]:
    """One row of the table: as the run reported it, or measured again."""
    record = {**run.record, **density_report(run.model, run.data, density)} if fresh else run.record
    return {"run": run.name, **{key: record[key] for key in COLUMNS[1:]}}


def draw(settings: Settings, runs: Sequence[Run], rows: Sequence[dict[str, Any]], density: Density) -> list[str]:
    """Both pictures, where matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        print("note: matplotlib is not installed, no pictures (pip install 'lfm-policy[media]')")
        return []
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(settings.points, 2, generator=generator)
    ways = [run.model.trajectory(noise, settings.pieces) for run in runs]
    samples = [(f"{row['run']}\nNLL {row['nll']:.2f}", way[-1]) for row, way in zip(rows, ways, strict=True)]
    truth = (f"data\nentropy {density.entropy():.2f}", density.sample(settings.points, generator))
    _picture(settings.out / "density.png", [[truth, *samples]])
    _picture(settings.out / "trajectories.png", [_stages(run.name, way) for run, way in zip(runs, ways, strict=True)])
    return ["density.png", "trajectories.png"]


def _stages(name: str, way: Sequence[Tensor], count: int = 6) -> list[tuple[str, Tensor]]:
    """`count` states of a trajectory, the noise and the end among them."""
    places = torch.linspace(0, len(way) - 1, count).round().long().tolist()
    return [(f"{'' if k else name}\n{place} of {len(way) - 1}", way[place]) for k, place in enumerate(places)]


def _picture(path: Path, rows: Sequence[Sequence[tuple[str, Tensor]]]) -> None:
    """A grid of titled point densities over [-4.5, 4.5]²."""
    from matplotlib.figure import Figure

    edge = 4.5
    figure = Figure(figsize=(2.4 * len(rows[0]), 2.7 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for row, panels in enumerate(rows):
        for column, (title, points) in enumerate(panels):
            axis = axes[row][column]
            x, y = points.T.numpy()
            axis.hist2d(x, y, bins=150, range=[[-edge, edge]] * 2, cmap="viridis")
            axis.set_title(title, fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_aspect("equal")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    _cli.run("report_density", Settings, main, __doc__)
