"""Collect demonstrations from a scripted expert, in robomimic's HDF5 format.

    lfm collect task=lift episodes=200

Run the same command again to continue a started one. Leaves demos.hdf5 and summary.json in the output folder.
"""

from pathlib import Path

from pydantic import Field

from lfm_policy.choices import Place, Simulation
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """What the demonstrations are a function of, and who makes them."""

    task: str = Field(
        default="lift", description="what to demonstrate: lift, can, square, transport, tool_hang, or a task of yours"
    )
    episodes: int = Field(default=200, gt=0, description="successful demonstrations to keep")
    seed: int = Field(
        default=0, ge=0, description="the demonstrations are a function of task, episodes, seed, noise and modes"
    )
    noise: float = Field(
        default=1.0,
        ge=0,
        description="scale of the noise on executed actions (the recorded ones carry none); 0 switches it off",
    )
    modes: int = Field(
        default=1,
        ge=1,
        description="ways to do the task, of which each demonstration takes one by chance; 2 of can, 1 of the others",
    )
    simulation: Simulation = Field(
        default="compiled", description="who steps: compiled (fast) or robosuite (its own Python); the same bits"
    )
    cameras: tuple[str, ...] = Field(
        default=(), description="whose pictures to add, for example [agentview,robot0_eye_in_hand]; see lfm render"
    )
    image_size: int | None = Field(
        default=None, ge=1, description="height and width of these; null: the benchmark's, 84 (ToolHang 240) [pixels]"
    )
    workers: int = Field(
        default=2, gt=0, description="simulator processes of one thread each; does not change the result"
    )
    out: Place | None = Field(default=None, description="output folder; null: outputs/demos/<task>")


def main(settings: Settings) -> None:
    """Collect, then print what there is."""
    from rich.console import Console

    from lfm_cli.tables import pairs, rendered
    from lfm_envs.collect import Recipe, collect
    from lfm_envs.render import cameras_of, render
    from lfm_envs.tasks import task
    from lfm_policy.locks import owned

    names = {"task", "episodes", "seed", "noise", "simulation", "modes"}
    recipe = Recipe(**settings.model_dump(include=names))
    out = settings.out or Path("outputs/demos") / settings.task
    with owned(out):
        summary = collect(recipe, out, settings.workers)
        if settings.cameras:
            file, cameras = (
                Path(summary["file"]),
                cameras_of(task(settings.task), settings.cameras, settings.image_size),
            )
            Console().print(rendered(render(file, file, cameras, settings.workers)))
    steps = summary["steps"]
    values = {
        "demonstrations": f"{summary['episodes']} of {summary['attempts']} attempts",
        "expert success": f"{summary['expert_success']:.3f}",
        "steps": f"{steps['mean']:.1f} on average, {steps['min']} to {steps['max']}",
        "seconds": f"{summary['seconds']:.0f}",
        "file": summary["file"],
    }
    Console().print(pairs(f"demonstrations of {settings.task}", values))
