"""Turn demonstrations (HDF5 or LeRobot's) into a prepared data set: actions, observations, contract, in zarr.

    lfm prepare source=data/lift.hdf5 replay=5
    lfm prepare source=data/lift_84px.hdf5 observations=images
    lfm prepare source=lerobot/pusht out=data/pusht.zarr

Official and raw files hold delta actions: the goal pose of each is read off the simulator at the recorded state. Of a
LeRobot data set (v3.0 or v2.1, a folder or USER/REPOSITORY of the hub) the numbers are taken as they are.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeInt

from lfm_policy.choices import Place
from lfm_policy.errors import ConfigError
from lfm_policy.files import names_apart
from lfm_policy.settings import Frozen

if TYPE_CHECKING:
    from lfm_policy.contract import Contract


class Settings(Frozen):
    """Which files, and where they go."""

    source: tuple[Place, ...] = Field(
        min_length=1,
        description="HDF5 demonstrations (our own, robomimic's low_dim v15 or v141, a raw robosuite collection), or "
        "LeRobot data sets (a folder, or USER/REPOSITORY of the hub); several as [a,b]",
    )
    out: Place | None = Field(
        default=None,
        description="prepared data set to write; null: data/<task>_<source's name>.zarr, or data/<name>.zarr",
    )
    observations: Literal["state", "images"] = Field(
        default="state",
        description="state: with the objects' poses (LeRobot's environment_state); images: without, with the pictures "
        "that are there (lfm render adds them to HDF5)",
    )
    cameras: tuple[str, ...] | None = Field(
        default=None, description="cameras whose pictures observations=images takes, in this order; null: all"
    )
    image_size: int | None = Field(
        default=None, ge=1, description="side to scale LeRobot's pictures to; null: as they are [pixels]"
    )
    space: Literal["joints", "position", "vector"] | None = Field(
        default=None,
        description="of LeRobot data: what the numbers of an action are; null: joints where their names end in .pos, "
        "else vector",
    )
    unit: tuple[str, ...] | None = Field(
        default=None,
        description="of LeRobot data that name no units: deg, of all numbers of an action but grippers, which on "
        "LeRobot's arms are in %; or one for each number, [deg,deg,mm]",
    )
    failures: bool = Field(
        default=False, description="of LeRobot data: keep episodes whose next.success says that they failed"
    )
    filter: str | None = Field(
        default=None, description="take only the demonstrations of one of the file's filter keys, such as 20_percent"
    )
    environment: str | None = Field(
        default=None,
        description="of HDF5: a robosuite task of yours that they are of, package.module:TASK; null: ours. Of LeRobot "
        "data: the environment that they are of (a name, gym:ID or a file), whose contract they get",
    )
    replay: NonNegativeInt | Literal["all"] = Field(
        default=0, description="demonstrations whose stored actions are executed in the simulator as a proof; or all"
    )


OF_LEROBOT = ("image_size", "space", "unit", "failures")
OF_HDF5 = ("filter", "replay")


def main(settings: Settings) -> None:
    """Prepare, show what was found, replay if asked to."""
    from lfm_policy.data.lerobot.sources import is_source

    kinds = {is_source(source) for source in settings.source}
    if len(kinds) > 1:
        raise ConfigError(f"source= mixes HDF5 files and LeRobot data sets: {[str(s) for s in settings.source]}")
    ours, theirs = (OF_LEROBOT, OF_HDF5) if kinds == {True} else (OF_HDF5, OF_LEROBOT)
    if wrong := [name for name in theirs if getattr(settings, name)]:
        kind = "LeRobot data sets" if kinds == {True} else "HDF5 files"
        raise ConfigError(f"{', '.join(f'{name}=' for name in wrong)} cannot be used with {kind}: leave them out")
    if settings.environment is not None and (settings.space or settings.unit):
        raise ConfigError("space= and unit= are for data of no environment here: leave them out, or environment=")
    values = settings.model_dump(include={"observations", "cameras", "environment", *ours})
    (_lerobot if kinds == {True} else _hdf5)(settings, values)


def _hdf5(settings: Settings, values: dict[str, Any]) -> None:
    from lfm_envs.prepare import prepare

    prepare(settings.source, settings.out, mask=values.pop("filter"), **values)


def _lerobot(settings: Settings, values: dict[str, Any]) -> None:
    from rich.console import Console

    from lfm_cli.tables import grid
    from lfm_policy.data.lerobot.names import Meaning
    from lfm_policy.data.lerobot.prepare import View, prepare
    from lfm_policy.files import keeping, write_json
    from lfm_policy.locks import owned

    labels = names_apart(settings.source)
    out = settings.out or Path("data") / f"{'+'.join(label.replace('/', '-') for label in labels)}.zarr"
    meaning = Meaning(values.pop("space"), values.pop("unit"), _contract(values.pop("environment")))
    with owned(out):
        summary = prepare([str(source) for source in settings.source], out, View(**values), meaning)
        with keeping(out / "summary.json"):
            write_json(out / "summary.json", summary)
    table = grid(f"prepared {out}", ("data set", "version"), ("episodes", "steps", "left out"))
    for row in summary["sources"]:
        table.add_row(row["name"], row["version"], str(row["episodes"]), str(row["steps"]), str(row["failures"]))
    console = Console()
    console.print(table)
    for row in summary["sources"]:
        for note in row["notes"]:
            console.print(f"{row['name']}: {note}", markup=False, highlight=False)


def _contract(environment: str | None) -> "Contract | None":
    """Return the contract of an environment, if there is one."""
    if environment is None:
        return None
    import lfm_envs

    return lfm_envs.contract_for(environment)
