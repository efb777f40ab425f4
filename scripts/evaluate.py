"""Measure a checkpoint's success rate: receding-horizon rollouts on fixed seeds, with a report, a plot and videos.

    python scripts/evaluate.py checkpoint=outputs/lift episodes=100 seed=100000 workers=2

Run the same command again after an interruption, and it continues. Leaves summary.json, report.md, episodes.jsonl,
success.png and videos/ in the output folder.
"""

import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import _cli
from pydantic import Field

import lfm_envs
from lfm_policy.errors import ConfigError
from lfm_policy.settings import Frozen

if TYPE_CHECKING:
    from lfm_policy.policy import LFMPolicy


class Settings(Frozen):
    """See config/evaluate.yaml."""

    checkpoint: Path
    environment: str | None
    episodes: int = Field(ge=1)
    seed: int = Field(ge=0)
    set: Literal["ema", "raw"]
    solver: str | None
    steps: int | None = Field(ge=1)
    out: Path | None
    videos: int = Field(ge=0)
    workers: int = Field(ge=1)
    policy_batch: int = Field(ge=1)
    threads: int = Field(ge=1)
    device: str
    timeout_s: float = Field(gt=0)
    start_timeout_s: float = Field(gt=0)
    retries: int = Field(ge=0)


def main(settings: Settings) -> None:
    # Workers import this file again when they start: torch (seconds, and memory) stays inside the functions.
    from lfm_policy.rollout.evaluate import evaluate
    from lfm_policy.rollout.runner import RunnerOptions

    policy = load_policy(settings)
    environment = settings.environment or lfm_envs.name_for(policy.contract)
    solver = policy.chain.solver
    identity = {
        "environment": environment,
        "seed": settings.seed,
        "weights": settings.set,
        "checkpoint": policy.digest(),
        "solver": solver.method,
        "steps": solver.steps,
        "tolerance": solver.tolerance,
        "device": settings.device,
        "threads": settings.threads,
    }
    evaluate(
        policy,
        functools.partial(lfm_envs.make, environment),
        range(settings.seed, settings.seed + settings.episodes),
        settings.out or Path("outputs/evaluate") / settings.checkpoint.resolve().name,
        identity,
        options=RunnerOptions(**settings.model_dump(include=set(RunnerOptions.model_fields))),
        videos=settings.videos,
        name=f"checkpoint {settings.checkpoint}",
    )


def load_policy(settings: Settings) -> "LFMPolicy":
    """The checkpoint's policy on its device, with the solver that the settings ask for."""
    import torch

    from lfm_policy.policy import LFMPolicy

    torch.set_num_threads(settings.threads)
    torch.backends.cudnn.deterministic = True
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device={settings.device}: this machine has no GPU that torch can use; use device=cpu")
    policy = LFMPolicy.from_pretrained(settings.checkpoint, weights=settings.set, device=settings.device)
    changes: dict[str, Any] = {"method": settings.solver, "steps": settings.steps}
    try:
        policy.chain.solver = replace(policy.chain.solver, **{k: v for k, v in changes.items() if v is not None})
    except ValueError as error:
        raise ConfigError(f"solver={settings.solver}: {error}") from None
    return policy


if __name__ == "__main__":
    _cli.run("evaluate", Settings, main, __doc__)
