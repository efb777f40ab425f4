"""A distillation from its settings to its summary, as `lfm distill` and a notebook call it.

The student is a checkpoint like its teacher. The same settings and folder continue an interrupted run, bit for bit from
its last checkpoint.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lfm_policy.bundles.open import open_model
from lfm_policy.choices import Weights
from lfm_policy.errors import ConfigError
from lfm_policy.files import read_json
from lfm_policy.flow import plan
from lfm_policy.flow.distill import Trajectories, distil
from lfm_policy.measure.fidelity import Fidelity, fidelity
from lfm_policy.models.device import usable_device
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.training.checkpoint import Checkpointer
from lfm_policy.training.distillation.settings import DistillSettings
from lfm_policy.training.distillation.students import AnyModel, Conditions, conditions_of, parts_of, student_of
from lfm_policy.training.distillation.trajectories import Teacher, cached
from lfm_policy.training.distributed import parallel_blocks
from lfm_policy.training.loop import Trainer
from lfm_policy.training.report import Listener, Reporter


def run(settings: DistillSettings, listener: Listener | None = None) -> dict[str, Any]:
    """Distil, and return the summary; the student is in `out`, its rollouts are left to the caller.

    Args:
        settings: of the run.
        listener: hears of every update.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = usable_device(settings.device)
    teacher = _opened(settings, settings.policy, settings.weights, settings.sampling)
    conditions = conditions_of(teacher, settings.data.path or known_data(Path(settings.policy)))
    torch.manual_seed(settings.seed)  # of weights that nothing is inherited for
    student = student_of(teacher, settings.blocks, grow=settings.grow)
    if settings.episodes and not isinstance(student, LFMPolicy):
        raise ConfigError("episodes are for policies, and the teacher is a density: use episodes=0")

    identity = {"teacher": teacher.digest(), "solver": asdict(teacher.chain.solver), "source": dict(conditions.source)}
    parts = parts_of(teacher.chain, settings.blocks)
    if parts > 1:
        identity["parts"] = parts
    draw = trajectories(settings, teacher, conditions, identity, parts)
    phases = plan("simulation_free", settings.blocks, settings.updates)
    fingerprint = settings.fingerprint() | identity
    save = Checkpointer(settings.out / "checkpoint", student, fingerprint, settings.checkpoint_seconds)
    parallel = 1 if student.spec.chain.share else parallel_blocks(settings.parallel, device)
    samples, config = settings.batch * settings.optimiser.accumulate, settings.model_dump(mode="json")
    reporter = Reporter(settings.out, settings.name, settings.logging, config, samples=samples, listener=listener)
    trainer = Trainer(student.chain, phases, settings.optimiser, settings.seed, reporter, save, parallel)
    reporter.begin(trainer, save.resume(trainer))
    with reporter:
        distil(student.chain, trainer.ema.chain, draw, phases, trainer.optimise, target=settings.target)
    return summary(settings, teacher, _opened(settings, settings.out), conditions, trainer.seconds)


def _opened(settings: DistillSettings, source: str | Path, weights: Weights = "ema", sampling: Any = None) -> AnyModel:
    return open_model(
        source,
        weights=weights,
        sampling=sampling,
        device=settings.device,
        threads=settings.threads,
        trust_code=settings.trust_code,
    )


def known_data(checkpoint: Path) -> Path | None:
    """Return the prepared data set that the teacher's training run names in its summary."""
    for folder in (checkpoint, checkpoint.parent):
        if (folder / "summary.json").exists():
            path = read_json(folder / "summary.json").get("data", {}).get("path")
            return None if path is None else Path(path)
    return None


def trajectories(
    settings: DistillSettings, teacher: AnyModel, conditions: Conditions, identity: dict[str, Any], parts: int
) -> Callable[[torch.Generator], Trajectories]:
    """Return what draws batches of the teacher's trajectories, fresh ones or from the cache."""
    inside = settings.target == "consistency" or settings.cached is not None  # one cache serves all targets
    maker = Teacher(teacher.chain, conditions.pool(), teacher.chain.solver, inside, conditions.temperature, parts)
    draw = maker.draw
    if settings.cached is not None:
        path = settings.cache or settings.out / "trajectories.zarr"
        draw = cached(path, maker, settings.cached, settings.seed, identity)
    return partial(draw, settings.batch)


def summary(
    settings: DistillSettings, teacher: AnyModel, student: AnyModel, conditions: Conditions, seconds: float
) -> dict[str, Any]:
    """Sum up what was distilled, at what cost, and how faithful the student is."""
    chain, origin = student.chain, teacher.chain
    return {
        "name": settings.name,
        "target": settings.target,
        "seed": settings.seed,
        "blocks": len(chain.blocks),
        "nfe": len(chain.blocks),
        "parameters": sum(p.numel() for p in chain.parameters()),
        "network": dict(student.spec.chain.network),
        "teacher": {
            "checkpoint": settings.policy,
            "digest": teacher.digest(),
            "blocks": len(origin.blocks),
            "solver": asdict(origin.solver),
            "parameters": sum(p.numel() for p in origin.parameters()),
        },
        "updates": settings.updates,
        "batch": settings.batch * settings.optimiser.accumulate,
        "cached": settings.cached,
        "seconds": seconds,
        "device": str(student.device),
        "threads": torch.get_num_threads(),
        "digest": student.digest(),
        "fidelity": faithfulness(settings, teacher, student, conditions).model_dump(mode="json"),
    }


def faithfulness(settings: DistillSettings, teacher: AnyModel, student: AnyModel, conditions: Conditions) -> Fidelity:
    """Compare student and teacher under held-out conditions, or with as many draws where there is no condition."""
    cond = conditions.held_out(settings.conditions)
    draws = settings.draws if cond is not None else settings.draws * settings.conditions
    temperature = conditions.temperature
    return fidelity(
        student.chain, teacher.chain, cond, conditions.event, conditions.scale, draws=draws, temperature=temperature
    )
