"""Measure what each block of a trained chain does to the data: `lfm diagnose policy=outputs/lift data.path=DIR.zarr`.

Per block: matching loss; a two-sample distance between pushed samples and the OU target; KL divergence to noise and
how it contracts, beside e^{-2γ} (densities, whose log p is known); speed and curvature of the paths, which say how few
steps are enough; the inversion error of to_data after to_noise. Policies are measured jointly with their observations.
"""

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lfm_policy.choices import Place, PolicyChoice, SolverChange, StoreChoice

if TYPE_CHECKING:
    from rich.console import Console

RENAMED = {"path": "data.path"}


class Settings(PolicyChoice):
    """A run, and what it is measured on."""

    data: StoreChoice = Field(default=StoreChoice())
    samples: int = Field(
        default=2000, ge=4, multiple_of=2, description="data to measure on, half of them for the blocks' targets"
    )
    solver: SolverChange = SolverChange()
    seed: int = Field(default=0, ge=0, description="decides samples, noise and times")
    threads: int = Field(default=1, ge=1, description="CPU threads")
    out: Place | None = Field(
        default=None, description="folder of summary.json; null: diagnosis/ beside the checkpoint"
    )


def main(settings: Settings) -> None:
    """Measure block by block, write summary.json, show a row per block."""
    import torch
    from rich.console import Console
    from rich.progress import track

    from lfm_policy.files import write_json
    from lfm_policy.locks import owned
    from lfm_policy.models.pretrained import checkpoint_in
    from lfm_policy.training.experiments.diagnose import diagnose_run

    torch.set_num_threads(settings.threads)
    console = Console()
    source = Path(settings.policy)
    summary = diagnose_run(
        source,
        data=settings.data.path,
        samples=settings.samples,
        weights=settings.weights,
        solver=settings.solver,
        seed=settings.seed,
        trust_code=settings.trust_code,
        track=functools.partial(
            track, description="blocks", console=console, transient=True, disable=not console.is_terminal
        ),
    )
    out = settings.out or checkpoint_in(source).parent / "diagnosis"
    with owned(out):
        write_json(out / "summary.json", summary)
    show(console, summary)


def show(console: "Console", summary: dict[str, Any]) -> None:
    """Print a column per block, and the chain as a whole."""
    from lfm_cli.tables import blocks

    for table in blocks(summary):
        console.print(table)
    bounds = ", ".join(
        "-" if row["gamma"] is None else f"{math.exp(-2 * row['gamma']):.3g}" for row in summary["blocks"]
    )
    console.print(f"the OU steps alone contract KL by e^-2γ: {bounds}", highlight=False)
    solver, nfe = summary["solver"]["method"], summary["nfe"]
    console.print(f"whole chain, {solver}, {nfe} NFE: inversion error {summary['inversion']:.2g}", highlight=False)
