"""Measure a policy's success rate: receding-horizon rollouts on fixed seeds, with a report, a plot and videos.

    lfm evaluate policy=outputs/lift episodes=100 seed=100000 workers=2
    lfm evaluate lift runtime=onnx

Run the same command again after an interruption, and it continues. Leaves summary.json, report.html (all in one
file, films included), report.md, episodes.jsonl, success.png and videos/ in the output folder.

    lfm evaluate policy=outputs/lift against=lift episodes=500 margin=0.05

Play both policies on the same seeds and stop as soon as it is clear which is better: BETTER or EQUAL WITHIN the margin
(exit code 0), WORSE (1), or UNDECIDED after the last seed (3). Leaves comparison.json beside, and its report.html.
"""

import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from lfm_cli.places import folder_of
from lfm_policy.choices import Arithmetic, Place, PolicyChoice, Sampling, Simulation, Source
from lfm_policy.chunks.delayed import Link
from lfm_policy.rollout.runner import RunnerOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lfm_policy.contract import Contract
    from lfm_policy.protocols import ChunkPolicy
    from lfm_policy.rollout.evaluation import Evaluation
    from lfm_policy.rollout.recorder import Recorder
    from lfm_policy.rollout.workers import Factory

RENAMED = {"steps": "solver.steps"}


class Settings(RunnerOptions, Link, Arithmetic, Sampling, PolicyChoice):
    """A policy, an environment, how one asks the other, and who computes."""

    against: Source | None = Field(
        default=None,
        description="another policy: compare the two on the same seeds, and stop when it is clear which is better",
    )
    alpha: float = Field(default=0.05, gt=0, lt=1, description="largest probability of a wrong verdict on against=")
    margin: float = Field(
        default=0.05, gt=0, lt=1, description="difference of success rates that does not matter to against="
    )
    look_every: int = Field(default=10, ge=1, description="seeds between two looks of against=")
    environment: str | None = Field(default=None, description="its name; null: the one in the policy's contract")
    simulation: Simulation = Field(
        default="compiled",
        description="who steps robosuite's tasks: compiled (fast) or robosuite (its own Python); the same bits",
    )
    episodes: int = Field(default=100, ge=1, le=10**6, description="episodes to run, seeds seed … seed + episodes - 1")
    seed: int = Field(
        default=100_000,
        ge=0,
        description="the first one; the episode of a seed is the same whatever the workers and the order",
    )
    runtime: Literal["torch", "onnx", "auto"] = Field(
        default="torch",
        description="who computes; onnx: a bundle's graph, without torch; auto: that where there is one",
    )
    warm_blocks: int | None = Field(
        default=None, ge=1, description="blocks that seam=warm evaluates; null: half of them"
    )
    best_of: int = Field(
        default=1, ge=1, description="chunks to draw at each step; the one with the highest density is executed"
    )
    out: Place | None = Field(
        default=None, description="output folder; null: outputs/evaluate/<the policy's path below outputs, or its name>"
    )
    videos: int = Field(default=2, ge=0, description="successes, and as many failures, to film; 0: none")
    record: bool = Field(
        default=False,
        description="keep what every episode saw and did as a LeRobotDataset with next.success, in the folder rollouts",
    )
    backend: Literal["local", "ray"] = Field(
        default="local", description="ray: tasks on a cluster (RAY_ADDRESS), or on this machine's CPUs"
    )
    threads: int = Field(
        default=1, ge=1, description="CPU threads of the policy; the last bits of its actions may depend on it"
    )
    device: str = Field(default="cpu", description="where the policy runs: cpu, cuda, cuda:1, mps, auto")

    @model_validator(mode="after")
    def _what_clusters_can_do(self) -> "Settings":
        if self.backend == "ray" and (self.runtime, self.device, self.threads) != ("torch", "cpu", 1):
            raise ValueError(
                "backend=ray runs a torch policy on one CPU per task: expected runtime=torch, device=cpu and "
                f"threads=1, found {self.runtime}, {self.device} and {self.threads}"
            )
        if self.record and (self.backend == "ray" or self.against is not None):
            raise ValueError("record=true is for one policy on this machine: expected backend=local and no against=")
        return self


def main(settings: Settings) -> None:
    """Run, report, film; or compare two policies."""
    from rich.console import Console

    from lfm_cli.origin import origin, tell
    from lfm_policy.locks import owned
    from lfm_policy.reports.page import PAGE
    from lfm_policy.rollout.evaluation import run
    from lfm_policy.rollout.pages import write_evaluation
    from lfm_policy.rollout.report import write_report
    from lfm_policy.rollout.video import film

    seeds = range(settings.seed, settings.seed + settings.episodes)
    out = settings.out or folder_of(settings.policy)
    if settings.against is not None:
        evaluation = new_evaluation(settings, settings.policy, settings.environment)
        with owned(out):
            sys.exit(_compare(settings, settings.against, evaluation, seeds, out))
    with _opened(settings, out) as evaluation, owned(out):
        recorder = _recorder(out) if settings.record else None
        results = run(evaluation, seeds, out, subscribers=[recorder] if recorder else [])
        write_report(evaluation, results, out)
        film(evaluation, results, out, settings.videos)
        tell(write_evaluation(evaluation, results, out, origin()), out / PAGE, Console())
        if recorder:
            recorder.write(evaluation, results, out)


@contextmanager
def _opened(settings: Settings, out: Path) -> "Iterator[Evaluation]":
    """Open the evaluation, with workers that stay; where a file tells which, they start while the policy is loaded."""
    from lfm_policy.models.bundle import contract_in
    from lfm_policy.models.sources import is_server, locate
    from lfm_policy.rollout.episode_log import EPISODES

    with ExitStack() as stack:
        crew = None
        contract = None if is_server(settings.policy) else contract_in(locate(settings.policy))
        if contract is not None and settings.backend == "local" and not (out / EPISODES).exists():
            factory = _environment(settings, contract, settings.environment)[1]
            crew = stack.enter_context(_options(settings).crew(factory))
            crew.members(min(settings.workers, settings.episodes))
        evaluation = new_evaluation(settings, settings.policy, settings.environment)
        crew = crew or stack.enter_context(evaluation.options.crew(evaluation.factory))
        yield replace(evaluation, crew=crew)


def _recorder(out: Path) -> "Recorder":
    from lfm_policy.rollout.recorder import Recorder

    return Recorder(out)


def _compare(settings: Settings, against: str, evaluation: "Evaluation", seeds: range, out: Path) -> int:
    """Compare two policies, say what came out, and return the exit code that stands for it."""
    from rich.console import Console

    from lfm_cli.origin import origin, tell
    from lfm_policy.measure.sequential import Clarity
    from lfm_policy.reports.page import PAGE
    from lfm_policy.rollout.compare import AGAINST, EXIT_CODES, compare, sentence
    from lfm_policy.rollout.evaluation import episode_log
    from lfm_policy.rollout.pages import write_comparison

    other = new_evaluation(settings, against, str(evaluation.identity["environment"]))
    clarity = Clarity(alpha=settings.alpha, margin=settings.margin)
    found = compare(evaluation, other, seeds, out, clarity=clarity, look_every=settings.look_every)
    answer, played = sentence(found, settings.policy, against), seeds[: found.pairs]
    done = (episode_log(evaluation, out).done, episode_log(other, out / AGAINST).done)
    ours, theirs = ([side[seed] for seed in played] for side in done)
    sides = ((settings.policy, evaluation, ours), (against, other, theirs))
    tell(write_comparison(sides, found, answer, settings.look_every, out, origin()), out / PAGE, Console())
    print(answer)
    return EXIT_CODES[found.verdict]


def new_evaluation(settings: Settings, source: str, environment: str | None) -> "Evaluation":
    """Open a policy, to be evaluated as the settings say.

    Args:
        settings: how.
        source: the policy.
        environment: name of the environment; the one in the policy's contract if None.
    """
    from lfm_policy.rollout.evaluation import Evaluation

    policy, form = load(settings, source)
    environment, factory = _environment(settings, policy.contract, environment)
    identity = {
        "environment": environment,
        "seed": settings.seed,
        "weights": settings.weights,
        **form,
        "device": settings.device,
        "threads": settings.threads,
    }
    return Evaluation(
        policy,
        factory,
        identity,
        f"policy {source}",
        _options(settings),
        Link(**settings.model_dump(include=set(Link.model_fields))),
        settings.backend,
    )


def _environment(settings: Settings, contract: "Contract", name: str | None) -> "tuple[str, Factory]":
    """Find the environment of a policy: its name, and what makes it."""
    import lfm_envs

    named = name or lfm_envs.name_for(contract, settings.trust_code)
    simulated: dict[str, Any] = {"simulation": settings.simulation} if named.startswith("robosuite/") else {}
    return lfm_envs.factory_for(contract, named, **simulated)


def _options(settings: Settings) -> RunnerOptions:
    return RunnerOptions(**settings.model_dump(include=set(RunnerOptions.model_fields)))


def load(settings: Settings, source: str) -> "tuple[ChunkPolicy, dict[str, Any]]":
    """Open the policy; return it with what decides its chunks, as plain values."""
    from lfm_policy.bundles.open import dress, form_of, open_policy

    opening = settings.model_dump(include={"runtime", "weights", "precision", "device", "threads", "trust_code"})
    policy = open_policy(source, sampling=settings.sampling, **opening)
    if settings.device.startswith("cuda"):
        import torch

        torch.backends.cudnn.deterministic = True
    dressed, more = dress(policy, settings.seam, settings.warm_blocks, settings.best_of)
    return dressed, form_of(policy) | more
