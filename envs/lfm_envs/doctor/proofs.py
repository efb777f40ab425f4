"""The proof: what the actions lead to when they are executed, as deltas and as absolute poses."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lfm_envs.doctor.checks import arm_of
from lfm_envs.doctor.findings import Finding
from lfm_envs.doctor.readings import Reading
from lfm_envs.doctor.recorded import Recorded
from lfm_envs.replay import Replay, replay
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_policy.actions.poses import encode_absolute
from lfm_policy.data.demos.recording import Form

SUCCESS = 0.95
POSITION_MM, ROTATION_DEG = 2.0, 0.5
"""Largest mean distances from the recorded path."""


@dataclass(frozen=True)
class Proof:
    """One replay of one episode."""

    episode: str
    form: Form
    found: bool
    """Whether it was read as found; otherwise as the file says."""
    replay: Replay


def as_deltas(episode: Recorded, key: str, readings: Sequence[Reading]) -> np.ndarray:
    """Return actions as world-frame deltas (L, 7 * arms); deltas that are so already stay as they are."""
    rows = []
    for arm, (path, reading) in enumerate(zip(episode.arms, readings, strict=True)):
        numbers = arm_of(episode, key, arm)
        if (reading.form, reading.frame) != ("delta", "world"):
            numbers = np.hstack([np.clip(path.offsets(path.goals(numbers, reading)), -1, 1), numbers[:, -1:]])
        rows.append(numbers)
    return np.hstack(rows)


def as_absolute(episode: Recorded, key: str, readings: Sequence[Reading]) -> np.ndarray:
    """Return actions in the contract's form (L, 10 * arms)."""
    rows = []
    for arm, (path, reading) in enumerate(zip(episode.arms, readings, strict=True)):
        numbers = arm_of(episode, key, arm)
        goals = path.goals(numbers, reading)
        rows.append(encode_absolute(goals.position, goals.matrix, numbers[:, -1:]))
    return np.hstack(rows)


def prove(
    env: RobosuiteEnvironment, episode: Recorded, found: Sequence[Reading], declared: Sequence[Reading]
) -> Iterator[Proof]:
    """Execute an episode in both forms, read as found and, where that differs, as the file says."""
    key = episode.executed
    for readings in [found] if tuple(found) == tuple(declared) else [found, declared]:
        forms: tuple[tuple[Form, Callable], ...] = (("delta", as_deltas), ("absolute", as_absolute))
        for form, convert in forms:
            actions = convert(episode, key, readings)
            result = replay(env, episode.states, actions, episode.model_xml, form)
            yield Proof(episode.name, form, readings is found, result)


def check_replays(proofs: Sequence[Proof], same_physics: bool) -> Iterator[Finding]:
    """Return a finding for each form whose replays fail or stray, read as found.

    Args:
        proofs: of all episodes.
        same_physics: this robosuite series recorded the file; deltas add up what another physics changes, poses do not.
    """
    for form in ("delta", "absolute"):
        replays = [proof.replay for proof in proofs if proof.found and proof.form == form]
        if not replays or (form == "delta" and not same_physics):
            continue
        summary = summarize(replays)
        strays = summary["position_mean_mm"] > POSITION_MM or summary["rotation_mean_deg"] > ROTATION_DEG
        if summary["success"] < SUCCESS or strays:
            yield Finding(
                "replay",
                f"{form} replay: success {summary['success']:.2f}, on average {summary['position_mean_mm']:.1f} mm and "
                f"{summary['rotation_mean_deg']:.2f}° from the recorded path",
                f"expected success of {SUCCESS} or more within {POSITION_MM:g} mm and {ROTATION_DEG:g}°: mend the "
                "other findings first; if there are none, the actions are not those that led along the recorded "
                "states, or the scene's model is another",
            )


def summarize(replays: Sequence[Replay]) -> dict[str, float]:
    """Return the success rate, and distances from the recorded path over all steps of all replays."""
    position = 1e3 * np.concatenate([replay.position_error for replay in replays])
    rotation = np.degrees(np.concatenate([replay.rotation_error for replay in replays]))
    return {
        "episodes": len(replays),
        "success": float(np.mean([replay.success for replay in replays])),
        "position_mean_mm": round(float(position.mean()), 3),
        "position_max_mm": round(float(position.max()), 3),
        "rotation_mean_deg": round(float(rotation.mean()), 3),
        "rotation_max_deg": round(float(rotation.max()), 3),
    }
