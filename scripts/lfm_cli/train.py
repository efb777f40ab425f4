"""Train a chain, for example a policy: `lfm train experiment=robot/lift size=small data.path=DIR.zarr`.

The same command continues an interrupted run, bit for bit from its last checkpoint. Several processes share the work:

    torchrun --nproc-per-node 4 -m lfm_cli train ...                 the rows of each batch
    torchrun --nproc-per-node 4 -m lfm_cli train ... ranks=blocks    the blocks, without any exchange
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from lfm_cli import command_line as _cli
from lfm_policy.errors import CheckpointError
from lfm_policy.files import write_json
from lfm_policy.flow import Phase, fit, plan
from lfm_policy.models.device import usable_device
from lfm_policy.training.blocks import block_folder, block_phase, merge
from lfm_policy.training.checkpoint import Checkpointer, Snapshots
from lfm_policy.training.distributed import Ranks, joined
from lfm_policy.training.experiments.density import density_experiment
from lfm_policy.training.experiments.experiment import Experiment, evaluation_loss
from lfm_policy.training.experiments.images import image_experiment
from lfm_policy.training.experiments.robot import robot_experiment
from lfm_policy.training.experiments.settings import DensityData, ImageData, TabularData, TrainSettings, WindowData
from lfm_policy.training.experiments.tabular import tabular_experiment
from lfm_policy.training.loop import Trainer
from lfm_policy.training.memory import peak_memory
from lfm_policy.training.report import Reporter, parallel_blocks, show


def main(settings: TrainSettings) -> None:
    """Train, then write summary.json beside the checkpoint."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device, by_block = usable_device(settings.device), settings.ranks == "blocks"
    experiment = new_experiment(settings, device)
    phases = plan_of(settings, experiment)
    with joined(device, busy=by_block) as ranks:
        trainer = (train_blocks if by_block else train)(settings, experiment, phases, ranks)
    if ranks.first:
        values = summary(settings, experiment, trainer)
        write_json(Path(settings.out) / "summary.json", values)
        show(Console(), values)


def plan_of(settings: TrainSettings, experiment: Experiment[Any]) -> tuple[Phase, ...]:
    """What is trained in which order."""
    flow, blocks = settings.flow, len(experiment.model.chain.blocks)
    return plan(flow.mode, blocks, settings.updates(len(experiment.pool)), flow.refine)


def train(
    settings: TrainSettings, experiment: Experiment[Any], phases: tuple[Phase, ...], ranks: Ranks, quiet: bool = False
) -> Trainer:
    """Carry out the phases, or what is left of them; of all ranks, the first one logs and writes."""
    rows, chain = ranks.rows(settings.batch), experiment.model.chain
    save, reporter = checkpointer(settings, experiment), Reporter(settings, quiet)
    keep = Snapshots(Path(settings.out) / "snapshots", experiment.model, settings.snapshots, save)
    heard, kept = (reporter, keep) if ranks.first else (silent, silent)
    parallel = 1 if settings.flow.share else parallel_blocks(settings.parallel, device_of(experiment))
    trainer = Trainer(chain, phases, settings.optimiser, settings.seed, heard, kept, parallel, ranks)
    resumed = save.resume(trainer)
    ranks.require_equal(trainer.done, device_of(experiment))
    with ExitStack() as stack:
        if ranks.first:
            reporter.begin(trainer, resumed)
            stack.enter_context(reporter)
        laws = {"time_law": settings.flow.time_law, "coupling": settings.flow.coupling}
        pool, batch = experiment.pool, settings.batch
        fit(chain, trainer.ema.chain, pool, phases, trainer.optimise, batch=batch, rows=rows, **laws)
    return trainer


def train_blocks(
    settings: TrainSettings, experiment: Experiment[Any], phases: tuple[Phase, ...], ranks: Ranks
) -> Trainer:
    """Train this rank's blocks, each in a run of its own; the first rank then merges all of them."""
    save = checkpointer(settings, experiment)
    whole = Trainer(experiment.model.chain, phases, settings.optimiser, settings.seed, silent, save)
    if save.resume(whole):
        if whole.done < whole.total:
            raise CheckpointError(f"{save.directory} is of an unfinished run with ranks=batch: continue it with that")
        return whole
    (phase,) = phases
    for n in phase.blocks[ranks.rank :: ranks.world]:
        own = settings.model_copy(update={"out": str(block_folder(Path(settings.out), n))})
        train(own, experiment, (block_phase(phase, n),), Ranks(), quiet=not ranks.first)
    ranks.wait()
    if ranks.first:
        merge(whole, Path(settings.out))
        save(whole, force=True)
    return whole


def checkpointer(settings: TrainSettings, experiment: Experiment[Any]) -> Checkpointer:
    """Of the run in settings.out."""
    fingerprint = settings.fingerprint() | {"source": dict(experiment.source)}
    folder = Path(settings.out) / "checkpoint"
    return Checkpointer(folder, experiment.model, fingerprint, settings.checkpoint_seconds)


def device_of(experiment: Experiment[Any]) -> torch.device:
    """Where the networks are."""
    return next(experiment.model.chain.parameters()).device


def silent(trainer: object, *, force: bool = False) -> None:
    """What ranks that neither log nor write do with a report or a trainer."""


def new_experiment(settings: TrainSettings, device: torch.device) -> Experiment[Any]:
    """The objects in which the runs differ, from the kind of their data."""
    match settings.data:
        case WindowData() as data:
            return robot_experiment(settings, data, device)
        case DensityData() as data:
            return density_experiment(settings, data, device)
        case TabularData() as data:
            return tabular_experiment(settings, data, device)
        case ImageData() as data:
            return image_experiment(settings, data, device)


def summary(settings: TrainSettings, experiment: Experiment[Any], trainer: Trainer) -> dict[str, Any]:
    """What was trained, from which data, at what cost; losses on fixed noise, and the experiment's own report."""
    peak = peak_memory(device_of(experiment))
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
        "peak_memory_mb": round(peak),
        "loss": evaluation_loss(trained.chain, experiment.pool),
        "digest": trained.digest(),
        **experiment.report(trained),
    }


if __name__ == "__main__":
    _cli.run("train", TrainSettings, main, __doc__)
