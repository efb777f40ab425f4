"""Quality against network evaluations against latency, for a teacher and its distilled students.

    lfm pareto policy=outputs/lift students=[outputs/lift_4,outputs/lift_1] \\
        out=outputs/pareto

The teacher is measured with several solver steps in each block. Quality is the success rate of policies (on the same
seeds, with paired differences) and the distance to the data of densities. Run the same command again to continue.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lfm_policy.choices import Method, Place, PolicyChoice
from lfm_policy.errors import ConfigError, nearest
from lfm_policy.settings import Frozen

if TYPE_CHECKING:
    from lfm_policy.training.distillation.pareto import Entry

RENAMED = {"solvers": "solver.method", "steps": "solver.steps"}


class Solvers(Frozen):
    """The teacher is measured with each method and each number of steps."""

    method: tuple[Method, ...] = Field(
        default=("euler",), min_length=1, description="solvers of the teacher, measured one by one"
    )
    steps: tuple[int, ...] = Field(
        default=(1, 2, 5), min_length=1, description="solver steps in each block of the teacher, measured one by one"
    )


class Settings(PolicyChoice):
    """A teacher, its students, and how they are measured."""

    students: tuple[Place, ...] = Field(default=(), description="folders of its distilled students: [DIR,DIR]")
    out: Place = Field(
        description="folder for summary.json, report.html, pareto.png; run again to continue or add students"
    )
    solver: Solvers = Solvers()
    temperature: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="deviation of the noise of the teacher's chunks; null: the checkpoint's",
    )
    reference: str | None = Field(
        default=None, description="what the others are compared with: 4x5; null: the teacher with the most evaluations"
    )
    episodes: int = Field(default=100, ge=1, description="rollouts of each policy")
    seed: int = Field(default=100_000, ge=0, description="first seed of the rollouts")
    environment: str | None = Field(
        default=None, description="name of the environment of policies; null: the one in their contract"
    )
    workers: int = Field(default=2, ge=1, description="processes that hold an environment each")
    samples: int = Field(default=2000, ge=2, description="samples of each density, compared with as many data")
    calls: int = Field(default=200, ge=1, description="timed calls of each, in turns")
    threads: int = Field(default=1, ge=1, description="CPU threads of one operation")
    device: str = Field(default="cpu", description="where the networks run: cpu, cuda, …")


def main(settings: Settings) -> None:
    """Measure all, write summary.json, draw."""
    import torch
    from rich.console import Console

    from lfm_cli.origin import origin, tell
    from lfm_cli.tables import pareto
    from lfm_policy.files import write_json
    from lfm_policy.models.policy import LFMPolicy
    from lfm_policy.reports.page import PAGE
    from lfm_policy.training.distillation.page import write_pareto
    from lfm_policy.training.distillation.pareto import distances, draw, entries, mark_best, timed

    torch.set_num_threads(settings.threads)
    shared = {name: getattr(settings, name) for name in ("temperature", "weights", "device", "trust_code")}
    solvers = settings.solver
    found = list(entries(settings.policy, settings.students, methods=solvers.method, steps=solvers.steps, **shared))
    labels = [entry.label for entry in found]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"each needs a name of its own, found {labels}: rename a student's folder")
    rows = timed(found, settings.calls)
    reference = settings.reference or max((row for row in rows if not row["student"]), key=lambda r: r["nfe"])["name"]
    if reference not in labels:
        raise ConfigError(f"there is no reference={reference}: {nearest(reference, labels)}")
    policies = isinstance(found[0].model, LFMPolicy)
    quality = list(successes(settings, found, reference) if policies else distances(found, settings.samples))
    rows = [row | more for row, more in zip(rows, quality, strict=True)]
    mark_best(rows)
    settings.out.mkdir(parents=True, exist_ok=True)
    picture = draw(settings.out / "pareto.png", rows)
    summary = {"reference": reference, "threads": settings.threads, "device": settings.device, "picture": picture}
    write_json(settings.out / "summary.json", summary | {"rows": rows})
    console = Console()
    for table in pareto(rows):
        console.print(table)
    tell(write_pareto(summary | {"rows": rows}, settings.out, origin()), settings.out / PAGE, console)


def successes(settings: Settings, found: "Sequence[Entry]", reference: str) -> Iterator[dict[str, Any]]:
    """Yield each policy's success, and its paired difference from the reference."""
    from lfm_cli.rollouts import Rollouts, rollouts
    from lfm_policy.models.policy import LFMPolicy

    names = {"episodes", "seed", "environment", "workers", "threads", "device", "weights", "trust_code"}
    shared = settings.model_dump(include=names)
    done: dict[str, Rollouts] = {}
    for entry in found:
        assert isinstance(entry.model, LFMPolicy)
        own = {
            "solver.method": entry.solver.method,
            "solver.steps": entry.solver.steps,
            "temperature": entry.model.spec.temperature,
        }
        done[entry.label] = rollouts(entry.label, settings.out / "rollouts", policy=entry.source, **own, **shared)
    for entry in found:
        ours = done[entry.label]
        keys = ("success", "interval", "episodes", "failed_seeds", "mean_steps")
        difference = None if entry.label == reference else ours.minus(done[reference]).model_dump(mode="json")
        yield {key: ours.summary[key] for key in keys} | {"first_seed": settings.seed, "difference": difference}
