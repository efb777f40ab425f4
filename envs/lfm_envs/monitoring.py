"""How well a policy's own density notices that something is wrong; see `lfm monitor`.

Alarm levels are quantiles over held-out demonstrations. Then episodes are run undisturbed, with the object moved
halfway, with the observation in the wrong order and with a frozen sensor, and the same decisions of each are scored.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from rich.progress import track

import lfm_envs
from lfm_envs.perturbed import Perturbation, Perturbed
from lfm_policy.chunks.horizon import EpisodeInputs, RecedingHorizon
from lfm_policy.chunks.timeline import complete
from lfm_policy.errors import ConfigError
from lfm_policy.files import write_json
from lfm_policy.protocols import ChunkPolicy, Environment

if TYPE_CHECKING:
    from lfm_policy.chunks.monitor import Monitor, Threshold
    from lfm_policy.data.windows.store import Store
    from lfm_policy.models.policy import LFMPolicy


BATCH = 32
"""Chunks in one call."""


@dataclass(frozen=True)
class Trial:
    """Episodes that are disturbed, and which of their decisions are judged."""

    episodes: int = 30
    """Number of episodes of each kind, on the same seeds."""
    seed: int = 200_000
    """The first seed."""
    step: int = 12
    """The first step that is disturbed."""
    decisions: int = 2
    """Chunks judged in each episode, from the disturbance on; the highest score counts."""
    distance_m: float = 0.08
    """How far the object is moved [m]."""
    draws: int = 8
    """Number of draws for each score: probes, noises or samples."""
    quantile: float = 0.95
    """Quantile of the held-out scores at which the alarm is set."""


@dataclass(frozen=True)
class Decisions:
    """Moments at which a chunk was chosen while another one was running."""

    histories: np.ndarray
    """(n, To, observation_dim)."""
    chunks: np.ndarray
    """(n, T, action_dim): what was promised, completed by the new chunk."""


def judge(policy: "LFMPolicy", store: "Store", environment: str, trial: Trial, out: Path) -> dict[str, Any]:
    """Score disturbed episodes, and write thresholds.json and scores.json.

    Args:
        policy: a flow, not a student, in torch.
        store: its held-out demonstrations set the alarm levels.
        environment: its name.
        trial: what is run.
        out: folder of the files.

    Returns:
        For each score AUROC, its interval, shares of alarms and time, as plain values.
    """
    from lfm_policy.chunks.monitor import SCORES, Monitor, Threshold

    calm = held_out(policy, store)
    kinds = get_args(Perturbation)
    runs = {kind: Decisions(*_stacked(list(disturbed(policy, kind, environment, trial)))) for kind in kinds}
    results: dict[str, Any] = {}
    levels: dict[str, Any] = {}
    scored: dict[str, Any] = {}
    for name in SCORES:
        monitor = Monitor(policy, name, trial.draws)
        threshold = Threshold.calibrate(monitor, monitor.scores(calm.histories, calm.chunks), trial.quantile)
        found = {kind: _worst(monitor, run, trial.decisions) for kind, run in runs.items()}
        scored[name] = {kind: values.tolist() for kind, values in found.items()}
        results[name] = _judged(found, threshold) | {"ms": _milliseconds(monitor, calm)}
        levels[name] = threshold.model_dump(mode="json")
    write_json(out / "thresholds.json", levels)
    write_json(out / "scores.json", scored)
    return results


def held_out(policy: ChunkPolicy, store: "Store") -> Decisions:
    """Return decisions in the demonstrations that were not trained on, a chunk's length apart."""
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


def disturbed(policy: ChunkPolicy, kind: str, name: str, trial: Trial) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the first decisions of each episode from the disturbance on."""
    environment = Perturbed(
        lfm_envs.make(name, **lfm_envs.view_for(policy.contract)), kind, trial.step, trial.distance_m
    )
    policy.contract.require_match(environment.contract, "the policy", f"environment {name}")
    try:
        for seed in track(range(trial.seed, trial.seed + trial.episodes), f"episodes: {kind}"):
            yield from _episode(policy, environment, seed, trial)
    finally:
        environment.close()


def _episode(
    policy: ChunkPolicy, environment: Environment, seed: int, trial: Trial
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    horizon, last = RecedingHorizon(policy, seed), None
    rows, step, judged = [environment.contract.flatten(environment.reset(seed))], 0, 0
    while judged < trial.decisions:
        horizon.observe(np.stack(rows))
        chunk = policy.predict(horizon.history[None], horizon.noise[None]).actions[0]
        if step >= trial.step and last is not None:
            yield horizon.history, complete(last[policy.action_steps :], chunk)
            judged += 1
        last, actions = chunk, horizon.advance(chunk).actions
        rows = [environment.contract.flatten(environment.step(action).observation) for action in actions]
        step += len(actions)


def _stacked(decisions: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    histories, chunks = zip(*decisions, strict=True)
    return np.stack(histories), np.stack(chunks)


def _worst(monitor: "Monitor", run: Decisions, decisions: int) -> np.ndarray:
    """Find the highest score of each episode."""
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
    """Return the median time of one score [ms]."""
    seconds = []
    for _ in range(repeats):
        started = perf_counter()
        monitor.scores(decisions.histories[:1], decisions.chunks[:1])
        seconds.append(perf_counter() - started)
    return round(1000 * float(np.median(seconds)), 2)
