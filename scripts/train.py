"""Train a chain, for example a policy: `python scripts/train.py experiment=robot/lift size=small data.path=DIR.zarr`.

The same command continues an interrupted run, bit for bit from its last checkpoint.
"""

from pathlib import Path
from typing import Any

import _cli
import torch
from _training import Reporter, parallel_blocks, show, usable_device

from lfm_policy.files import write_json
from lfm_policy.flow import fit, plan
from lfm_policy.training.checkpoint import Checkpointer, Snapshots
from lfm_policy.training.density import density_experiment
from lfm_policy.training.experiment import Experiment, evaluation_loss
from lfm_policy.training.loop import Trainer
from lfm_policy.training.robot import robot_experiment
from lfm_policy.training.settings import DensityData, TabularData, TrainSettings, WindowData
from lfm_policy.training.tabular import tabular_experiment


def main(settings: TrainSettings) -> None:
    """Train, then write summary.json beside the checkpoint."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = usable_device(settings.device)
    out = Path(settings.out)
    experiment = new_experiment(settings, device)
    chain, pool = experiment.model.chain, experiment.pool
    phases = plan(settings.flow.mode, len(chain.blocks), settings.updates(len(pool)), settings.flow.refine)

    fingerprint = settings.fingerprint() | {"source": dict(experiment.source)}
    save = Checkpointer(out / "checkpoint", experiment.model, fingerprint, settings.checkpoint_seconds)
    reporter = Reporter(settings)
    parallel = 1 if settings.flow.share else parallel_blocks(settings.parallel, device)
    keep = Snapshots(out / "snapshots", experiment.model, settings.snapshots, save)
    trainer = Trainer(chain, phases, settings.optimiser, settings.seed, reporter, keep, parallel)
    resumed = save.resume(trainer)
    reporter.begin(trainer, resumed)
    with reporter:
        laws = {"time_law": settings.flow.time_law, "coupling": settings.flow.coupling}
        fit(chain, trainer.ema.chain, pool, phases, trainer.optimise, batch=settings.batch, **laws)
    values = summary(settings, experiment, trainer)
    write_json(out / "summary.json", values)
    show(reporter.console, values)


def new_experiment(settings: TrainSettings, device: torch.device) -> Experiment[Any]:
    """The objects in which the runs differ, from the kind of their data."""
    match settings.data:
        case WindowData() as data:
            return robot_experiment(settings, data, device)
        case DensityData() as data:
            return density_experiment(settings, data, device)
        case TabularData() as data:
            return tabular_experiment(settings, data, device)


def summary(settings: TrainSettings, experiment: Experiment[Any], trainer: Trainer) -> dict[str, Any]:
    """What was trained, from which data, at what cost; losses on fixed noise, and the experiment's own report."""
    trained, samples = experiment.load(Path(settings.out)), len(experiment.pool)
    batch = settings.batch * settings.optimiser.accumulate
    return {
        "name": settings.name,
        "method": settings.method,
        "mode": settings.flow.mode,
        "seed": settings.seed,
        "data": settings.data.model_dump(mode="json"),
        "blocks": len(trained.chain.blocks),
        "parameters": sum(p.numel() for p in trained.chain.parameters()),
        "samples": samples,
        "updates": settings.updates(samples),
        "batch": batch,
        "epochs": settings.updates(samples) * batch / samples,
        "seconds": trainer.seconds,
        "device": str(next(trained.chain.parameters()).device),
        "threads": torch.get_num_threads(),
        "loss": evaluation_loss(trained.chain, experiment.pool),
        "digest": trained.digest(),
        **experiment.report(trained),
    }


if __name__ == "__main__":
    _cli.run("train", TrainSettings, main, __doc__)
