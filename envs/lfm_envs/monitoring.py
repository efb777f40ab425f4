"""How well a monitor notices that something is wrong; see `lfm monitor`.

Successful undisturbed episodes set each score's band of alarm levels. Then other seeds are played undisturbed and with
each disturbance, and the scores of their decisions are held against the bands.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from rich.progress import track

import lfm_envs
from lfm_envs.perturbed import CAMERAS, Perturbed
from lfm_policy.choices import Perturbation
from lfm_policy.chunks.band import Band, Trace
from lfm_policy.chunks.delayed import Link
from lfm_policy.chunks.timeline import complete
from lfm_policy.contract import Contract
from lfm_policy.errors import ConfigError
from lfm_policy.files import write_json
from lfm_policy.protocols import ChunkBatch, ChunkPolicy, Environment
from lfm_policy.rollout.planner import Planner
from lfm_policy.rollout.play import Player, play
from lfm_policy.rollout.records import EpisodeResult

if TYPE_CHECKING:
    from lfm_policy.choices import Score
    from lfm_policy.chunks.monitor import Monitor
    from lfm_policy.data.windows.store import Store
    from lfm_policy.models.density import FlowModel
    from lfm_policy.models.policy import LFMPolicy

BATCH = 32
"""Chunks in one call."""
BANDS, OBSERVATIONS = "bands.json", "observations"


@dataclass(frozen=True)
class Trial:
    """What is played, and how it is judged."""

    episodes: int = 30
    """Number of episodes of each kind, on the same seeds."""
    calibration: int = 100
    """Number of undisturbed episodes whose successes set the bands."""
    seed: int = 200_000
    """The first seed of the episodes that are judged; those of the calibration come before."""
    step: int = 12
    """The first step that is disturbed."""
    distance_m: float = 0.08
    """How far the object is moved, or a fifth of it: how much a noisy sensor errs [m]."""
    draws: int = 8
    """Number of draws for each score: probes, noises or samples."""
    false_alarms: float = 0.05
    """Share of successful episodes that may raise an alarm."""
    updates: int = 2000
    """Of the flow on observations."""


@dataclass(frozen=True)
class Played:
    """One episode: its result, and the decisions that were made while another chunk was running."""

    result: EpisodeResult
    steps: np.ndarray
    """(n,)."""
    histories: np.ndarray
    """(n, To, observation_dim)."""
    chunks: np.ndarray
    """(n, T, action_dim): what was promised, completed by the new chunk."""
    frames: np.ndarray | None = None
    """uint8 (n, cameras, height, width, 3): what a policy with cameras saw."""


class Listener:
    """A `ChunkPolicy` that remembers what it was asked, and what it answered.

    Args:
        policy: who answers.
    """

    def __init__(self, policy: ChunkPolicy) -> None:
        self._policy = policy
        self.contract: Contract = policy.contract
        self.observation_steps, self.action_steps = policy.observation_steps, policy.action_steps
        self.noise_shape = policy.noise_shape
        self.histories: list[np.ndarray] = []
        self.chunks: list[np.ndarray] = []
        self.frames: list[np.ndarray] = []

    def clear(self) -> None:
        """Forget."""
        self.histories.clear()
        self.chunks.clear()
        self.frames.clear()

    def predict(self, histories: np.ndarray, noise: np.ndarray, frames: np.ndarray | None = None) -> ChunkBatch:
        """Predict as a `ChunkPolicy`."""
        batch = self._policy.predict(histories, noise, *(() if frames is None else (frames,)))
        self.histories.extend(histories)
        self.chunks.extend(batch.actions)
        self.frames.extend(() if frames is None else frames)
        return batch


def judge(policy: "LFMPolicy", store: "Store", environment: str, trial: Trial, out: Path) -> dict[str, Any]:
    """Set the bands of all scores, judge them, and write bands.json, scores.json and the flow on observations.

    Args:
        policy: in torch.
        store: demonstrations, whose observations `logpzo` is fitted to.
        environment: its name.
        trial: what is played.
        out: folder of the files.

    Returns:
        For each score and disturbance how often and how soon it is noticed, as plain values.

    Raises:
        ConfigError: too few undisturbed episodes succeed for such a share of false alarms.
    """
    observations = fitted(policy, store, trial.updates)
    observations.save_pretrained(out / OBSERVATIONS)
    before = range(trial.seed - trial.calibration, trial.seed)
    seeds = range(trial.seed, trial.seed + trial.episodes)
    calm = [played for played in played_with("none", before, policy, environment, trial) if played.result.success]
    if not any(len(played.steps) for played in calm):
        raise ConfigError(
            f"what is usual is learned from successes of more than a chunk, and none of {trial.calibration} "
            "undisturbed episodes is one: take a better policy, or more episodes (calibration=)"
        )
    runs = {kind: list(played_with(kind, seeds, policy, environment, trial)) for kind in kinds_for(policy.contract)}
    results, bands, scored = {}, {}, {}
    longest = max(calm, key=lambda played: len(played.steps))
    for name in track(scores_for(policy), "scores"):
        monitor = _monitor(policy, name, trial, observations)
        band = Band.calibrate(name, trial.draws, traces(monitor, calm), trial.false_alarms)
        found = {kind: traces(monitor, run) for kind, run in runs.items()}
        results[name] = judged(band, found, runs, trial) | {"ms": _milliseconds(monitor, longest)}
        bands[name] = band.model_dump(mode="json")
        scored[name] = {kind: [trace.scores.tolist() for trace in found[kind]] for kind in found}
    write_json(out / BANDS, bands)
    write_json(out / "scores.json", scored)
    counts = {kind: sum(played.result.success for played in run) for kind, run in runs.items()}
    calibration = {"episodes": trial.calibration, "successes": len(calm)}
    return {"calibration": calibration, "successes": counts, "scores": results}


def scores_for(policy: "LFMPolicy") -> "list[Score]":
    """Return the scores that can be asked of a policy: all of a flow, two of a student or diffusion model, or one."""
    from lfm_policy.chunks.monitor import OF_FLOWS, SCORES

    chain = policy.spec.chain
    if chain.objective in ("regression", "mip"):
        return ["logpzo"]
    student = chain.solver.method == "euler" and max(chain.solver.counts) == 1
    return [score for score in SCORES if score not in OF_FLOWS or (chain.objective == "flow" and not student)]


def kinds_for(contract: Contract) -> list[Perturbation]:
    """Return the disturbances that there can be: what has no fingers cannot lose their grip, nor cameras their view."""
    seeing = [kind for kind in get_args(Perturbation) if CAMERAS.get(kind, 0) <= len(contract.cameras)]
    return [kind for kind in seeing if kind != "loose" or contract.grippers]


def fitted(policy: "LFMPolicy", store: "Store", updates: int) -> "FlowModel":
    """Fit the flow on what the policy would be conditioned on in the demonstrations."""
    import torch

    from lfm_policy.training.observations import fit_observations

    before, parts = policy.observation_steps - 1, []
    for index in store.train:
        episode = store.episode(int(index))
        rows = episode.observation
        padded = np.concatenate([rows[:1].repeat(before, axis=0), rows])
        histories = np.lib.stride_tricks.sliding_window_view(padded, before + 1, axis=0).swapaxes(1, 2)
        with torch.no_grad():
            features = policy.see(None if episode.frames is None else torch.from_numpy(episode.frames))
            parts.append(policy.condition(torch.from_numpy(np.ascontiguousarray(histories)), features))
    return fit_observations(torch.cat(parts), updates)


def played_with(kind: str, seeds: range, policy: ChunkPolicy, name: str, trial: Trial) -> Iterator[Played]:
    """Play episodes under a disturbance, and yield what was decided in each."""
    inner = lfm_envs.make(name, **lfm_envs.view_for(policy.contract))
    environment = Perturbed(inner, kind, trial.step, trial.distance_m)
    policy.contract.require_match(environment.contract, "the policy", f"environment {name}")
    listener = Listener(policy)
    planner = Planner(listener)
    try:
        for seed in track(seeds, f"episodes: {kind}"):
            yield _played(environment, listener, planner, seed)
    finally:
        environment.close()


def _played(environment: Environment, listener: Listener, planner: Planner, seed: int) -> Played:
    listener.clear()
    *_, result = play(environment, Player(listener, Link()), planner, seed, None)
    assert isinstance(result, EpisodeResult)
    # a planner asks twice the first time, so the last ones are the episode's
    histories, chunks = (np.stack(rows[-result.chunks :]) for rows in (listener.histories, listener.chunks))
    count = listener.action_steps
    promised = [complete(last[count:], chunk) for last, chunk in pairwise(chunks)]
    steps = count * np.arange(1, len(chunks))
    frames = np.stack(listener.frames[-result.chunks :])[1:] if listener.frames else None
    return Played(result, steps, histories[1:], np.array(promised, np.float32).reshape(-1, *chunks.shape[1:]), frames)


def traces(monitor: "Monitor", run: Sequence[Played]) -> list[Trace]:
    """Score all decisions of all episodes."""
    histories, chunks = (np.concatenate([getattr(p, name) for p in run]) for name in ("histories", "chunks"))
    seen = [played.frames for played in run if played.frames is not None]
    frames = np.concatenate(seen) if seen else None
    parts = [slice(first, first + BATCH) for first in range(0, len(chunks), BATCH)]
    found = [monitor.scores(histories[p], chunks[p], None if frames is None else frames[p]) for p in parts]
    scores = np.concatenate(found)
    ends = np.cumsum([len(played.steps) for played in run])[:-1]
    return [Trace(played.steps, found) for played, found in zip(run, np.split(scores, ends), strict=True)]


def judged(
    band: Band, found: Mapping[str, Sequence[Trace]], runs: Mapping[str, Sequence[Played]], trial: Trial
) -> dict[str, Any]:
    """Hold the scores against the band: false alarms, and of each disturbance how often and how soon it is noticed."""
    calm = [trace for trace, played in zip(found["none"], runs["none"], strict=True) if played.result.success]
    false = sum(band.alarm(trace) is not None for trace in calm)
    rows = {
        kind: _noticed(band, found[kind], runs[kind], found["none"], (false, len(calm)), trial)
        for kind in found
        if kind != "none"
    }
    hits, episodes = (sum(row[key] for row in rows.values()) for key in ("noticed", "episodes"))
    return {
        "false_alarms": _share(false, len(calm)),
        "disturbances": rows,
        "all": _balance(hits, episodes, false, len(calm)),
        "band": {"episodes": band.episodes, "false_alarms": band.false_alarms},
    }


def _noticed(
    band: Band,
    found: Sequence[Trace],
    run: Sequence[Played],
    usual: Sequence[Trace],
    calm: tuple[int, int],
    trial: Trial,
) -> dict[str, Any]:
    """Judge one disturbance; an alarm before it is none of its."""
    from lfm_policy.measure.statistics import auroc, auroc_interval

    alarms = [band.alarm(trace) for trace in found]
    after = [step for step in alarms if step is not None and step >= trial.step]
    failed = [alarm for alarm, played in zip(alarms, run, strict=True) if not played.result.success]
    highest, lowest = (_highest(traces, trial.step) for traces in (found, usual))
    return {
        "noticed": len(after),
        "episodes": len(found),
        **_balance(len(after), len(found), *calm),
        "failed": len(failed),
        "failed_noticed": sum(step is not None and step >= trial.step for step in failed),
        "steps_to_alarm": float(np.median(after)) - trial.step if after else None,
        "auroc": auroc(lowest, highest),
        "auroc_interval": auroc_interval(lowest, highest),
    }


def _highest(found: Sequence[Trace], step: int) -> list[float]:
    """Find the highest score from a step on, of each episode that had any."""
    later = [trace.scores[trace.steps >= step] for trace in found]
    return [float(scores.max()) for scores in later if len(scores)]


def _share(count: int, of: int) -> dict[str, Any]:
    from lfm_policy.measure.statistics import wilson_interval

    return {"count": count, "of": of, "share": count / of if of else None, "interval": wilson_interval(count, of)}


def _balance(hits: int, disturbed: int, false: int, calm: int) -> dict[str, Any]:
    from lfm_policy.measure.statistics import balanced_accuracy

    value, interval = balanced_accuracy(hits, disturbed, calm - false, calm)
    return {"noticed_share": _share(hits, disturbed), "balanced_accuracy": value, "interval": interval}


def _monitor(policy: "LFMPolicy", score: "Score", trial: Trial, observations: "FlowModel") -> "Monitor":
    from lfm_policy.chunks.monitor import Monitor

    return Monitor(policy, score, trial.draws, observations=observations)


def _milliseconds(monitor: "Monitor", played: Played, repeats: int = 5) -> float:
    """Return the median time of one score [ms]."""
    seconds, frames = [], None if played.frames is None else played.frames[:1]
    for _ in range(repeats):
        started = perf_counter()
        monitor.scores(played.histories[:1], played.chunks[:1], frames)
        seconds.append(perf_counter() - started)
    return round(1000 * float(np.median(seconds)), 2)
