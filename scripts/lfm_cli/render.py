"""Add pictures to demonstrations by drawing each recorded state: `lfm render source=FILE.hdf5`.

Takes any file that has states: this project's, robomimic's low_dim, raw robosuite collections. Run again to continue.
"""

from pydantic import Field

from lfm_policy.choices import Place
from lfm_policy.contract import Drawing
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """Which demonstrations, and what is drawn of them."""

    source: Place = Field(
        description="HDF5 demonstrations with states: our own, robomimic's low_dim or a raw robosuite collection"
    )
    out: Place | None = Field(
        default=None, description="file to write, with pictures; null: <source>_<size>px.hdf5 beside it"
    )
    cameras: tuple[str, ...] | None = Field(
        default=None,
        description="names in the scene, [agentview,robot0_eye_in_hand]; null: those of the benchmark's image policies",
    )
    image_size: int | None = Field(
        default=None, ge=1, description="height and width; null: the benchmark's, 84 (ToolHang 240) [pixels]"
    )
    drawing: Drawing = Field(
        default="coarse",
        description="coarse: simplified meshes, no reflections or shadows, several times faster on CPUs; or full",
    )
    workers: int = Field(
        default=2, ge=1, description="simulator processes of one thread each; does not change the pictures"
    )


def main(settings: Settings) -> None:
    """Draw, then print what there is."""
    from rich.console import Console

    import lfm_envs.tasks
    from lfm_cli.tables import rendered
    from lfm_envs.render import cameras_of, render
    from lfm_policy.data.demos.file import open_demos

    contracts = {task.environment: task.contract for task in lfm_envs.tasks.TASKS.values()}
    with open_demos(settings.source, contracts, strict=False) as file:
        task = lfm_envs.tasks.task_of_environment(file.recording.environment)
    cameras = cameras_of(task, settings.cameras, settings.image_size, settings.drawing)
    out = settings.out or settings.source.with_stem(f"{settings.source.stem}_{cameras[0].height}px")
    Console().print(rendered(render(settings.source, out, cameras, settings.workers)))
