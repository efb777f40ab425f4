"""What each block of a trained chain does to the data, as `lfm diagnose` measures it.

The run's data are rebuilt from the settings beside its checkpoint. Policies are measured jointly with what they
observe.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lfm_policy.choices import SolverChange, Weights
from lfm_policy.data.densities import Density
from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.files import read_json
from lfm_policy.flow import Sample
from lfm_policy.measure.blocks import BlockReport, LogDensity, diagnose
from lfm_policy.models.pretrained import checkpoint_in, load_weights
from lfm_policy.networks import require_own
from lfm_policy.settings import parse
from lfm_policy.training.experiments.choose import new_experiment
from lfm_policy.training.experiments.data_settings import DensityData
from lfm_policy.training.experiments.density import load_density
from lfm_policy.training.experiments.experiment import Experiment
from lfm_policy.training.experiments.settings import TrainSettings

Track = Callable[[Iterable[BlockReport]], Iterable[BlockReport]]


def diagnose_run(
    source: Path,
    *,
    data: Path | None = None,
    samples: int = 2000,
    weights: Weights = "ema",
    solver: SolverChange | None = None,
    seed: int = 0,
    trust_code: bool = False,
    track: Track = iter,
) -> dict[str, Any]:
    """Rebuild a run's data and measure its chain block by block.

    Args:
        source: a run of lfm train, or its checkpoint folder.
        data: what to measure on, which densities know: a policy's prepared data set, a table's file.
        samples: of the data, half of them for the blocks' targets.
        weights: the moving average, or as trained.
        solver: in place of the chain's own.
        seed: decides samples, noise and times.
        trust_code: allow a network class from outside this package.
        track: passes the blocks' reports on as they come.

    Returns:
        The chain's solver, evaluations and inversion error, and `BlockReport` of each block, as plain values.

    Raises:
        CheckpointError: the folder holds weights without a training run.
        ConfigError: a policy's data set is not given, or the run has no flow to measure.
    """
    folder = _checkpoint_of_run(source)
    run = run_settings(folder, data)
    if not trust_code:
        require_own(run.block_network)
    torch.manual_seed(seed)
    experiment = new_experiment(run, torch.device("cpu"))
    model = _trained(experiment, folder, weights, solver or SolverChange())
    chain, generator = model.chain, torch.Generator().manual_seed(seed)
    sample = experiment.pool.take(torch.randperm(len(experiment.pool), generator=generator)[:samples])
    rows = list(track(diagnose(chain, sample, generator, log_density(run, model))))
    return {
        "checkpoint": str(source),
        "name": run.name,
        "samples": len(sample.x),
        "solver": asdict(chain.solver),
        "inversion": _round_trip(chain, sample),
        "nfe": chain.to_data(sample.x[:1], None if sample.cond is None else sample.cond[:1]).nfe,
        "blocks": [asdict(row) for row in rows],
    }


def _trained(experiment: Experiment, folder: Path, weights: Weights, solver: SolverChange) -> Any:
    """Return the model that the experiment has trained, with these weights and this solver."""
    model = experiment.load(folder)
    load_weights(model, folder, weights)
    model.chain.solver = solver(model.chain.solver)
    return model


def _checkpoint_of_run(source: Path) -> Path:
    try:
        return checkpoint_in(source)
    except CheckpointError:
        found = "a folder without a checkpoint" if source.exists() else "no such folder"
        raise CheckpointError(
            f"blocks are measured with the settings and data of their training: expected policy=FOLDER of a run of lfm "
            f"train, found {found} at {source} (a bundle or a pretrained policy has neither)"
        ) from None


def run_settings(folder: Path, path: Path | None) -> TrainSettings:
    """Return the settings that the run was trained with; a policy's data set may have moved and is given.

    Raises:
        CheckpointError: the folder holds weights without a training run.
        ConfigError: a policy's data set is not given, or the run has no flow to measure.
    """
    if not (folder / "trainer.json").exists():
        raise CheckpointError(f"{folder} has no trainer.json: give the folder of a run of lfm train")
    record = dict(read_json(folder / "trainer.json")["fingerprint"])
    record.pop("source", None)
    if "steps" in record:  # what runs of version 0.1 call their updates
        record["updates"] = record.pop("steps")
    record["data"] = {"kind": "windows", **record.get("data", {})}  # the first runs had no other kind, nor its name
    if record["data"]["kind"] != "density":
        if path is None:
            raise ConfigError(
                "a chain is measured on its data: data.path=DIR.zarr, a policy's prepared data set, or a table's file"
            )
        record["data"] = record["data"] | {"path": str(path)}
    run = parse(TrainSettings, record | {"out": str(folder.parent), "logging": {}}, f"{folder}/trainer.json")
    if run.flow.objective != "flow":
        raise ConfigError(f"{folder} is a {run.flow.objective} baseline: it has no velocity to measure")
    return run


def log_density(run: TrainSettings, model: Any) -> LogDensity | None:
    """Return log p_0 of normalised samples, where it is known."""
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
