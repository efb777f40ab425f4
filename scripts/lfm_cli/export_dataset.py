"""Write demonstrations or a prepared data set as a LeRobotDataset v3.0, which LeRobot's own tools load.

    lfm export_dataset source=outputs/demos/lift/demos.hdf5 \\
        out=outputs/lerobot/lift
    lfm export_dataset source=data/lift.zarr out=outputs/lerobot/lift \\
        task="lift the cube"

observation.state holds hand and fingers, observation.environment_state the objects, observation.images.CAMERA pictures.
"""

from typing import Any, Literal

from pydantic import Field

from lfm_policy.choices import Place
from lfm_policy.errors import ConfigError
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """What to write, and how."""

    source: Place = Field(description="HDF5 demonstrations, or a prepared data set (lfm prepare)")
    out: Place = Field(description="folder of the data set; an older one there is replaced")
    task: str | None = Field(default=None, description="what the episodes show, in words; null: the environment's name")
    action_form: Literal["absolute", "delta"] = Field(
        default="absolute",
        description="of HDF5: absolute, the contract's poses; delta, as robosuite's controllers take them, with the "
        "simulator's settings for lerobot-policy-robomimic",
    )
    video: bool = Field(default=True, description="pictures as video (H.264); false: as PNG, without loss")
    cameras: tuple[str, ...] | None = Field(
        default=None, description="cameras of HDF5 files, whose pictures, in this order; null: all that there are"
    )
    filter: str | None = Field(
        default=None, description="of HDF5: take only the demonstrations of one of the file's filter keys"
    )
    environment: str | None = Field(
        default=None, description="of HDF5: a robosuite task of yours that it is of, package.module:TASK; null: ours"
    )


def main(settings: Settings) -> None:
    """Write the data set, and print what there is."""
    from rich.console import Console

    from lfm_cli.tables import pairs
    from lfm_policy.files import write_json

    summary = _store(settings) if settings.source.is_dir() else _hdf5(settings)
    write_json(settings.out / "summary.json", summary)
    Console().print(pairs("LeRobotDataset v3.0", summary))


def _store(settings: Settings) -> dict[str, Any]:
    from lfm_policy.data.lerobot.export import export_store
    from lfm_policy.data.windows.store import open_store

    default = Settings(source=settings.source, out=settings.out)
    if wrong := [
        name
        for name in ("action_form", "cameras", "filter", "environment")
        if getattr(settings, name) != getattr(default, name)
    ]:
        given = ", ".join(f"{name}=" for name in wrong)
        raise ConfigError(f"{given} cannot be used with a prepared data set, which is as it is: leave them out")
    return export_store(open_store(settings.source), settings.out, task=settings.task, video=settings.video)


def _hdf5(settings: Settings) -> dict[str, Any]:
    from lfm_envs.to_lerobot import export

    values = settings.model_dump(include={"action_form", "video", "cameras", "environment"})
    return export(settings.source, settings.out, words=settings.task, mask=settings.filter, **values)
