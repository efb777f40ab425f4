"""Rebuild Can demonstrations from the recorded hand motion of a human's, where no can was recorded.

    lfm reconstruct source=can_human_motion.npz

Puts the can where the hand grasped, standing on the bin's floor, tracks the motion through the task's controller, and
keeps what succeeds, in robomimic's HDF5 format. The data are "reconstructed from human Can motion", not robomimic's.
Run again to continue a started one.
"""

import shutil
import time
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from pydantic import PositiveInt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import lfm_envs
from lfm_cli import command_line as _cli
from lfm_envs.episodes import assemble, read_result, write_episode
from lfm_envs.reconstruct import NAME, read_motions, reconstruct
from lfm_envs.tasks import TASKS
from lfm_policy.errors import RolloutError
from lfm_policy.files import write_json
from lfm_policy.settings import Frozen

HOLD_OUT = 10
"""Every tenth demonstration is for validation."""


class Settings(Frozen):
    """See config/reconstruct.yaml."""

    source: Path
    motions: PositiveInt | Literal["all"]
    out: Path


def main(settings: Settings) -> None:
    """Try every motion, keep the successes, say how many there are."""
    started, motions = time.perf_counter(), read_motions(settings.source)
    count = len(motions) if settings.motions == "all" else min(settings.motions, len(motions))
    parts = [settings.out / "episodes" / f"{number:06d}.hdf5" for number in range(count)]
    env: Any = lfm_envs.make("robosuite/can")
    kept: list[Path] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[kept]} kept"),
    )
    with Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()) as bar:
        row = bar.add_task("reconstructing", total=count, kept=0)
        for number, part in enumerate(parts):
            if not part.exists():
                episode, guess = reconstruct(env, motions[number], seed=number)
                write_episode(part, episode, guess=guess)
            kept += [part] if read_result(part)[0] else []
            bar.update(row, advance=1, kept=len(kept))
    env.close()
    if not kept:
        raise RolloutError(f"none of {count} motions from {settings.source} moves the can to its bin: nothing to write")
    file = settings.out / "demos.hdf5"
    valid = list(range(HOLD_OUT - 1, len(kept), HOLD_OUT))
    assemble(file, kept, TASKS["can"], {"source": NAME, "motions": [int(part.stem) for part in kept]}, valid)
    summary = summarize(kept, count) | {"file": str(file), "seconds": round(time.perf_counter() - started, 1)}
    write_json(settings.out / "summary.json", summary)
    shutil.rmtree(settings.out / "episodes")
    table = Table(title=NAME, show_header=False)
    for key, value in summary.items():
        table.add_row(key, str(value))
    Console().print(table)


def summarize(kept: list[Path], count: int) -> dict[str, Any]:
    """How many came out, by which guess, and their lengths."""
    guesses: list[int] = []
    for part in kept:
        with h5py.File(part) as file:
            guesses.append(int(np.asarray(file.attrs["guess"])))
    lengths = [read_result(part)[1] for part in kept]
    return {
        "source": NAME,
        "motions": count,
        "kept": len(kept),
        "kept_by_guess": np.bincount(guesses).tolist(),
        "steps": {"mean": float(np.mean(lengths)), "min": min(lengths), "max": max(lengths)},
    }


if __name__ == "__main__":
    _cli.run("reconstruct", Settings, main, __doc__)
