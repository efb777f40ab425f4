"""A file of demonstrations rebuilt from human records; see `lfm reconstruct`. A started one is continued."""

import shutil
import time
from collections import Counter
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lfm_envs.collect import FILE, IDENTITY, PARTS, SUMMARY, part_of, progress
from lfm_envs.episodes import assemble, read_result, record, write_episode
from lfm_envs.human.records import Records, read_records
from lfm_envs.human.tracking import Attempt, attempts, perform, place
from lfm_envs.pool import outcome, processes
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_envs.tasks import task
from lfm_policy.errors import ConfigError, RolloutError
from lfm_policy.files import read_json, require_same, write_json

NAMES = {
    "lift": "reconstructed from human Lift actions",
    "square": "reconstructed from human Square actions",
    "can": "reconstructed from human Can motion and actions",
}
PROVENANCE = (
    "robomimic's proficient-human demonstrations, as rounded numbers that github.com/sarthakdas/HALIL-Robomimic wrote "
    "out; for Can the hand's motion of github.com/GuanhuaJi/rovi-aug-extension-robosuite too. Done again in this "
    "simulator: not robomimic's file"
)
HOLD_OUT = 10
"""Every tenth demonstration is for validation."""


@dataclass(frozen=True)
class Rebuilding:
    """What a rebuilt file is a function of, beside the records."""

    task: str
    tries: int = 24
    """Attempts at one record, at most."""
    seed: int = 0

    def identity(self, records: Records) -> dict[str, Any]:
        """Tell what has to agree for two runs to share a folder."""
        names = [record.name for record in records.each]
        return {**asdict(self), "records": names, "suite_version": task(self.task).contract.suite_version}


def rebuild(wanted: Rebuilding, source: Path, out: Path, workers: int) -> dict[str, Any]:
    """Do every record again until it succeeds, write the successes to out/demos.hdf5, and say how many there are.

    Raises:
        ConfigError: there are no records of this task, or the folder holds other demonstrations.
        DataError: the records cannot be read.
        RolloutError: no record succeeds, or a worker died.
    """
    records = read_records(source, wanted.task)
    identity = wanted.identity(records)
    if (out / IDENTITY).exists():
        advice = "choose another folder (out=), or delete it"
        require_same(read_json(out / IDENTITY), identity, f"{out} holds other demonstrations", advice, ConfigError)
    write_json(out / IDENTITY, identity)
    if (out / FILE).exists() and (out / SUMMARY).exists():
        return read_json(out / SUMMARY)
    started = time.perf_counter()
    parts = _attempt_all(wanted, source, len(records.each), out / PARTS, workers)
    kept = [part for part in parts if read_result(part)[0]]
    if not kept:
        raise RolloutError(f"none of {len(parts)} records from {source} succeeds in {wanted.tries} tries each")
    summary = summarize(wanted.task, parts, records)
    valid = list(range(HOLD_OUT - 1, len(kept), HOLD_OUT))
    about = {"source": NAMES[wanted.task], "provenance": PROVENANCE, "rebuilt": summary, "recipe": identity}
    assemble(out / FILE, kept, task(wanted.task), about, valid)
    summary |= {"file": str(out / FILE), "seconds": round(time.perf_counter() - started, 1)}
    write_json(out / SUMMARY, summary)
    shutil.rmtree(out / PARTS)
    return summary


def _attempt_all(wanted: Rebuilding, source: Path, count: int, folder: Path, workers: int) -> list[Path]:
    """Try every record that was not tried yet; returns the parts in the records' order."""
    parts = [part_of(folder, number) for number in range(count)]
    missing = [number for number, part in enumerate(parts) if not part.exists()]
    done = [read_result(part)[0] for part in parts if part.exists()]
    with progress() as bar, processes(workers) as pool:
        row = bar.add_task(f"human {wanted.task}", total=len(parts), completed=len(done), failures=done.count(False))
        for future in as_completed([pool.submit(_rebuild, wanted, source, folder, number) for number in missing]):
            done.append(outcome(future))
            bar.update(row, completed=len(done), failures=done.count(False))
    return parts


@cache
def _prepared(source: Path, name: str) -> tuple[Records, RobosuiteEnvironment]:
    """Return the records, and the environment that this worker process keeps for all of them."""
    return read_records(source, name), RobosuiteEnvironment(task(name))


def _rebuild(wanted: Rebuilding, source: Path, folder: Path, number: int) -> bool:
    records, env = _prepared(source, wanted.task)
    human = records.each[number]
    for tried, attempt in enumerate(attempts(human, wanted.tries)):
        rng = np.random.default_rng([wanted.seed, number, tried])
        observation = place(env, human, attempt, number, rng)
        skill = perform(env, human, attempt, rng)
        episode = record(env, observation, skill, number, rng, noise=0.0)
        if episode.success:
            break
    write_episode(part_of(folder, number), episode, record=number, tries=tried + 1, **_told(attempt))
    return episode.success


def _told(attempt: Attempt) -> dict[str, int | str]:
    """Say how an attempt was made, as attributes of its file."""
    way = "actions executed" if attempt.actions else "motion followed"
    drawn = "drawn within the rounding" if attempt.number else "as written down"
    return {"way": f"{way}, {drawn}", "spot": attempt.spot.how, "lead": attempt.lead}


def summarize(name: str, parts: list[Path], records: Records) -> dict[str, Any]:
    """Tell how many came out of how many, in which way, after how many tries, and which did not."""
    told = []
    for part in parts:
        with h5py.File(part) as file:
            told.append({key: file.attrs[key] for key in ("success", "length", "tries", "way", "spot")})
    kept = [attributes for attributes in told if attributes["success"]]
    lengths, tries = ([int(attributes[key]) for attributes in kept] for key in ("length", "tries"))
    return {
        "what": NAMES[name],
        "records": len(parts),
        "repeated_rows_left_out": records.repeated,
        "kept": len(kept),
        "at_first_try": tries.count(1),
        "most_tries": max(tries),
        "by_way": dict(Counter(str(attributes["way"]) for attributes in kept)),
        "by_place": dict(Counter(str(attributes["spot"]) for attributes in kept)),
        "failed": [
            human.name for human, attributes in zip(records.each, told, strict=True) if not attributes["success"]
        ],
        "steps": {"mean": float(np.mean(lengths)), "min": min(lengths), "max": max(lengths), "total": sum(lengths)},
    }
