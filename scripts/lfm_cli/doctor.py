"""Does a demonstration file mean what it says, and does a checkpoint fit it? A verdict, with the fix for each finding.

    lfm doctor source=outputs/demos/lift/demos.hdf5 checkpoint=outputs/lift

Measures what the actions are (deltas or poses, frame, rotation), compares observations with the simulator's at the
recorded states, and executes demonstrations as deltas and as absolute poses. Exits with 0 if all is well, with 1 if
there are findings, with 2 if the file cannot be examined. Leaves summary.json in the output folder.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import PositiveInt
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import lfm_envs
from lfm_cli import command_line as _cli
from lfm_envs.doctor import Diagnosis, Proof, diagnose, prove, read_episode, summarize, verdict, versions
from lfm_envs.doctor.findings import Finding, examine_checkpoint
from lfm_envs.tasks import TASKS, task_of_environment
from lfm_policy.data.demos.file import DemoFile, open_demos
from lfm_policy.files import write_json
from lfm_policy.locks import owned
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """See config/doctor.yaml."""

    source: Path
    filter: str | None = None
    checkpoint: Path | None
    replay: PositiveInt | Literal["all"]
    out: Path | None


def main(settings: Settings) -> None:
    """Examine, print, leave summary.json; exits with 1 if there are findings."""
    started, console = time.perf_counter(), Console()
    contracts = {task.environment: task.contract for task in TASKS.values()}
    with open_demos(settings.source, contracts, strict=False, mask=settings.filter) as file:
        diagnosis, proofs, findings = examine(file, settings.replay, console)
        task, checkpoint = task_of_environment(file.contract.environment), None
        if settings.checkpoint is not None:
            more, checkpoint = examine_checkpoint(
                settings.checkpoint, task.contract, diagnosis.observation, diagnosis.action
            )
            findings += more
        report(file, diagnosis, proofs, console)
        summary = {
            "verdict": "findings" if findings else "healthy",
            "findings": [finding.as_json() for finding in findings],
            "versions": versions(),
            **file.source(),
            "episodes": len(file),
            "control_hz": diagnosis.control_hz,
            "arms": arms(file, diagnosis),
            "observations": diagnosis.observations,
            "normaliser": ranges(diagnosis),
            "saturation": diagnosis.saturation,
            "clipped": diagnosis.clipped,
            "notes": notes(file, diagnosis),
            "replay": replays(proofs),
            "checkpoint": checkpoint,
            "seconds": round(time.perf_counter() - started, 2),
        }
    name = settings.source.stem if settings.source.stem.startswith(task.name) else f"{task.name}_{settings.source.stem}"
    out = settings.out or Path("outputs/doctor") / name
    with owned(out):
        write_json(out / "summary.json", summary)
    print_verdict(findings, console)
    if findings:
        sys.exit(1)


def examine(
    file: DemoFile, count: int | Literal["all"], console: Console
) -> tuple[Diagnosis, list[Proof], list[Finding]]:
    """Read, measure, replay."""
    env: Any = lfm_envs.make(f"robosuite/{task_of_environment(file.contract.environment).name}")
    env.reset(0)
    indices = range(len(file) if count == "all" else min(count, len(file)))
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


def arms(file: DemoFile, diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """Each arm's controller, and how its actions are said and found to be read."""
    return [
        {
            "controller": controller.model_dump(mode="json"),
            "says": {key: str(readings[arm]) for key, readings in diagnosis.declared.items()},
            "found": {key: str(readings[arm]) for key, readings in diagnosis.found.items()},
        }
        for arm, controller in enumerate(file.recording.controllers)
    ]


def ranges(diagnosis: Diagnosis) -> dict[str, Any]:
    """What normalisers fitted on these episodes would use."""
    positions = [arm[:, :3] for arm in np.split(diagnosis.action, diagnosis.action.shape[1] // 10, axis=1)]
    return {
        "action_position_m": [[low.min(axis=0).tolist(), low.max(axis=0).tolist()] for low in positions],
        "observation_largest": float(np.abs(diagnosis.observation).max()),
        "observation_std": diagnosis.observation.std(axis=0).tolist(),
    }


def replays(proofs: Sequence[Proof]) -> dict[str, Any]:
    """Both forms, as found and (where it differs) as the file says; errors in [mm] and [deg] at each step."""
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


def report(file: DemoFile, diagnosis: Diagnosis, proofs: Sequence[Proof], console: Console) -> None:
    """Print what was found."""
    recording = file.recording
    table = Table(title=f"{file.path.name}: {file.kind}, {len(file)} episodes", show_header=False)
    table.add_row("environment", f"{recording.environment}, {', '.join(recording.robots)}")
    table.add_row("recorded with", f"{file.contract.suite} {recording.suite_version}")
    table.add_row("installed", ", ".join(f"{name} {version}" for name, version in versions().items()))
    measured = "no clock in its states" if diagnosis.control_hz is None else f"measured {diagnosis.control_hz:.4g}"
    table.add_row("control", f"{recording.control_hz:g} Hz, {measured}")
    for arm, row in enumerate(arms(file, diagnosis)):
        own = row["controller"]
        reach = f"1 is {own['delta_position_m']:g} m, {own['delta_rotation_rad']:g} rad"
        table.add_row(f"arm {arm}", f"{own['type']}, kp {own['kp']:g}, damping {own['damping_ratio']:g}, {reach}")
        for key, found in row["found"].items():
            said = row["says"][key]
            table.add_row(f"  {key}", found if found == said else f"[red]{found}[/red]; the file says {said}")
        shares = ", ".join(f"{name} in {share:.0%} of steps" for name, share in diagnosis.saturation[arm].items())
        table.add_row("  saturated", shares)
    for arm, (low, high) in enumerate(ranges(diagnosis)["action_position_m"]):
        axes = ", ".join(f"{axis} {a:.3f} … {b:.3f}" for axis, a, b in zip("xyz", low, high, strict=True))
        table.add_row("normaliser", f"arm {arm}'s positions {axes} \\[m]")
    for note in notes(file, diagnosis):
        table.add_row("note", note)
    console.print(table)
    console.print(observation_table(diagnosis))
    console.print(replay_table(proofs))


def notes(file: DemoFile, diagnosis: Diagnosis) -> list[str]:
    """What is no finding and good to know."""
    lines, installed = list(file.notes), file.contract.suite_version
    if file.kind != "native":
        lines.append("lfm prepare makes absolute actions and observations at the recorded states from it")
    if file.recording.suite_version.split(".")[:2] != installed.split(".")[:2]:
        lines.append(f"deltas drift in the physics of {installed}, poses do not: only absolute replays are judged")
    if diagnosis.clipped:
        lines.append(f"{diagnosis.clipped} numbers of its deltas are beyond ±1, where the controller clips them")
    return lines


def observation_table(diagnosis: Diagnosis) -> Table:
    """Keys in their order, with the gap between file and simulator."""
    table = Table("observation", "dim", "min", "max", "gap", title="observations at the recorded states")
    for row in diagnosis.observations:
        gap = "" if row["gap"] is None else f"{row['gap']:.4f}"
        table.add_row(row["name"], str(row["dim"]), f"{row['min']:.3f}", f"{row['max']:.3f}", gap)
    return table


def replay_table(proofs: Sequence[Proof]) -> Table:
    """Success and distance from the recorded path of each replay."""
    table = Table("episode", "executed as", title="replays, and their distance from the path")
    for column in ("success", "mean mm", "max", "mean °", "max"):
        table.add_column(column, justify="right")
    for proof in proofs:
        errors = (f"{value:.2f}" for value in proof.replay.errors().values())
        form = proof.form if proof.found else f"{proof.form}, as the file says"
        table.add_row(proof.episode, form, "yes" if proof.replay.success else "no", *errors)
    return table


def print_verdict(findings: Sequence[Finding], console: Console) -> None:
    """The findings, each with its fix."""
    for finding in findings:
        console.print(f"[red]{finding.trap}[/red]: {escape(finding.what)}\n    fix: {escape(finding.fix)}")
    console.print("verdict: " + (f"[red]{len(findings)} finding(s)[/red]" if findings else "[green]healthy[/green]"))


if __name__ == "__main__":
    _cli.run("doctor", Settings, main, __doc__)
