"""Distil a chain into fewer network evaluations: `lfm distill policy=outputs/lift blocks=2 out=DIR`.

The student is a checkpoint like its teacher, for lfm evaluate and everything else. The same command continues an
interrupted run, bit for bit from its last checkpoint.
"""

from typing import Any

from lfm_policy.training.distillation.settings import DistillSettings as Settings

RENAMED = {"demonstrations": "data.path", "steps": "solver.steps"}

__all__ = ["RENAMED", "Settings", "main"]


def main(settings: Settings) -> None:
    """Distil, compare student and teacher, write summary.json and report.html beside the student's checkpoint."""
    from rich.console import Console

    from lfm_cli.origin import origin, tell
    from lfm_cli.tables import show_training
    from lfm_policy.files import keeping, write_json
    from lfm_policy.reports.page import PAGE
    from lfm_policy.training.distillation.page import write_distillation
    from lfm_policy.training.distillation.run import run

    summary = run(settings)
    summary |= success(settings) if settings.episodes else {}
    with keeping(settings.out / "summary.json"):
        write_json(settings.out / "summary.json", summary)
    show_training(summary, settings.out)
    tell(write_distillation(summary, settings.out, origin()), settings.out / PAGE, Console())


def success(settings: Settings) -> dict[str, Any]:
    """Return the success of both on the same seeds, and their difference with its paired interval."""
    from lfm_cli.rollouts import rollouts

    common = {"episodes": settings.episodes, "seed": settings.episodes_seed, "workers": settings.workers}
    common |= {"trust_code": settings.trust_code}
    folder = settings.out / "rollouts"
    ours = rollouts("student", folder, policy=settings.out, **common)
    theirs = rollouts("teacher", folder, policy=settings.policy, weights=settings.weights, **settings.asked, **common)
    keys = ("success", "interval", "episodes", "failed_seeds", "nfe")
    return {
        "success": {key: ours.summary[key] for key in keys},
        "teacher_success": {key: theirs.summary[key] for key in keys},
        "difference": ours.minus(theirs).model_dump(mode="json"),
    }
