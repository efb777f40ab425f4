"""Does a demonstration file mean what it says, and does a checkpoint fit it? A verdict, with the fix for each finding.

    lfm doctor source=outputs/demos/lift/demos.hdf5 policy=outputs/lift

Measures what the actions are (deltas or poses, frame, rotation), compares observations and pictures with the
simulator's at the recorded states, and executes demonstrations as deltas and as absolute poses. Exits with 0 if all is
well, with 1 if there are findings, with 2 if the file cannot be examined. Leaves summary.json in the output folder.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from lfm_policy.choices import Place
from lfm_policy.settings import Frozen

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lfm_envs.doctor import Diagnosis, Proof
    from lfm_envs.doctor.examine import Examination
    from lfm_envs.doctor.findings import Finding


class Settings(Frozen):
    """Which file, and what is to fit it."""

    source: Place = Field(
        description="HDF5 demonstrations: our own, robomimic's low_dim (v15, v141) or a raw robosuite collection"
    )
    filter: str | None = Field(
        default=None, description="take only the demonstrations of one of the file's filter keys, such as 20_percent"
    )
    policy: Place | None = Field(
        default=None, description="folder of a checkpoint or training run to hold against the file"
    )
    replay: PositiveInt | Literal["all"] = Field(
        default=3, description="demonstrations to measure and to execute, as deltas and as absolute poses; or all"
    )
    out: Place | None = Field(default=None, description="output folder; null: outputs/doctor/<task>_<source's name>")


def main(settings: Settings) -> None:
    """Examine, print, leave summary.json; exits with 1 if there are findings."""
    from rich.console import Console

    from lfm_envs.doctor.examine import examine_file
    from lfm_policy.files import keeping, write_json
    from lfm_policy.locks import owned

    console = Console()
    found = examine_file(settings.source, settings.policy, settings.filter, settings.replay, console)
    report(found, console)
    stem = settings.source.stem
    name = stem if stem.startswith(found.task) else f"{found.task}_{stem}"
    out = settings.out or Path("outputs/doctor") / name
    with owned(out), keeping(out / "summary.json"):
        write_json(out / "summary.json", found.summary)
    print_verdict(found.findings, console)
    if found.findings:
        sys.exit(1)


def report(found: "Examination", console: "Console") -> None:
    """Print what was found."""
    from rich.markup import escape
    from rich.table import Table

    file, diagnosis = found.file, found.diagnosis
    recording, summary = file.recording, found.summary
    table = Table(title=escape(f"{file.path.name}: {file.kind}, {summary['episodes']} episodes"), show_header=False)
    table.add_row("environment", f"{recording.environment}, {', '.join(recording.robots)}")
    table.add_row("recorded with", f"{file.contract.suite} {recording.suite_version}")
    table.add_row("installed", ", ".join(f"{name} {version}" for name, version in summary["versions"].items()))
    measured = "no clock in its states" if diagnosis.control_hz is None else f"measured {diagnosis.control_hz:.4g}"
    table.add_row("control", f"{recording.control_hz:g} Hz, {measured}")
    for arm, row in enumerate(summary["arms"]):
        own = row["controller"]
        reach = f"1 is {own['delta_position_m']:g} m, {own['delta_rotation_rad']:g} rad"
        table.add_row(f"arm {arm}", f"{own['type']}, kp {own['kp']:g}, damping {own['damping_ratio']:g}, {reach}")
        for key, measured_as in row["found"].items():
            said = row["says"][key]
            agrees = measured_as == said
            table.add_row(f"  {key}", measured_as if agrees else f"[red]{measured_as}[/red]; the file says {said}")
        shares = ", ".join(f"{name} in {share:.0%} of steps" for name, share in diagnosis.saturation[arm].items())
        table.add_row("  saturated", shares)
    for arm, (low, high) in enumerate(summary["normaliser"]["action_position_m"]):
        axes = ", ".join(f"{axis} {a:.3f} … {b:.3f}" for axis, a, b in zip("xyz", low, high, strict=True))
        table.add_row("normaliser", f"arm {arm}'s positions {axes} \\[m]")
    for row in summary["pictures"]:
        seems = f"; they seem to be {row['seems']}" if row["seems"] else ""
        table.add_row("pictures", f"{row['camera']}: {row['gap']:.1%} of the range from what is drawn here{seems}")
    for note in summary["notes"]:
        table.add_row("note", note)
    console.print(table)
    console.print(observation_table(diagnosis))
    console.print(replay_table(found.proofs))


def observation_table(diagnosis: "Diagnosis") -> "Table":
    """Make a table of keys in their order, with the gap between file and simulator."""
    from rich.table import Table

    table = Table("observation", "dim", "min", "max", "gap", title="observations at the recorded states")
    for row in diagnosis.observations:
        gap = "" if row["gap"] is None else f"{row['gap']:.4f}"
        table.add_row(row["name"], str(row["dim"]), f"{row['min']:.3f}", f"{row['max']:.3f}", gap)
    return table


def replay_table(proofs: "Sequence[Proof]") -> "Table":
    """Make a table of success and distance from the recorded path of each replay."""
    from rich.table import Table

    table = Table("episode", "executed as", title="replays, and their distance from the path")
    for column in ("success", "mean mm", "max", "mean °", "max"):
        table.add_column(column, justify="right")
    for proof in proofs:
        errors = (f"{value:.2f}" for value in proof.replay.errors().values())
        form = proof.form if proof.found else f"{proof.form}, as the file says"
        table.add_row(proof.episode, form, "yes" if proof.replay.success else "no", *errors)
    return table


def print_verdict(findings: "Sequence[Finding]", console: "Console") -> None:
    """Print the findings, each with its fix."""
    from rich.markup import escape

    for finding in findings:
        console.print(f"[red]{finding.trap}[/red]: {escape(finding.what)}\n    fix: {escape(finding.fix)}")
    console.print("verdict: " + (f"[red]{len(findings)} finding(s)[/red]" if findings else "[green]healthy[/green]"))
