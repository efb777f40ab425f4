"""The examination of one demonstration file, and of a checkpoint that is to fit it; see `lfm doctor`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import lfm_envs
from lfm_envs.doctor import Diagnosis, Proof, diagnose, prove, read_episode, summarize, verdict, versions
from lfm_envs.doctor.findings import Finding, examine_checkpoint
from lfm_envs.doctor.pictures import check_pictures, picture_gaps
from lfm_envs.tasks import TASKS, task_of_environment
from lfm_policy.data.demos.file import DemoFile, open_demos


@dataclass(frozen=True)
class Examination:
    """What was found."""

    file: DemoFile
    """What was examined; it is closed."""
    task: str
    findings: tuple[Finding, ...]
    diagnosis: Diagnosis
    proofs: tuple[Proof, ...]
    summary: dict[str, Any]
    """All of it as plain values."""


def examine_file(
    source: Path,
    checkpoint: Path | None = None,
    mask: str | None = None,
    replay: int | Literal["all"] = 3,
    console: Console | None = None,
) -> Examination:
    """Measure and execute demonstrations, and hold a checkpoint against them.

    Args:
        source: HDF5 demonstrations.
        checkpoint: folder of a checkpoint or training run that is to fit them.
        mask: take only the demonstrations of one of the file's filter keys.
        replay: demonstrations to measure and to execute, as deltas and as absolute poses.
        console: where progress is shown.

    Raises:
        DataError: the file cannot be examined.
    """
    started = time.perf_counter()
    contracts = {task.environment: task.contract for task in TASKS.values()}
    with open_demos(source, contracts, strict=False, mask=mask) as file:
        diagnosis, proofs, findings = examine(file, replay, console or Console())
        gaps = picture_gaps(task_of_environment(file.contract.environment), file, chosen(file, replay))
        findings += check_pictures(gaps)
        task, held = task_of_environment(file.contract.environment), None
        if checkpoint is not None:
            more, held = examine_checkpoint(checkpoint, task.contract, diagnosis.observation, diagnosis.action)
            findings += more
        summary = {
            "verdict": "findings" if findings else "healthy",
            "findings": [finding.as_json() for finding in findings],
            "versions": versions(),
            **file.source(),
            "episodes": len(file),
            "control_hz": diagnosis.control_hz,
            "arms": arms(file, diagnosis),
            "observations": diagnosis.observations,
            "pictures": [gap.as_json() for gap in gaps],
            "normaliser": ranges(diagnosis),
            "saturation": diagnosis.saturation,
            "clipped": diagnosis.clipped,
            "notes": notes(file, diagnosis),
            "replay": replays(proofs),
            "checkpoint": held,
            "seconds": round(time.perf_counter() - started, 2),
        }
    return Examination(file, task.name, tuple(findings), diagnosis, tuple(proofs), summary)


def examine(
    file: DemoFile, count: int | Literal["all"], console: Console
) -> tuple[Diagnosis, list[Proof], list[Finding]]:
    """Read, measure, replay."""
    env: Any = lfm_envs.make(f"robosuite/{task_of_environment(file.contract.environment).name}")
    env.reset(0)
    indices = chosen(file, count)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as bar:
        episodes = [read_episode(env, file, index) for index in bar.track(indices, description="reading")]
        diagnosis = diagnose(env, file, episodes)
        proofs = [
            proof
            for episode in bar.track(episodes, description="replaying")
            for proof in prove(env, episode, diagnosis.found[episode.executed], diagnosis.declared[episode.executed])
        ]
    findings = verdict(env, file, diagnosis, proofs)
    env.close()
    return diagnosis, proofs, findings


def chosen(file: DemoFile, count: int | Literal["all"]) -> range:
    """Return the demonstrations to take: the first ones."""
    return range(len(file) if count == "all" else min(count, len(file)))


def arms(file: DemoFile, diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """Give each arm's controller, and how its actions are said and found to be read."""
    return [
        {
            "controller": controller.model_dump(mode="json"),
            "says": {key: str(readings[arm]) for key, readings in diagnosis.declared.items()},
            "found": {key: str(readings[arm]) for key, readings in diagnosis.found.items()},
        }
        for arm, controller in enumerate(file.recording.controllers)
    ]


def ranges(diagnosis: Diagnosis) -> dict[str, Any]:
    """Tell what normalisers fitted on these episodes would use."""
    positions = [arm[:, :3] for arm in np.split(diagnosis.action, diagnosis.action.shape[1] // 10, axis=1)]
    return {
        "action_position_m": [[low.min(axis=0).tolist(), low.max(axis=0).tolist()] for low in positions],
        "observation_largest": float(np.abs(diagnosis.observation).max()),
        "observation_std": diagnosis.observation.std(axis=0).tolist(),
    }


def replays(proofs: Sequence[Proof]) -> dict[str, Any]:
    """Give both forms, as found and (where it differs) as the file says; errors in [mm] and [deg] at each step."""
    table: dict[str, Any] = {}
    for reading, form in dict.fromkeys((proof.found, proof.form) for proof in proofs):
        chosen = [proof for proof in proofs if (proof.found, proof.form) == (reading, form)]
        each = {
            proof.episode: {
                "success": bool(proof.replay.success),
                **proof.replay.errors(),
                "position_mm": np.round(1e3 * proof.replay.position_error, 3).tolist(),
                "rotation_deg": np.round(np.degrees(proof.replay.rotation_error), 3).tolist(),
            }
            for proof in chosen
        }
        name = "as_found" if reading else "as_said"
        table.setdefault(name, {})[form] = {**summarize([proof.replay for proof in chosen]), "each": each}
    return table


def notes(file: DemoFile, diagnosis: Diagnosis) -> list[str]:
    """Tell what is not a finding but good to know."""
    lines, installed = list(file.notes), file.contract.suite_version
    if file.kind != "native":
        lines.append("lfm prepare makes absolute actions and observations at the recorded states from it")
    if file.recording.suite_version.split(".")[:2] != installed.split(".")[:2]:
        lines.append(f"deltas drift in the physics of {installed}, poses do not: only absolute replays are judged")
    if diagnosis.clipped:
        lines.append(f"{diagnosis.clipped} numbers of its deltas are beyond ±1, where the controller clips them")
    return lines
