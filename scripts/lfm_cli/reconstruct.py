"""Rebuild demonstrations from what was written down of human ones: rounded actions, object poses, the hand's motion.

    lfm reconstruct source=human_records task=lift

Every record is done again in the simulator, with numbers drawn from within their rounding, until it succeeds; what
succeeds is kept, in robomimic's HDF5 format. The data are named as reconstructed, and are not robomimic's file.
Run again to continue a started one.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from lfm_policy.choices import Place
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """Which records, how hard to try, and where the demonstrations go."""

    source: Place = Field(description="folder with halil.json, and for Can can_human_motion.npz")
    task: str = Field(description="whose records: lift, square or can")
    tries: int = Field(default=24, gt=0, description="attempts at one record, at most")
    seed: int = Field(default=0, ge=0, description="decides the numbers drawn from within the rounding")
    workers: int = Field(
        default=2, gt=0, description="simulator processes of one thread each; does not change the result"
    )
    out: Place | None = Field(default=None, description="output folder; null: outputs/demos/human_<task>")


def main(settings: Settings) -> None:
    """Try every record, keep the successes, say how many there are."""
    from rich.console import Console

    from lfm_cli.tables import pairs
    from lfm_envs.human.rebuild import NAMES, Rebuilding, rebuild
    from lfm_policy.locks import owned

    wanted = Rebuilding(settings.task, settings.tries, settings.seed)
    out = settings.out or Path("outputs/demos") / f"human_{settings.task}"
    with owned(out):
        summary = rebuild(wanted, settings.source, out, settings.workers)
    Console().print(pairs(NAMES[settings.task], told(summary)))


def told(summary: dict[str, Any]) -> dict[str, Any]:
    """Say it as the table has it: how many came out of how many comes first."""
    counts = {"kept": f"{summary['kept']} of {summary['records']} records"}
    return counts | {key: value for key, value in summary.items() if key not in ("what", "kept", "records")}
