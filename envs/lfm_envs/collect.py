"""Collecting demonstrations from a scripted expert: parallel, restartable, the same file whatever the workers."""

import shutil
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lfm_envs.episodes import assemble, perform, read_result, write_episode
from lfm_envs.experts import Expert, expert
from lfm_envs.modes import modes_of
from lfm_envs.pool import outcome, processes
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_envs.simulator import Kind
from lfm_envs.tasks import task
from lfm_policy.errors import ConfigError, RolloutError
from lfm_policy.files import read_json, require_same, write_json

FILE, SUMMARY, IDENTITY, PARTS = "demos.hdf5", "summary.json", "recipe.json", "episodes"
VALID_FRACTION = 0.1


@dataclass(frozen=True)
class Recipe:
    """What a collection is a function of."""

    task: str
    episodes: int
    seed: int
    noise: float = 1.0
    simulation: Kind = "compiled"
    """Who steps; not part of the identity, as the demonstrations are the same bits."""
    modes: int = 1
    """Ways to do the task, of which each attempt takes one by chance."""

    def identity(self) -> dict[str, Any]:
        """Tell what has to agree for two runs to share a folder."""
        ours = {name: value for name, value in vars(self).items() if name not in ("simulation", "modes")}
        modes = {"modes": self.modes} if self.modes > 1 else {}
        return {**ours, **modes, "suite_version": task(self.task).contract.suite_version}

    @property
    def names(self) -> tuple[str, ...]:
        """The modes' names; empty where there is one."""
        return modes_of(task(self.task), self.modes).names if self.modes > 1 else ()

    @property
    def expert(self) -> Expert:
        """Who demonstrates.

        Raises:
            ConfigError: nobody does, or not in so many ways.
        """
        return modes_of(task(self.task), self.modes).expert if self.modes > 1 else expert(self.task)

    def episode_seed(self, attempt: int) -> int:
        """Return the seed of one attempt: far from the small consecutive ones of evaluations, and other recipes'."""
        return int(np.random.SeedSequence([self.seed, attempt]).generate_state(1)[0])


def collect(recipe: Recipe, out: Path, workers: int) -> dict[str, Any]:
    """Write `recipe.episodes` successful demonstrations to out/demos.hdf5 and a summary beside it.

    Running it again continues; a finished collection is left as it is. Returns the summary.

    Raises:
        ConfigError: the task has no expert, or the folder holds another collection.
        RolloutError: a worker died, or the expert fails too often.
    """
    _ = recipe.expert
    _claim(out, recipe)
    if (out / FILE).exists() and (out / SUMMARY).exists():
        return read_json(out / SUMMARY)
    begun = time.monotonic()
    results = _attempt_all(recipe, out / PARTS, workers)
    kept = [attempt for attempt, (success, _) in sorted(results.items()) if success]
    valid = np.random.default_rng(recipe.seed).permutation(len(kept))[: _valid_count(len(kept))]
    parts = [part_of(out / PARTS, attempt) for attempt in kept]
    about = {"recipe": recipe.identity()}
    assemble(out / FILE, parts, task(recipe.task), about, valid.tolist(), modes=recipe.names)
    lengths = [results[attempt][1] for attempt in kept]
    summary = {
        **recipe.identity(),
        "file": str(out / FILE),
        "attempts": len(results),
        "expert_success": len(kept) / len(results),
        "steps": {"mean": float(np.mean(lengths)), "min": min(lengths), "max": max(lengths), "total": sum(lengths)},
        "seconds": time.monotonic() - begun,
    }
    write_json(out / SUMMARY, summary)
    shutil.rmtree(out / PARTS)
    return summary


def _claim(out: Path, recipe: Recipe) -> None:
    """Make the folder this recipe's, or refuse if it is another's."""
    ours, path = recipe.identity(), out / IDENTITY
    if not path.exists():
        write_json(path, ours)
        return
    advice = "choose another folder (out=), or delete it"
    require_same(read_json(path), ours, f"{out} holds another collection", advice, ConfigError)


def _attempt_all(recipe: Recipe, folder: Path, workers: int) -> dict[int, tuple[bool, int]]:
    """Make attempts 0, 1, 2, … until enough have succeeded: attempt -> (success, steps)."""
    results = {int(path.stem): read_result(path) for path in sorted(folder.glob("*.hdf5"))}
    pending: dict[Future, int] = {}
    with progress() as bar, processes(workers) as pool:
        row = bar.add_task(f"demonstrations of {recipe.task}", total=recipe.episodes, failures=0)
        while (kept := _show(bar, row, results)) < recipe.episodes:
            _check_worth(recipe, results, kept)
            # Never more than could be needed: so the set of attempts does not depend on who finishes first.
            while kept + len(pending) < recipe.episodes and len(pending) < 2 * workers:
                attempt = _lowest_missing({*results, *pending.values()})
                pending[pool.submit(_attempt, recipe, folder, attempt)] = attempt
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                results[pending.pop(future)] = outcome(future)
    return results


def _check_worth(recipe: Recipe, results: dict[int, tuple[bool, int]], kept: int) -> None:
    failures = len(results) - kept
    if failures > max(20, kept):
        raise RolloutError(
            f"the {recipe.task} expert failed in {failures} of {len(results)} episodes: giving up; try noise=0.5"
        )


def _show(bar: Progress, row: TaskID, results: dict[int, tuple[bool, int]]) -> int:
    """Update the progress bar, and return the number of successes."""
    kept = sum(success for success, _ in results.values())
    bar.update(row, completed=kept, failures=len(results) - kept)
    return kept


def _lowest_missing(taken: set[int]) -> int:
    return next(attempt for attempt in range(len(taken) + 1) if attempt not in taken)


def _valid_count(episodes: int) -> int:
    return max(1, round(VALID_FRACTION * episodes)) if episodes > 1 else 0


def part_of(folder: Path, attempt: int) -> Path:
    """Return where the episode of one attempt is kept until all are there."""
    return folder / f"{attempt:06d}.hdf5"


def progress() -> Progress:
    """Make a bar of demonstrations, with failures and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failures]} failed"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


@cache
def _environment(task_name: str, simulation: Kind) -> RobosuiteEnvironment:
    """Return the environment that this worker process keeps for all its episodes."""
    return RobosuiteEnvironment(task(task_name), simulation)


def _attempt(recipe: Recipe, folder: Path, attempt: int) -> tuple[bool, int]:
    env = _environment(recipe.task, recipe.simulation)
    episode = perform(env, recipe.expert, recipe.episode_seed(attempt), recipe.noise)
    write_episode(part_of(folder, attempt), episode)
    return episode.success, len(episode.steps)
