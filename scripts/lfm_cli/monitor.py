"""How well a policy's own density notices that something is wrong: AUROC of three scores on disturbed episodes.

    lfm monitor checkpoint=outputs/lift demonstrations=data/lift.zarr episodes=30

Alarm levels are quantiles over the held-out demonstrations. Then episodes are run undisturbed, with the object moved
halfway, with the observation in the wrong order and with a frozen sensor, and the same decisions of each are scored.
Leaves summary.json, thresholds.json (for lfm control monitor=) and scores.json in the output folder.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from pydantic import Field
from rich.console import Console
from rich.progress import track
from rich.table import Table

import lfm_envs
from lfm_cli import command_line as _cli
from lfm_envs.perturbed import Perturbation, Perturbed
from lfm_policy.bundles.open import Sampling, open_torch
from lfm_policy.chunks.horizon import EpisodeInputs, RecedingHorizon
from lfm_policy.chunks.timeline import complete
from lfm_policy.errors import ConfigError
from lfm_policy.files import write_json
from lfm_policy.flow.ode import Method
from lfm_policy.protocols import ChunkPolicy, Environment
from lfm_policy.settings import Frozen

if TYPE_CHECKING:
    from lfm_policy.chunks.monitor import Monitor, Threshold
    from lfm_policy.data.windows.store import Store


BATCH = 32
"""Chunks in one call."""


class Settings(Frozen):
    """See config/monitor.yaml."""

    checkpoint: Path
    demonstrations: Path
    environment: str | None
    episodes: int = Field(ge=2)
    seed: int = Field(ge=0)
    step: int = Field(ge=1)
    decisions: int = Field(ge=1)
    distance_m: float = Field(gt=0)
    draws: int = Field(ge=2)
    quantile: float = Field(gt=0, lt=1)
    solver: Method | None
    steps: int | None = Field(ge=1)
    threads: int = Field(ge=1)
    trust_code: bool = False
    out: Path


@dataclass(frozen=True)
class Decisions:
    """Moments at which a chunk was chosen while another one was running."""

    histories: np.ndarray
    """(n, To, observation_dim)."""
    chunks: np.ndarray
    """(n, T, action_dim): what was promised, completed by the new chunk."""


def main(settings: Settings) -> None:
    import torch

    from lfm_policy.chunks.monitor import SCORES, Monitor, Threshold
    from lfm_policy.data.windows.store import open_store

    torch.set_num_threads(settings.threads)
    policy = open_torch(
        settings.checkpoint,
        sampling=Sampling(solver=settings.solver, steps=settings.steps),
        threads=settings.threads,
        trust_code=settings.trust_code,
    )
    store = open_store(settings.demonstrations)
    policy.contract.require_match(store.contract, f"checkpoint {settings.checkpoint}", str(settings.demonstrations))
    kinds = get_args(Perturbation)
    calm = held_out(policy, store)
    runs = {kind: Decisions(*_stacked(list(disturbed(policy, kind, settings)))) for kind in kinds}
    results: dict[str, Any] = {}
    levels: dict[str, Any] = {}
    scored: dict[str, Any] = {}
    for name in SCORES:
        monitor = Monitor(policy, name, settings.draws)
        threshold = Threshold.calibrate(monitor, monitor.scores(calm.histories, calm.chunks), settings.quantile)
        found = {kind: _worst(monitor, run, settings.decisions) for kind, run in runs.items()}
        scored[name] = {kind: values.tolist() for kind, values in found.items()}
        results[name] = _judged(found, threshold) | {"ms": _milliseconds(monitor, calm)}
        levels[name] = threshold.model_dump(mode="json")
    write_json(settings.out / "thresholds.json", levels)
    write_json(settings.out / "scores.json", scored)
    summary = {"task": policy.contract.environment, "checkpoint": policy.digest(), "scores": results}
    write_json(settings.out / "summary.json", summary | {"settings": settings.model_dump(mode="json")})
    show(results, kinds)


def held_out(policy: ChunkPolicy, store: "Store") -> Decisions:
    """Decisions in the demonstrations that were not trained on, a chunk's length apart."""
    histories, noises, follows = [], [], []
    before, count = policy.observation_steps - 1, policy.action_steps
    for index in store.valid:
        rows, inputs = store.episode(int(index)).observation, EpisodeInputs(policy, int(index))
        for step in range(0, len(rows), count):
            inputs.observe(rows[max(0, step - before) : step + 1])
            histories.append(inputs.history)
            noises.append(inputs.noise)
            follows.append(step > 0)
            inputs.answered()
    if not any(follows):
        raise ConfigError(f"{store.path} holds no held-out demonstration of more than one chunk: prepare it with valid")
    parts = [slice(first, first + BATCH) for first in range(0, len(histories), BATCH)]
    chunks = np.concatenate(
        [
            policy.predict(np.stack(histories[part]), np.stack(noises[part])).actions
            for part in track(parts, "held-out demonstrations")
        ]
    )
    later = np.flatnonzero(follows)
    promised = [complete(chunks[k - 1, count:], chunks[k]) for k in later]
    return Decisions(np.stack(histories)[later], np.stack(promised))


def disturbed(policy: ChunkPolicy, kind: str, settings: Settings) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The first decisions of each episode from the disturbance on."""
    name = settings.environment or lfm_envs.name_for(policy.contract)
    environment = Perturbed(lfm_envs.make(name), kind, settings.step, settings.distance_m)
    policy.contract.require_match(environment.contract, f"checkpoint {settings.checkpoint}", f"environment {name}")
    try:
        for seed in track(range(settings.seed, settings.seed + settings.episodes), f"episodes: {kind}"):
            yield from _episode(policy, environment, seed, settings)
    finally:
        environment.close()


def _episode(
    policy: ChunkPolicy, environment: Environment, seed: int, settings: Settings
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    horizon, last = RecedingHorizon(policy, seed), None
    rows, step, judged = [environment.contract.flatten(environment.reset(seed))], 0, 0
    while judged < settings.decisions:
        horizon.observe(np.stack(rows))
        chunk = policy.predict(horizon.history[None], horizon.noise[None]).actions[0]
        if step >= settings.step and last is not None:
            yield horizon.history, complete(last[policy.action_steps :], chunk)
            judged += 1
        last, actions = chunk, horizon.advance(chunk).actions
        rows = [environment.contract.flatten(environment.step(action).observation) for action in actions]
        step += len(actions)


def _stacked(decisions: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    histories, chunks = zip(*decisions, strict=True)
    return np.stack(histories), np.stack(chunks)


def _worst(monitor: "Monitor", run: Decisions, decisions: int) -> np.ndarray:
    """The highest score of each episode."""
    parts = [slice(first, first + BATCH) for first in range(0, len(run.chunks), BATCH)]
    scores = [monitor.scores(run.histories[part], run.chunks[part]) for part in track(parts, monitor.score)]
    return np.concatenate(scores).reshape(-1, decisions).max(axis=1)


def _judged(found: dict[str, np.ndarray], threshold: "Threshold") -> dict[str, Any]:
    from lfm_policy.measure.statistics import auroc, auroc_interval

    usual = found["none"]
    alarms = {kind: float(np.mean(values > threshold.value)) for kind, values in found.items()}
    disturbances = {kind: values for kind, values in found.items() if kind != "none"}
    return {
        "auroc": {kind: auroc(usual, values) for kind, values in disturbances.items()},
        "interval": {kind: auroc_interval(usual, values) for kind, values in disturbances.items()},
        "alarms": alarms,
        "threshold": threshold.model_dump(mode="json"),
    }


def _milliseconds(monitor: "Monitor", decisions: Decisions, repeats: int = 5) -> float:
    """Median time of one score [ms]."""
    seconds = []
    for _ in range(repeats):
        started = perf_counter()
        monitor.scores(decisions.histories[:1], decisions.chunks[:1])
        seconds.append(perf_counter() - started)
    return round(1000 * float(np.median(seconds)), 2)


def show(results: dict[str, Any], kinds: tuple[str, ...]) -> None:
    """The table at the end."""
    table = Table(title="AUROC [95 % interval], share of episodes above the alarm level", title_justify="left")
    for column in ("score", *kinds, "ms"):
        table.add_column(column)
    for name, row in results.items():
        cells = [f"alarms {row['alarms']['none']:.2f}"]
        for kind in kinds[1:]:
            low, high = row["interval"][kind]
            cells.append(f"{row['auroc'][kind]:.3f} [{low:.2f}, {high:.2f}], alarms {row['alarms'][kind]:.2f}")
        table.add_row(name, *cells, f"{row['ms']:.0f}")
    Console().print(table)


if __name__ == "__main__":
    _cli.run("monitor", Settings, main, __doc__)
