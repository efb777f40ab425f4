"""Add pictures to demonstrations by drawing each recorded state: `lfm render source=FILE.hdf5`.

Takes any file that has states: this project's, robomimic's low_dim, raw robosuite collections. Run again to continue.
"""

from pathlib import Path

from pydantic import Field
from rich.console import Console
from rich.table import Table

import lfm_envs.tasks
from lfm_cli import command_line as _cli
from lfm_envs.render import cameras_of, render
from lfm_policy.contract import Drawing
from lfm_policy.data.demos.file import open_demos
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """See config/render.yaml."""

    source: Path
    out: Path | None
    cameras: tuple[str, ...] | None
    image_size: int | None = Field(ge=1)
    drawing: Drawing
    workers: int = Field(ge=1)


def main(settings: Settings) -> None:
    """Draw, then print what there is."""
    contracts = {task.environment: task.contract for task in lfm_envs.tasks.TASKS.values()}
    with open_demos(settings.source, contracts, strict=False) as file:
        task = lfm_envs.tasks.task_of_environment(file.recording.environment)
    cameras = cameras_of(task, settings.cameras, settings.image_size, settings.drawing)
    out = settings.out or settings.source.with_stem(f"{settings.source.stem}_{cameras[0].height}px")
    Console().print(table(render(settings.source, out, cameras, settings.workers)))


def table(summary: dict) -> Table:
    """What was drawn, and how fast."""
    table, cpu = Table(show_header=False), summary["cpu_seconds"]
    cameras = summary["cameras"]
    names = ", ".join(camera["name"] for camera in cameras)
    table.add_row("cameras", f"{names} ({cameras[0]['height']} x {cameras[0]['width']}, {cameras[0]['drawing']})")
    table.add_row("pictures", str(summary["pictures"]))
    table.add_row("seconds", f"{summary['seconds']:.0f} ({cpu:.0f} s of processors in the workers)")
    table.add_row("file", summary["file"])
    return table


if __name__ == "__main__":
    _cli.run("render", Settings, main, __doc__)
