"""Success against epochs: evaluate the snapshots that training runs kept, and plot the runs beside each other.

    lfm train experiment=robot/can size=small data.path=DIR.zarr \\
        out=outputs/can_lfm snapshots=8
    lfm train experiment=robot/can size=small data.path=DIR.zarr \\
        out=outputs/can_fm snapshots=8 method=fm
    lfm learning_curve runs=[outputs/can_lfm,outputs/can_fm] \\
        out=outputs/can_curve

Run it again after an interruption, and it continues. Leaves summary.json and curve.png in the output folder.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lfm_cli.rollouts import rollouts
from lfm_policy.choices import Place, Sampling
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.files import atomic_file, read_json, write_json


class Settings(Sampling):
    """Which runs, and how each snapshot is measured."""

    runs: tuple[Place, ...] = Field(
        min_length=1, description="folders of training runs with snapshots (lfm train snapshots=8): [DIR,DIR]"
    )
    episodes: int = Field(default=50, ge=1, description="episodes at each snapshot, the same seeds for all")
    seed: int = Field(default=100_000, ge=0, description="seed of the first episode; the others follow")
    workers: int = Field(default=2, ge=1, description="processes that hold an environment each")
    trust_code: bool = Field(default=False, description="import networks of your own that a checkpoint names")
    out: Place = Field(description="output folder")


def main(settings: Settings) -> None:
    """Evaluate what is missing, then tabulate and draw."""
    found = {run: snapshots(run) for run in settings.runs}
    if len({run.resolve().name for run in settings.runs}) < len(settings.runs):
        raise ConfigError(f"runs are told apart by the names of their folders, found {[str(r) for r in settings.runs]}")
    curves = [curve(settings, run, steps) for run, steps in found.items()]
    summary = {
        "episodes": settings.episodes,
        "first_seed": settings.seed,
        "temperature": settings.temperature,
        "curves": curves,
        "plot": draw(settings.out / "curve.png", curves),
    }
    write_json(settings.out / "summary.json", summary)
    Console().print(table(curves))


def snapshots(run: Path) -> dict[int, Path]:
    """Find the snapshots of a finished run, by the updates done.

    Raises:
        CheckpointError: there are none, or the run is not finished.
    """
    folders = {int(path.name.removeprefix("step_")): path for path in sorted(run.glob("snapshots/step_*"))}
    if not folders or not (run / "summary.json").exists():
        raise CheckpointError(
            f"expected a finished run with snapshots in {run}, found {len(folders)} snapshots and "
            f"{'a' if (run / 'summary.json').exists() else 'no'} summary.json; train with snapshots=8"
        )
    return folders


def curve(settings: Settings, run: Path, folders: Mapping[int, Path]) -> dict[str, Any]:
    """Evaluate each snapshot, and return the success after its epochs."""
    summary, name = read_json(run / "summary.json"), run.resolve().name
    points = []
    for step, folder in folders.items():
        common = settings.model_dump(include={"episodes", "seed", "workers", "trust_code"}) | settings.asked
        result = rollouts(f"{name}_{step}", settings.out, policy=folder, **common).summary
        epochs = step / max(folders) * summary["epochs"]
        keys = ("success", "interval", "mean_steps", "nfe")
        points.append({"updates": step, "epochs": epochs, **{key: result[key] for key in keys}})
    keys = ("name", "method", "mode", "seed", "parameters", "batch", "samples")
    return {"run": name, **{key: summary[key] for key in keys}, "points": points}


def draw(path: Path, curves: Sequence[Mapping[str, Any]]) -> str:
    """Draw all runs with their Wilson bands; returns the picture's name, or why there is none."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return "skipped: matplotlib is not installed (pip install 'lfm-policy[media]')"
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for run in curves:
        epochs = [point["epochs"] for point in run["points"]]
        low, high = zip(*(point["interval"] for point in run["points"]), strict=True)
        (line,) = axes.plot(epochs, [point["success"] for point in run["points"]], marker="o", label=run["run"])
        axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(xlabel="epochs", ylabel="success rate, Wilson 95 %", ylim=(0, 1.02), title=curves[0]["name"])
    axes.legend(loc="lower right")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path.name


def table(curves: Sequence[Mapping[str, Any]]) -> Table:
    """Make a table with one row per snapshot."""
    rows = Table("run", "updates", "epochs", "success", "95 % interval", "NFE", title="success against epochs")
    for run in curves:
        for point in run["points"]:
            low, high = point["interval"]
            cells = (f"{point['epochs']:.1f}", f"{point['success']:.2f}", f"{low:.2f} … {high:.2f}")
            rows.add_row(escape(run["run"]), str(point["updates"]), *cells, f"{point['nfe']:g}")
    return rows
