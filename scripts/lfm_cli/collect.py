"""Collect demonstrations from a scripted expert, in robomimic's HDF5 format. Run again to continue a started one."""

from pathlib import Path

from pydantic import Field
from rich.console import Console
from rich.table import Table

from lfm_cli import command_line as _cli
from lfm_cli import render as _render
from lfm_envs.collect import Recipe, collect
from lfm_envs.render import cameras_of, render
from lfm_envs.simulator import Kind
from lfm_envs.tasks import task
from lfm_policy.locks import owned
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """See config/collect.yaml."""

    task: str
    episodes: int = Field(gt=0)
    seed: int = Field(ge=0)
    noise: float = Field(ge=0)
    simulation: Kind
    cameras: tuple[str, ...]
    image_size: int | None = Field(ge=1)
    workers: int = Field(gt=0)
    out: Path | None


def main(settings: Settings) -> None:
    """Collect, then print what there is."""
    recipe = Recipe(settings.task, settings.episodes, settings.seed, settings.noise, settings.simulation)
    out = settings.out or Path("outputs/demos") / settings.task
    with owned(out):
        summary = collect(recipe, out, settings.workers)
        if settings.cameras:
            file, cameras = (
                Path(summary["file"]),
                cameras_of(task(settings.task), settings.cameras, settings.image_size),
            )
            Console().print(_render.table(render(file, file, cameras, settings.workers)))
    table, steps = Table(show_header=False), summary["steps"]
    table.add_row("demonstrations", f"{summary['episodes']} of {summary['attempts']} attempts")
    table.add_row("expert success", f"{summary['expert_success']:.3f}")
    table.add_row("steps", f"{steps['mean']:.1f} on average, {steps['min']} to {steps['max']}")
    table.add_row("seconds", f"{summary['seconds']:.0f}")
    table.add_row("file", summary["file"])
    Console().print(table)


if __name__ == "__main__":
    _cli.run("collect", Settings, main, __doc__)
