"""Export a checkpoint as a bundle: weights, contract, normaliser, ONNX graphs, checksums and a card.

    lfm export policy=outputs/lift out=outputs/bundles/lift dtype=float16

The bundle runs without torch (`open_policy(BUNDLE, runtime="onnx")`), is served with lfm serve, and is evaluated with
lfm evaluate policy=BUNDLE runtime=onnx.
"""

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lfm_policy.choices import Place, PolicyChoice, Sampling
from lfm_policy.errors import ConfigError
from lfm_policy.files import keeping, read_json, write_json
from lfm_policy.models.bundle import Dtype, Precision, is_bundle

if TYPE_CHECKING:
    from rich.console import Console

    from lfm_policy.bundles.export import Step

RENAMED = {"steps": "solver.steps"}


class Settings(Sampling, PolicyChoice):
    """A checkpoint, and what its bundle holds."""

    out: Place | None = Field(
        default=None, description="directory of the bundle; null: outputs/bundles/<name of the checkpoint's folder>"
    )
    dtype: Dtype = Field(default="float32", description="how the weights are stored")
    onnx: tuple[Precision, ...] = Field(
        default=("float32",),
        description="graphs for onnxruntime, by what they compute in; their weights stay in dtype; []: none",
    )
    results: Place | None = Field(
        default=None, description="summary.json of an evaluation of this checkpoint, for the card"
    )


def main(settings: Settings) -> None:
    """Export, and show what came out."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from lfm_policy.bundles.export import Exported, export
    from lfm_policy.bundles.open import open_torch
    from lfm_policy.locks import owned

    console = Console()
    out = settings.out or Path("outputs/bundles") / Path(settings.policy).resolve().name
    _require_replaceable(out)
    results = _results(settings.results) if settings.results else None
    opening = settings.model_dump(include={"weights", "trust_code"})
    policy = open_torch(settings.policy, sampling=settings.sampling, **opening)
    with owned(out):
        form = {"dtype": settings.dtype, "graphs": settings.onnx, "results": results}
        exported: Exported = export(policy, out, **form, track=functools.partial(_shown, console=console))
        summary = {
            "bundle": str(out),
            "digest": exported.bundle.digest(),
            "checkpoint": policy.digest(),
            "bytes": exported.sizes,
            "parity": exported.parity,
        }
        with keeping(out / "summary.json"):
            write_json(out / "summary.json", summary)
    table = Table(title=escape(f"bundle {out}"), title_justify="left")
    table.add_column("file")
    table.add_column("bytes", justify="right")
    for name, size in exported.sizes.items():
        table.add_row(name, f"{size:,}")
    console.print(table)
    for precision, gap in exported.parity.items():
        console.print(f"{precision} graph: actions differ from torch's by at most {gap:.1e} (normalised)")


def _shown(steps: Sequence["Step"], console: "Console") -> Iterator["Step"]:
    """Pass steps on: with a bar and the time left on a terminal, a line each elsewhere."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *times)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        row = bar.add_task("exporting", total=len(steps))
        for step in steps:
            bar.update(row, description=step.name)
            if not console.is_terminal:
                console.print(step.name, highlight=False)
            yield step
            bar.advance(row)


def _require_replaceable(out: Path) -> None:
    if out.exists() and not is_bundle(out.resolve()) and any(out.iterdir()):
        raise ConfigError(f"out={out} exists and is no bundle: choose another folder, exporting replaces it whole")


def _results(path: Path) -> dict[str, Any]:
    try:
        results = read_json(path / "summary.json" if path.is_dir() else path)
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"results={path}: expected the summary.json of an evaluation, {error}") from None
    missing = {"success", "episodes", "interval", "mean_steps", "nfe", "ms_per_chunk"} - set(results)
    if missing:
        raise ConfigError(f"results={path}: expected the summary.json of an evaluation, it lacks {sorted(missing)}")
    return results
