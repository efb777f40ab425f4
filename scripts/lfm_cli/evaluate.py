"""Measure a checkpoint's success rate: receding-horizon rollouts on fixed seeds, with a report, a plot and videos.

    lfm evaluate checkpoint=outputs/lift episodes=100 seed=100000 workers=2

Run the same command again after an interruption, and it continues. Leaves summary.json, report.md, episodes.jsonl,
success.png and videos/ in the output folder.

    lfm evaluate checkpoint=outputs/lift against=lift episodes=500 margin=0.05

Play both policies on the same seeds and stop as soon as it is clear which is better: BETTER or EQUAL WITHIN the margin
(exit code 0), WORSE (1), or UNDECIDED after the last seed (3). Leaves comparison.json beside.
"""

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

import lfm_envs
from lfm_cli import command_line as _cli
from lfm_envs.simulator import Kind
from lfm_policy.bundles.open import Runtime, Sampling, Weights, dress, form_of, open_policy
from lfm_policy.locks import owned

if TYPE_CHECKING:
    from lfm_policy.protocols import ChunkPolicy
    from lfm_policy.rollout.evaluation import Evaluation


class Settings(Sampling):
    """See config/evaluate.yaml."""

    checkpoint: Path
    against: Path | None
    alpha: float = Field(gt=0, lt=1)
    margin: float = Field(gt=0, lt=1)
    look_every: int = Field(ge=1)
    environment: str | None
    simulation: Kind
    episodes: int = Field(ge=1)
    seed: int = Field(ge=0)
    set: Weights
    trust_code: bool = False
    runtime: Runtime
    precision: str | None
    inference: Literal["sync", "async"]
    seam: Literal["switch", "ensemble", "warm"]
    warm_blocks: int | None = Field(ge=1)
    latency_steps: int = Field(ge=0)
    loss: float = Field(ge=0, lt=1)
    best_of: int = Field(ge=1)
    out: Path | None
    videos: int = Field(ge=0)
    backend: Literal["local", "ray"]
    workers: int = Field(ge=1)
    policy_in: Literal["auto", "workers", "parent"]
    policy_batch: int = Field(ge=1)
    threads: int = Field(ge=1)
    device: str
    timeout_s: float = Field(gt=0)
    start_timeout_s: float = Field(gt=0)
    retries: int = Field(ge=0)

    @model_validator(mode="after")
    def _what_clusters_can_do(self) -> "Settings":
        if self.backend == "ray" and (self.runtime, self.device, self.threads) != ("torch", "cpu", 1):
            raise ValueError(
                "backend=ray runs a torch policy on one CPU a task: expected runtime=torch, device=cpu and threads=1, "
                f"found {self.runtime}, {self.device} and {self.threads}"
            )
        return self


def main(settings: Settings) -> None:
    # Workers import this file again when they start: torch (seconds, and memory) stays inside the functions.
    from lfm_policy.rollout.evaluation import run
    from lfm_policy.rollout.report import write_report
    from lfm_policy.rollout.video import film

    evaluation = new_evaluation(settings, settings.checkpoint, settings.environment)
    seeds = range(settings.seed, settings.seed + settings.episodes)
    out = settings.out or folder_of(settings.checkpoint)
    with owned(out):
        if settings.against is not None:
            sys.exit(_compare(settings, settings.against, evaluation, seeds, out))
        results = run(evaluation, seeds, out)
        write_report(evaluation, results, out)
        film(evaluation, results, out, settings.videos)


def _compare(settings: Settings, against: Path, evaluation: "Evaluation", seeds: range, out: Path) -> int:
    """Compare two policies, say what came out, and return the exit code that stands for it."""
    from lfm_policy.measure.sequential import Clarity
    from lfm_policy.rollout.compare import EXIT_CODES, compare, sentence

    other = new_evaluation(settings, against, str(evaluation.identity["environment"]))
    clarity = Clarity(alpha=settings.alpha, margin=settings.margin)
    found = compare(evaluation, other, seeds, out, clarity=clarity, look_every=settings.look_every)
    print(sentence(found, str(settings.checkpoint), str(against)))
    return EXIT_CODES[found.verdict]


def new_evaluation(settings: Settings, source: Path, environment: str | None) -> "Evaluation":
    """Open a policy, to be evaluated as the settings say.

    Args:
        settings: how.
        source: the policy.
        environment: name of the environment; the one in the policy's contract if None.
    """
    from lfm_policy.chunks.delayed import Link
    from lfm_policy.rollout.evaluation import Evaluation
    from lfm_policy.rollout.runner import RunnerOptions

    policy, form = load(settings, source)
    environment = environment or lfm_envs.name_for(policy.contract)
    identity = {
        "environment": environment,
        "seed": settings.seed,
        "weights": settings.set,
        **form,
        "device": settings.device,
        "threads": settings.threads,
    }
    return Evaluation(
        policy,
        functools.partial(lfm_envs.make, environment, **_options(settings.simulation, environment, policy)),
        identity,
        f"checkpoint {source}",
        RunnerOptions(**settings.model_dump(include=set(RunnerOptions.model_fields))),
        Link(**settings.model_dump(include=set(Link.model_fields))),
        settings.backend,
    )


def folder_of(checkpoint: Path) -> Path:
    """Where results go by default: a checkpoint's path below outputs/, or else its name, below outputs/evaluate."""
    if not checkpoint.exists():  # the name of a student in data/pretrained
        return Path("outputs/evaluate/pretrained") / checkpoint
    path = checkpoint.resolve()
    outputs = Path("outputs").resolve()
    return Path("outputs/evaluate") / (path.relative_to(outputs) if path.is_relative_to(outputs) else path.name)


def _options(simulation: Kind, environment: str, policy: "ChunkPolicy") -> dict[str, Any]:
    """What the environment is made with: simulation and cameras are choices of robosuite's tasks."""
    if not environment.startswith("robosuite/"):
        return {}
    return {"simulation": simulation, **lfm_envs.view_for(policy.contract)}


def load(settings: Settings, source: Path) -> "tuple[ChunkPolicy, dict[str, Any]]":
    """Open the policy; return it with what decides its chunks, as plain values."""
    opening = settings.model_dump(include={"runtime", "precision", "device", "threads", "trust_code"})
    policy = open_policy(source, weights=settings.set, sampling=settings.sampling, **opening)
    if settings.device.startswith("cuda"):
        import torch

        torch.backends.cudnn.deterministic = True
    dressed, more = dress(policy, settings.seam, settings.warm_blocks, settings.best_of)
    return dressed, form_of(policy) | more


if __name__ == "__main__":
    _cli.run("evaluate", Settings, main, __doc__)
