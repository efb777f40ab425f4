"""Density runs beside each other, as `lfm report_density` shows them.

Negative log-likelihood beside its floor, the density with each model's samples in the style of the paper's Figure 2,
and trajectories from noise to data.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lfm_policy.choices import SolverChange
from lfm_policy.data.densities import Density
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.files import atomic_file, read_json, write_json
from lfm_policy.models.density import FlowModel
from lfm_policy.settings import parse
from lfm_policy.training.experiments.data_settings import DensityData
from lfm_policy.training.experiments.density import density_report, load_density

COLUMNS = ("run", "method", "mode", "nll", "nll_standard_error", "floor", "nfe_likelihood", "nfe_sample", "parameters")


@dataclass(frozen=True)
class Run:
    """A finished run."""

    name: str
    record: dict[str, Any]
    data: DensityData
    model: FlowModel


def compare_densities(
    folders: Sequence[Path],
    out: Path,
    *,
    points: int = 20_000,
    pieces: int = 5,
    solver: SolverChange | None = None,
    trust_code: bool = False,
) -> list[dict[str, Any]]:
    """Measure where the solver is another one, draw, write summary.json.

    Args:
        folders: of finished runs on one density.
        out: folder for density.png, trajectories.png and summary.json.
        points: samples of each model in the pictures.
        pieces: parts of each block's time in the trajectories.
        solver: in place of the runs' own.
        trust_code: allow network classes from outside this package.

    Returns:
        A row for each run.

    Raises:
        CheckpointError: a run is not finished, or is no density run.
        ConfigError: the runs are of different densities.
    """
    runs = [load_run(folder, solver or SolverChange(), trust_code) for folder in folders]
    if len({(run.data.density, run.data.mask) for run in runs}) > 1:
        raise ConfigError("the runs are of different densities: give those of one density at a time")
    density = load_density(runs[0].data)
    rows = [measured(run, density, fresh=solver is not None and bool(solver.given)) for run in runs]
    out.mkdir(parents=True, exist_ok=True)
    pictures = draw(out, runs, rows, density, points, pieces)
    write_json(out / "summary.json", {"runs": rows, "pictures": pictures})
    return rows


def load_run(folder: Path, solver: SolverChange, trust_code: bool = False) -> Run:
    """Read a run's record and model.

    Raises:
        CheckpointError: the run is not finished, or is no density run.
    """
    if not (folder / "summary.json").exists():
        raise CheckpointError(f"{folder} holds no finished run: expected summary.json, written by lfm train")
    record = read_json(folder / "summary.json")
    if "floor" not in record:
        raise CheckpointError(f"{folder} is no density run: its summary.json has no floor")
    model = FlowModel.from_pretrained(folder, trust_code=trust_code)
    model.chain.solver = solver(model.chain.solver)
    return Run(folder.name, record, parse(DensityData, record["data"], f"{folder}/summary.json"), model)


def measured(run: Run, density: Density, fresh: bool) -> dict[str, Any]:
    """Return one row of the table: as the run reported it, or measured again."""
    record = {**run.record, **density_report(run.model, run.data, density)} if fresh else run.record
    return {"run": run.name, **{key: record[key] for key in COLUMNS[1:]}}


def draw(
    out: Path, runs: Sequence[Run], rows: Sequence[dict[str, Any]], density: Density, points: int, pieces: int
) -> list[str]:
    """Draw both pictures, where matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        print("note: matplotlib is not installed, no pictures (pip install 'lfm-policy[media]')")
        return []
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(points, 2, generator=generator)
    ways = [run.model.trajectory(noise, pieces) for run in runs]
    samples = [(f"{row['run']}\nNLL {row['nll']:.2f}", way[-1]) for row, way in zip(rows, ways, strict=True)]
    truth = (f"data\nentropy {density.entropy():.2f}", density.sample(points, generator))
    _picture(out / "density.png", [[truth, *samples]])
    _picture(out / "trajectories.png", [_stages(run.name, way) for run, way in zip(runs, ways, strict=True)])
    return ["density.png", "trajectories.png"]


def _stages(name: str, way: Sequence[Tensor], count: int = 6) -> list[tuple[str, Tensor]]:
    """Take `count` states of a trajectory, the noise and the end among them."""
    places = torch.linspace(0, len(way) - 1, count).round().long().tolist()
    return [(f"{'' if k else name}\n{place} of {len(way) - 1}", way[place]) for k, place in enumerate(places)]


def _picture(path: Path, rows: Sequence[Sequence[tuple[str, Tensor]]]) -> None:
    """Draw a grid of titled point densities over [-4.5, 4.5]²."""
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
