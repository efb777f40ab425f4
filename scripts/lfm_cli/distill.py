"""Distil a chain into fewer network evaluations: `lfm distill checkpoint=DIR blocks=2 out=DIR`.

The student is a checkpoint like its teacher, for evaluate.py and everything else. The same command continues an
interrupted run, bit for bit from its last checkpoint.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lfm_cli import command_line as _cli
from lfm_cli.rollouts import rollouts
from lfm_policy.bundles.open import Sampling, open_model
from lfm_policy.errors import ConfigError
from lfm_policy.files import read_json, write_json
from lfm_policy.flow import plan
from lfm_policy.flow.distill import Trajectories, distil
from lfm_policy.measure.fidelity import Fidelity, fidelity
from lfm_policy.models.device import usable_device
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.training.checkpoint import Checkpointer
from lfm_policy.training.distillation.students import (
    AnyModel,
    Conditions,
    DistillSettings,
    conditions_of,
    student_of,
)
from lfm_policy.training.distillation.trajectories import Teacher, cached
from lfm_policy.training.loop import Trainer
from lfm_policy.training.report import Reporter, parallel_blocks, show


def main(settings: DistillSettings) -> None:
    """Distil, then write summary.json beside the student's checkpoint."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = usable_device(settings.device)
    teacher = load_teacher(settings)
    conditions = conditions_of(teacher, settings.demonstrations or known_data(settings.checkpoint))
    torch.manual_seed(settings.seed)  # of weights that nothing is inherited for
    student = student_of(teacher, settings.blocks, grow=settings.grow)
    if settings.episodes and not isinstance(student, LFMPolicy):
        raise ConfigError("episodes are for policies, and the checkpoint is a density: use episodes=0")

    identity = {"teacher": teacher.digest(), "solver": asdict(teacher.chain.solver), "source": dict(conditions.source)}
    draw = trajectories(settings, teacher, conditions, identity)
    phases = plan("simulation_free", settings.blocks, settings.updates)
    save = Checkpointer(
        settings.out / "checkpoint", student, settings.fingerprint() | identity, settings.checkpoint_seconds
    )
    parallel = 1 if student.spec.share else parallel_blocks(settings.parallel, device)
    reporter = Reporter(settings)
    trainer = Trainer(student.chain, phases, settings.optimiser, settings.seed, reporter, save, parallel)
    resumed = save.resume(trainer)
    reporter.begin(trainer, resumed)
    with reporter:
        distil(student.chain, trainer.ema.chain, draw, phases, trainer.optimise, target=settings.target)
    values = summary(
        settings,
        teacher,
        open_model(settings.out, device=settings.device, threads=settings.threads, trust_code=settings.trust_code),
        conditions,
        trainer.seconds,
    )
    write_json(settings.out / "summary.json", values)
    show(reporter.console, values, "distillation")


def load_teacher(settings: DistillSettings) -> AnyModel:
    """The teacher, with the solver that the settings ask for."""
    sampling = Sampling(solver=settings.solver, steps=settings.steps, temperature=settings.temperature)
    return open_model(
        settings.checkpoint,
        weights=settings.set,
        sampling=sampling,
        device=settings.device,
        threads=settings.threads,
        trust_code=settings.trust_code,
    )


def known_data(checkpoint: Path) -> Path | None:
    """The prepared data set that the teacher's training run names in its summary."""
    for folder in (checkpoint, checkpoint.parent):
        if (folder / "summary.json").exists():
            path = read_json(folder / "summary.json").get("data", {}).get("path")
            return None if path is None else Path(path)
    return None


def trajectories(
    settings: DistillSettings, teacher: AnyModel, conditions: Conditions, identity: dict[str, Any]
) -> Callable[[torch.Generator], Trajectories]:
    """Batches of the teacher's trajectories, fresh ones or from the cache."""
    inside = settings.target == "consistency" or settings.cached is not None  # one cache serves all targets
    maker = Teacher(teacher.chain, conditions.pool(), teacher.chain.solver, inside, conditions.temperature)
    draw = maker.draw
    if settings.cached is not None:
        path = settings.cache or settings.out / "trajectories.zarr"
        draw = cached(path, maker, settings.cached, settings.seed, identity)
    return partial(draw, settings.batch)


def summary(
    settings: DistillSettings, teacher: AnyModel, student: AnyModel, conditions: Conditions, seconds: float
) -> dict[str, Any]:
    """What was distilled, at what cost, and how faithful the student is."""
    chain, origin = student.chain, teacher.chain
    values = {
        "name": settings.name,
        "target": settings.target,
        "seed": settings.seed,
        "blocks": len(chain.blocks),
        "nfe": len(chain.blocks),
        "parameters": sum(p.numel() for p in chain.parameters()),
        "network": dict(student.spec.network),
        "teacher": {
            "checkpoint": str(settings.checkpoint),
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
    return values | (success(settings) if settings.episodes else {})


def faithfulness(settings: DistillSettings, teacher: AnyModel, student: AnyModel, conditions: Conditions) -> Fidelity:
    """Student against teacher under held-out conditions, or with as many draws where there is no condition."""
    cond = conditions.held_out(settings.conditions)
    draws = settings.draws if cond is not None else settings.draws * settings.conditions
    temperature = conditions.temperature
    return fidelity(
        student.chain, teacher.chain, cond, conditions.event, conditions.scale, draws=draws, temperature=temperature
    )


def success(settings: DistillSettings) -> dict[str, Any]:
    """Rollouts of both on the same seeds, and their difference with its paired interval."""
    common = {"episodes": settings.episodes, "seed": settings.episodes_seed, "workers": settings.workers}
    teacher = {"solver": settings.solver, "steps": settings.steps, "temperature": settings.temperature}
    folder = settings.out / "rollouts"
    ours = rollouts("student", folder, checkpoint=settings.out, **common)
    theirs = rollouts("teacher", folder, checkpoint=settings.checkpoint, set=settings.set, **teacher, **common)
    keys = ("success", "interval", "episodes", "failed_seeds", "nfe")
    return {
        "success": {key: ours.summary[key] for key in keys},
        "teacher_success": {key: theirs.summary[key] for key in keys},
        "difference": ours.minus(theirs).model_dump(mode="json"),
    }


if __name__ == "__main__":
    _cli.run("distill", DistillSettings, main, __doc__)
