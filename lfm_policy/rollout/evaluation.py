"""An evaluation from seeds to results: what is evaluated and how, and the episodes that are still missing.

An evaluation is four calls, each of which can be made again later:

    results = run(evaluation, seeds, out)              # episodes.jsonl, run.json
    report = write_report(evaluation, results, out)    # report.py: summary.json, report.md, success.png
    film(evaluation, results, out, videos=2)           # video.py: videos/
    write_evaluation(evaluation, results, out, {})     # pages.py: report.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lfm_policy.chunks.delayed import Link
from lfm_policy.protocols import ChunkPolicy
from lfm_policy.rollout.cluster import ClusterRunner
from lfm_policy.rollout.crew import Crew
from lfm_policy.rollout.episode_log import EpisodeLog
from lfm_policy.rollout.records import EpisodeResult
from lfm_policy.rollout.runner import EpisodeRunner, Runner, RunnerOptions
from lfm_policy.rollout.subscriber import Subscriber
from lfm_policy.rollout.workers import Factory

Backend = Literal["local", "ray"]


@dataclass(frozen=True)
class Evaluation:
    """One policy in environments of one kind, and how its episodes are run."""

    policy: ChunkPolicy
    factory: Factory
    """Makes an environment, in each worker; picklable."""
    identity: Mapping[str, Any]
    """What decides an episode beside seed and link, as plain JSON values; "environment" names the task."""
    name: str = "the policy"
    """What the policy belongs to, for messages."""
    options: RunnerOptions = field(default_factory=RunnerOptions)
    link: Link = field(default_factory=Link)
    """Simulated delay and loss between robot and policy, and how chunks follow one another."""
    backend: Backend = "local"
    """local, or ray for a cluster; the episodes are the same."""
    crew: Crew | None = None
    """Workers on this machine that stay, so that filming begins at once; each run has its own if None."""

    @property
    def whole_identity(self) -> dict[str, Any]:
        """All that decides an episode beside its seed, but for the size of batches."""
        return {**self.identity, **self.link.identity}

    @property
    def title(self) -> str:
        """Task and policy, for people."""
        return f"{self.identity.get('environment', 'evaluation')}: {self.name}"

    def runner(self, subscribers: Sequence[Subscriber]) -> Runner:
        """Return what runs episodes on this machine."""
        return Runner(self.policy, self.factory, self.options, subscribers, self.name, self.link, self.crew)


def run(
    evaluation: Evaluation,
    seeds: Sequence[int],
    out: str | Path,
    *,
    console: Console | None = None,
    subscribers: Sequence[Subscriber] = (),
) -> list[EpisodeResult]:
    """Run the episodes of `seeds` that `out` does not hold yet; return all of them, in the order of `seeds`.

    Args:
        evaluation: what is run.
        seeds: distinct and not negative.
        out: folder of this evaluation; an earlier, interrupted one of the same identity is continued.
        console: where to show progress; standard output if None.
        subscribers: hear what happens too.

    Raises:
        ContractError: environment and policy disagree; no step has been made.
        RolloutError: `out` holds episodes of another identity, or a worker keeps failing.
    """
    log = episode_log(evaluation, out)
    missing = [seed for seed in seeds if seed not in log.done]
    if missing:
        with ProgressBar(seeds, log.done, console or Console()) as bar:
            _runner(evaluation, [*subscribers, log, bar]).run(missing)
    return [log.done[seed] for seed in seeds]


def episode_log(evaluation: Evaluation, out: str | Path) -> EpisodeLog:
    """Open the log of an evaluation in its folder.

    Raises:
        RolloutError: the folder holds episodes of another identity.
    """
    return EpisodeLog(out, {**evaluation.whole_identity, "policy_batch": evaluation.options.policy_batch})


def _runner(evaluation: Evaluation, subscribers: Sequence[Subscriber]) -> EpisodeRunner:
    if evaluation.backend == "local":
        return evaluation.runner(subscribers)
    e = evaluation
    return ClusterRunner(e.policy, e.factory, e.options, subscribers, e.name, e.link)


class ProgressBar(Subscriber):
    """Episodes done, the running success rate, and the time left.

    Args:
        seeds: of all episodes.
        done: those that were there before.
        console: where to show it.
        doing: what is done with them.
    """

    def __init__(
        self, seeds: Sequence[int], done: Mapping[int, EpisodeResult], console: Console, doing: str = "episodes"
    ) -> None:
        before = [done[seed].success for seed in seeds if seed in done]
        self._successes, self._episodes = sum(before), len(before)
        self._progress = Progress(
            TextColumn(doing),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task(self._rate(), total=len(seeds), completed=self._episodes)

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def on_end(self, result: EpisodeResult) -> None:
        """Advance."""
        self._successes += result.success
        self._episodes += 1
        self._progress.update(self._task, advance=1, description=self._rate())

    def on_failure(self, seed: int, attempt: int, reason: str) -> None:
        """Show the reason above the bar."""
        text = f"seed {seed}, attempt {attempt}: {reason}\nthe worker is started again and the episode redone"
        self._progress.console.print(text, markup=False, highlight=False)

    def _rate(self) -> str:
        return f"success {self._successes / self._episodes:.3f}" if self._episodes else "starting workers"
