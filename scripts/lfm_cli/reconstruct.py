"""Rebuild Can demonstrations from the recorded hand motion of a human's, where no can was recorded.

    lfm reconstruct source=can_human_motion.npz

Puts the can where the hand grasped, standing on the bin's floor, tracks the motion through the task's controller, and
keeps what succeeds, in robomimic's HDF5 format. The data are "reconstructed from human Can motion", not robomimic's.
Run again to continue a started one.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from lfm_policy.choices import Place
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """Which motions, and where the demonstrations go."""

    source: Place = Field(description="archive of hand motions: <number>/source/pos, /source/grip, /Panda/joint_angles")
    motions: PositiveInt | Literal["all"] = Field(
        default="all", description="how many of them to try, from the first on; or all"
    )
    out: Place = Field(default=Path("outputs/demos/can_human"), description="output folder")


def main(settings: Settings) -> None:
    """Try every motion, keep the successes, say how many there are."""
    from rich.console import Console

    from lfm_cli.tables import pairs
    from lfm_envs.reconstruct import NAME
    from lfm_envs.reconstructed import reconstruct_all

    Console().print(pairs(NAME, reconstruct_all(settings.source, settings.out, settings.motions)))
