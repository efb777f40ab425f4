"""Does a demonstration file mean what it says? `diagnose` measures, `prove` replays, `verdict` collects the findings.

file says -> declared readings ----.
numbers, recorded states -> found readings -> findings <- replays in delta and absolute form
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from lfm_envs.doctor.checks import (
    Readings,
    arm_of,
    check_observations,
    check_readings,
    check_settings,
    clock_hz,
    declared_readings,
    found_readings,
    observation_gap,
)
from lfm_envs.doctor.findings import Finding
from lfm_envs.doctor.proofs import Proof, as_absolute, as_deltas, check_replays, prove, summarize
from lfm_envs.doctor.recorded import Recorded, read_episode
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_policy.data.demos.file import DemoFile

__all__ = ["Diagnosis", "Proof", "Recorded", "diagnose", "prove", "read_episode", "summarize", "verdict", "versions"]

PACKAGES = ("lfm-policy", "robosuite", "mujoco", "robomimic", "numpy", "torch")


@dataclass(frozen=True)
class Diagnosis:
    """What was measured in a file."""

    declared: Readings
    found: Readings
    findings: tuple[Finding, ...]
    """All findings except those of replays."""
    control_hz: float | None
    """Control frequency by the clock in the states."""
    observations: list[dict[str, Any]]
    """For each key: name, dim, smallest and largest value here, and the gap to the file's (None without any)."""
    saturation: list[dict[str, float]]
    """For each arm: share of steps whose translation or rotation command is at the controller's limit."""
    clipped: int
    """Numbers of the deltas beyond ±1."""
    observation: np.ndarray
    """What the simulator observes, in the contract's order: (S, D)."""
    action: np.ndarray
    """Absolute actions (S, A)."""


def diagnose(env: RobosuiteEnvironment, file: DemoFile, episodes: Sequence[Recorded]) -> Diagnosis:
    """Hold what the file says against its numbers. Nothing is executed."""
    declared = declared_readings(file, episodes[0])
    found = found_readings(declared, episodes)
    hz = clock_hz(episodes)
    findings = [*check_settings(file, env.contract, hz), *check_readings(declared, found)]
    if file.kind != "raw":
        findings += check_observations(env.contract, episodes, binding=file.kind == "native")
    return Diagnosis(
        declared,
        found,
        tuple(findings),
        hz,
        _observations(env, episodes),
        _saturation(episodes, found),
        _clipped(episodes, found),
        np.concatenate([env.contract.flatten(episode.simulated) for episode in episodes]),
        np.concatenate([as_absolute(episode, "actions", found["actions"]) for episode in episodes]),
    )


def verdict(env: RobosuiteEnvironment, file: DemoFile, diagnosis: Diagnosis, proofs: Sequence[Proof]) -> list[Finding]:
    """Return all findings about the file; none if it is healthy."""
    series = [name.split(".")[:2] for name in (file.recording.suite_version, env.contract.suite_version)]
    return [*diagnosis.findings, *check_replays(proofs, same_physics=series[0] == series[1])]


def versions() -> dict[str, str]:
    """Tell what is installed here."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _observations(env: RobosuiteEnvironment, episodes: Sequence[Recorded]) -> list[dict[str, Any]]:
    rows = []
    for key in env.contract.observations:
        here = np.concatenate([episode.simulated[key.name] for episode in episodes])
        parts = [episode.observation[key.name] for episode in episodes if key.name in episode.observation]
        file = np.concatenate(parts) if parts else None
        gap = observation_gap(file, here) if file is not None and file.shape == here.shape else None
        rows.append({"name": key.name, "dim": key.dim, "min": here.min().item(), "max": here.max().item(), "gap": gap})
    return rows


def _saturation(episodes: Sequence[Recorded], found: Readings) -> list[dict[str, float]]:
    deltas = np.concatenate([as_deltas(episode, "actions", found["actions"]) for episode in episodes])
    rows = []
    for arm in np.split(np.abs(deltas), len(episodes[0].arms), axis=1):
        parts = {"translation": arm[:, :3], "rotation": arm[:, 3:6]}
        rows.append({name: float((part >= 1).any(axis=1).mean()) for name, part in parts.items()})
    return rows


def _clipped(episodes: Sequence[Recorded], found: Readings) -> int:
    arms = [arm for arm, reading in enumerate(found["actions"]) if reading.form == "delta"]
    return sum(int((np.abs(arm_of(episode, "actions", arm)) > 1).sum()) for episode in episodes for arm in arms)
