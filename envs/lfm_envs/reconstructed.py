"""A file of demonstrations from an archive of hand motions; see `lfm reconstruct`. A started one is continued."""

import shutil
import time
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import lfm_envs
from lfm_envs.episodes import assemble, read_result, write_episode
from lfm_envs.reconstruct import NAME, read_motions, reconstruct
from lfm_envs.tasks import TASKS
from lfm_policy.errors import RolloutError
from lfm_policy.files import write_json

HOLD_OUT = 10
"""Every tenth demonstration is for validation."""


def reconstruct_all(source: Path, out: Path, tries: int | Literal["all"] = "all") -> dict[str, Any]:
    """Try every motion of an archive, keep the successes in demos.hdf5, and say how many there are.

    Raises:
        DataError: the archive cannot be read.
        RolloutError: no motion succeeds.
    """
    started, motions = time.perf_counter(), read_motions(source)
    count = len(motions) if tries == "all" else min(tries, len(motions))
    parts = [out / "episodes" / f"{number:06d}.hdf5" for number in range(count)]
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
        raise RolloutError(f"none of {count} motions from {source} moves the can to its bin: nothing to write")
    file = out / "demos.hdf5"
    valid = list(range(HOLD_OUT - 1, len(kept), HOLD_OUT))
    assemble(file, kept, TASKS["can"], {"source": NAME, "motions": [int(part.stem) for part in kept]}, valid)
    summary = summarize(kept, count) | {"file": str(file), "seconds": round(time.perf_counter() - started, 1)}
    write_json(out / "summary.json", summary)
    shutil.rmtree(out / "episodes")
    return summary


def summarize(kept: list[Path], count: int) -> dict[str, Any]:
    """Tell how many came out, by which guess, and their lengths."""
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
