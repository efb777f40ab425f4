"""Measure what each block of a trained chain does to the data: `lfm diagnose checkpoint=DIR`.

Per block: matching loss; a two-sample distance between pushed samples and the OU target; KL divergence to noise and
how it contracts, beside e^{-2γ} (densities, whose log p is known); speed and curvature of the paths, which say how few
steps are enough; the inversion error of to_data after to_noise. Policies are measured jointly with their observations.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from lfm_cli import command_line as _cli
from lfm_cli.train import new_experiment
from lfm_policy.data.densities import Density
from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.files import read_json, write_json
from lfm_policy.flow import Sample, Solver
from lfm_policy.locks import owned
from lfm_policy.measure.blocks import BlockReport, LogDensity, diagnose
from lfm_policy.models.pretrained import Weights, checkpoint_in, load_weights
from lfm_policy.networks import require_own
from lfm_policy.settings import Frozen, parse
from lfm_policy.training.experiments.density import load_density
from lfm_policy.training.experiments.settings import DensityData, TrainSettings


class Settings(Frozen):
    """Settings of config/diagnose.yaml."""

    checkpoint: Path
    path: Path | None
    samples: int = Field(ge=4, multiple_of=2)
    set: Weights
    solver: Solver | None
    seed: int = Field(ge=0)
    threads: int = Field(ge=1)
    trust_code: bool = False
    out: Path | None


def main(settings: Settings) -> None:
    """Rebuild the run's data, measure block by block, write summary.json."""
    torch.set_num_threads(settings.threads)
    folder = checkpoint_in(settings.checkpoint)
    run = run_settings(folder, settings.path)
    if not settings.trust_code:
        require_own(run.block_network)
    torch.manual_seed(settings.seed)
    experiment = new_experiment(run, torch.device("cpu"))
    model = experiment.load(folder)
    load_weights(model, folder, settings.set)
    chain = model.chain
    chain.solver = settings.solver or chain.solver
    generator = torch.Generator().manual_seed(settings.seed)
    sample = experiment.pool.take(torch.randperm(len(experiment.pool), generator=generator)[: settings.samples])

    console = Console()
    blocks = diagnose(chain, sample, generator, log_density(run, model))
    rows = list(_shown(blocks, len(chain.blocks), console))
    summary = {
        "checkpoint": str(settings.checkpoint),
        "name": run.name,
        "samples": len(sample.x),
        "solver": asdict(chain.solver),
        "inversion": _round_trip(chain, sample),
        "nfe": chain.to_data(sample.x[:1], None if sample.cond is None else sample.cond[:1]).nfe,
        "blocks": [asdict(row) for row in rows],
    }
    out = settings.out or folder.parent / "diagnosis"
    with owned(out):
        write_json(out / "summary.json", summary)
    show(console, rows, summary)


def run_settings(folder: Path, path: Path | None) -> TrainSettings:
    """The settings that the run was trained with; a policy's data set may have moved and is given.

    Raises:
        CheckpointError: the folder holds weights without a training run.
        ConfigError: a policy's data set is not given, or the run has no flow to measure.
    """
    if not (folder / "trainer.json").exists():
        raise CheckpointError(f"{folder} has no trainer.json: give the folder of a run of lfm train")
    record = dict(read_json(folder / "trainer.json")["fingerprint"])
    record.pop("source", None)
    record["data"] = {"kind": "windows", **record.get("data", {})}  # the first runs had no other kind, nor its name
    if record["data"]["kind"] != "density":
        if path is None:
            raise ConfigError(
                "a chain is measured on its data: path=FOLDER.zarr, a policy's prepared data set, or a table's file"
            )
        record["data"] = record["data"] | {"path": str(path)}
    run = parse(TrainSettings, record | {"out": str(folder.parent), "logging": {}}, f"{folder}/trainer.json")
    if run.flow.diffusion is not None:
        raise ConfigError(f"{folder} is a {run.flow.diffusion} baseline: it has no velocity to measure")
    return run


def log_density(run: TrainSettings, model: Any) -> LogDensity | None:
    """log p_0 of normalised samples, where it is known."""
    if not isinstance(run.data, DensityData) or run.flow.initial_diffusion:
        return None
    return _normalised(load_density(run.data), model.normalizer)


def _normalised(density: Density, normalizer: AffineNormalizer) -> LogDensity:
    def log_p(x: Tensor) -> Tensor:
        return density.log_prob(normalizer.denormalize(x)).to(x) - normalizer.scale.log().sum()

    return log_p


def _round_trip(chain: Any, sample: Sample) -> float:
    with torch.no_grad():
        back = chain.to_data(chain.to_noise(sample.x, sample.cond).x, sample.cond).x
    return (back - sample.x).square().mean().sqrt().item()


def _shown(blocks: Iterable[BlockReport], count: int, console: Console) -> Iterable[BlockReport]:
    return track(blocks, "blocks", count, console=console, transient=True, disable=not console.is_terminal)


def show(console: Console, rows: list[BlockReport], summary: dict[str, Any]) -> None:
    """A row a block, and the chain as a whole."""
    columns = ("block", "γ", "loss", "distance", "if equal", "KL to q", "contraction", "e^-2γ")
    table = Table(*columns, "speed", "curvature", "one step", "inversion", title=summary["name"])
    for row in rows:
        bound = None if row.gamma is None else math.exp(-2 * row.gamma)
        kl = "" if row.kl is None else f"{row.kl:.3f} ± {row.kl_error:.3f}"
        laws = (row.gamma, row.loss, row.distance, row.distance_of_equals)
        paths = (row.speed, row.curvature, row.one_step, row.inversion)
        numbers = [*map(_text, laws), kl, *map(_text, (row.contraction, bound, *paths))]
        table.add_row(str(row.block), *numbers)
    console.print(table)
    solver, nfe = summary["solver"]["method"], summary["nfe"]
    console.print(f"whole chain, {solver}, {nfe} NFE: inversion error {summary['inversion']:.2g}", highlight=False)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    _cli.run("diagnose", Settings, main, __doc__)
