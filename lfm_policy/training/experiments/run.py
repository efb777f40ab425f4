"""A training run from its settings to its summary, as `lfm train` and a notebook call it.

    summary = run(TrainSettings(name="robot/lift", out="outputs/lift", ...))

The same settings and folder continue an interrupted run, bit for bit from its last checkpoint. Several processes,
started by torchrun, share the work.
"""

from contextlib import ExitStack
from typing import Any

import torch

from lfm_policy.errors import CheckpointError
from lfm_policy.files import keeping, write_json
from lfm_policy.flow import Phase, fit, plan
from lfm_policy.flow.fit import TimeLaw
from lfm_policy.models.device import usable_device
from lfm_policy.training.blocks import block_folder, block_phase, merge
from lfm_policy.training.checkpoint import Checkpointer, Snapshots
from lfm_policy.training.distributed import Ranks, joined, parallel_blocks
from lfm_policy.training.experiments.choose import new_experiment
from lfm_policy.training.experiments.experiment import Experiment, evaluation_loss
from lfm_policy.training.experiments.settings import TrainSettings
from lfm_policy.training.experiments.spacing import spaced
from lfm_policy.training.loop import Trainer
from lfm_policy.training.memory import peak_memory
from lfm_policy.training.report import Listener, Reporter


def run(settings: TrainSettings, listener: Listener | None = None) -> dict[str, Any] | None:
    """Train, and write summary.json beside the checkpoint.

    Args:
        settings: of the run.
        listener: hears of every update.

    Returns:
        The summary; None in the processes of torchrun that do not write it.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device, by_block = usable_device(settings.device), settings.ranks == "blocks"
    settings = spaced(settings, _alone, device)
    experiment = new_experiment(settings, device)
    phases = plan_of(settings, experiment)
    with joined(device, busy=by_block) as ranks:
        trainer = (train_blocks if by_block else train)(settings, experiment, phases, ranks, listener=listener)
    if not ranks.first:
        return None
    values = summary(settings, experiment, trainer)
    with keeping(settings.out / "summary.json"):
        write_json(settings.out / "summary.json", values)
    return values


def _alone(settings: TrainSettings, experiment: Experiment[Any]) -> Trainer:
    """Train in this process."""
    return train(settings, experiment, plan_of(settings, experiment), Ranks())


def plan_of(settings: TrainSettings, experiment: Experiment[Any]) -> tuple[Phase, ...]:
    """Return what is trained, in which order."""
    flow, blocks = settings.flow, len(experiment.model.chain.blocks)
    return plan(flow.mode, blocks, settings.updates_of(len(experiment.pool)), flow.refine)


def train(
    settings: TrainSettings,
    experiment: Experiment[Any],
    phases: tuple[Phase, ...],
    ranks: Ranks,
    *,
    quiet: bool = False,
    listener: Listener | None = None,
) -> Trainer:
    """Carry out the phases, or what is left of them; of all ranks, the first one logs and writes."""
    rows, chain = ranks.rows(settings.batch), experiment.model.chain
    save = checkpointer(settings, experiment)
    samples, config = settings.batch * settings.optimiser.accumulate, settings.model_dump(mode="json")
    reporter = Reporter(
        settings.out, settings.name, settings.logging, config, samples=samples, quiet=quiet, listener=listener
    )
    keep = Snapshots(settings.out / "snapshots", experiment.model, settings.snapshots, save)
    heard, kept = (reporter, keep) if ranks.first else (silent, silent)
    alone = settings.flow.share or experiment.encoder is not None  # what blocks share gets gradients in one order
    parallel = 1 if alone else parallel_blocks(settings.parallel, device_of(experiment))
    trainer = Trainer(
        chain, phases, settings.optimiser, settings.seed, heard, kept, parallel, ranks, experiment.encoder
    )
    resumed = save.resume(trainer)
    ranks.require_equal(trainer.done, device_of(experiment))
    with ExitStack() as stack:
        if ranks.first:
            reporter.begin(trainer, resumed)
            stack.enter_context(reporter)
        law = settings.flow.time_law
        laws = {"time_law": TimeLaw(law.alpha, law.beta), "coupling": settings.flow.coupling}
        pool, batch = experiment.pool, settings.batch
        shared = settings.flow.share
        way = {"batch": batch, "rows": rows, "share_out": shared, "track": reporter.track if ranks.first else iter}
        fit(chain, trainer.ema.chain, pool, phases, trainer.optimise, **way, **laws)
    return trainer


def train_blocks(
    settings: TrainSettings,
    experiment: Experiment[Any],
    phases: tuple[Phase, ...],
    ranks: Ranks,
    *,
    listener: Listener | None = None,
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
        own = settings.model_copy(update={"out": block_folder(settings.out, n)})
        train(own, experiment, (block_phase(phase, n),), Ranks(), quiet=not ranks.first, listener=listener)
    ranks.wait()
    if ranks.first:
        merge(whole, settings.out)
        save(whole, force=True)
    return whole


def checkpointer(settings: TrainSettings, experiment: Experiment[Any]) -> Checkpointer:
    """Return the checkpointer of the run in settings.out."""
    fingerprint = settings.fingerprint() | {"source": dict(experiment.source)}
    folder = settings.out / "checkpoint"
    return Checkpointer(folder, experiment.model, fingerprint, settings.checkpoint_seconds)


def device_of(experiment: Experiment[Any]) -> torch.device:
    """Return the device of the networks."""
    return next(experiment.model.chain.parameters()).device


def silent(trainer: object, *, force: bool = False) -> None:
    """Do nothing with a report or a trainer, as ranks that neither log nor write."""


def summary(settings: TrainSettings, experiment: Experiment[Any], trainer: Trainer) -> dict[str, Any]:
    """Sum up what was trained, from which data, at what cost; losses on fixed noise; the experiment's own report."""
    peak = peak_memory(device_of(experiment))
    trained, samples = experiment.load(settings.out / "checkpoint"), len(experiment.pool)
    experiment.model.load_state_dict(trained.state_dict())  # the pool sees with the averaged weights, too
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
        "updates": settings.updates_of(samples),
        "batch": batch,
        "epochs": settings.updates_of(samples) * batch / samples,
        "seconds": trainer.seconds,
        "device": str(next(trained.chain.parameters()).device),
        "threads": torch.get_num_threads(),
        "peak_memory_mb": round(peak),
        "loss": evaluation_loss(trained.chain, experiment.pool),
        "digest": trained.digest(),
        **experiment.report(trained),
    }
