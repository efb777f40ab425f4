"""Turn demonstration files (HDF5) into a prepared data set: absolute actions, observations, contract, in zarr.

    lfm prepare source=data/lift.hdf5 replay=5
    lfm prepare source=data/lift_84px.hdf5 observations=images

Official and raw files hold delta actions: the goal pose of each is read off the simulator at the recorded state.
"""

from typing import Literal

from pydantic import Field, NonNegativeInt

from lfm_policy.choices import Place
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """Which files, and where they go."""

    source: tuple[Place, ...] = Field(
        min_length=1,
        description="HDF5 demonstrations: our own, robomimic's low_dim (v15, v141) or a raw robosuite collection; "
        "several as [a,b]",
    )
    out: Place | None = Field(
        default=None, description="prepared data set to write; null: data/<task>_<source's name>.zarr"
    )
    observations: Literal["state", "images"] = Field(
        default="state",
        description="state: with the objects' poses; images: without, with the pictures in the file (lfm render adds "
        "them)",
    )
    cameras: tuple[str, ...] | None = Field(
        default=None, description="of observations=images, whose pictures, in this order; null: all"
    )
    filter: str | None = Field(
        default=None, description="take only the demonstrations of one of the file's filter keys, such as 20_percent"
    )
    environment: str | None = Field(
        default=None, description="a robosuite task of yours that the files are of, package.module:TASK; null: ours"
    )
    replay: NonNegativeInt | Literal["all"] = Field(
        default=0, description="demonstrations whose stored actions are executed in the simulator as a proof; or all"
    )


def main(settings: Settings) -> None:
    """Prepare, show what was found, replay if asked to."""
    from lfm_envs.prepare import prepare

    prepare(
        settings.source,
        settings.out,
        observations=settings.observations,
        cameras=settings.cameras,
        mask=settings.filter,
        replay=settings.replay,
        environment=settings.environment,
    )
