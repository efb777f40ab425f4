"""An evaluation from seeds to files: run what is missing, report on all, film a few."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lfm_policy.chunks.delayed import Link
from lfm_policy.files import write_json
from lfm_policy.protocols import ChunkPolicy
from lfm_policy.rollout.cluster import ClusterRunner
from lfm_policy.rollout.episode_log import EpisodeLog
from lfm_policy.rollout.plot import plot
from lfm_policy.rollout.records import EpisodeResult
from lfm_policy.rollout.report import Report, rows, summarize, write_markdown
from lfm_policy.rollout.runner import Runner, RunnerOptions
from lfm_policy.rollout.subscriber import Subscriber
from lfm_policy.rollout.video import VideoWriter, choose, file_name, record
from lfm_policy.rollout.workers import Factory

Backend = Literal["local", "ray"]


def evaluate(
    policy: ChunkPolicy,
    factory: Factory,
    seeds: Sequence[int],
    out: str | Path,
    identity: Mapping[str, Any],
    *,
    options: RunnerOptions | None = None,
    link: Link | None = None,
    backend: Backend = "local",
    videos: int = 0,
    name: str = "the policy",
    console: Console | None = None,
) -> Report:
    """Run the episodes of `seeds` that `out` does not hold yet, and report on all of them.

    Leaves episodes.jsonl, run.json, summary.json, report.md, success.png and videos/ in `out`.

    Args:
        policy: what to evaluate.
        factory: makes an environment, in each worker; picklable.
        seeds: distinct and not negative.
        out: folder of this evaluation; an earlier, interrupted one of the same identity is continued.
        identity: what decides an episode beside its seed, as plain JSON values; "environment" names the task.
        options: how to run.
        link: simulated delay and loss between robot and policy, and how chunks follow one another.
        backend: local, or ray for a cluster; the episodes are the same.
        videos: how many successes, and how many failures, to film.
        name: what the policy belongs to, for messages.
        console: where to show progress and table; standard output if None.

    Raises:
        ContractError: environment and policy disagree; no step has been made.
        RolloutError: `out` holds episodes of another identity, or a worker keeps failing.
    """
    out, screen = Path(out), console or Console()
    options, link = options or RunnerOptions(), link or Link()
    identity = {**identity, **link.identity}
    log = EpisodeLog(out, {**identity, "policy_batch": options.policy_batch})
    missing = [seed for seed in seeds if seed not in log.done]
    if missing:
        with ProgressBar(seeds, log.done, screen) as bar:
            runner = Runner if backend == "local" else ClusterRunner
            runner(policy, factory, options, [log, bar], name, link).run(missing)
    results = [log.done[seed] for seed in seeds]
    report, title = summarize(results, policy.contract), f"{identity.get('environment', 'evaluation')}: {name}"
    summary = _write(out, title, identity, report, results)
    _show(screen, title, report)
    if chosen := choose(results, videos):
        writer = VideoWriter(out / "videos", policy.contract.control_hz)
        with screen.status(f"filming {len(chosen)} episodes"):
            reason = record(Runner(policy, factory, options, [writer], name, link), writer, chosen)
        summary = _add_videos(out, summary, chosen, reason)
    for part, reason in summary["skipped"].items():
        screen.print(f"no {part}: {reason}", markup=False, highlight=False)
    return report


class ProgressBar(Subscriber):
    """Episodes done, the running success rate, and the time left."""

    def __init__(self, seeds: Sequence[int], done: Mapping[int, EpisodeResult], console: Console) -> None:
        before = [done[seed].success for seed in seeds if seed in done]
        self._successes, self._episodes = sum(before), len(before)
        self._progress = Progress(
            TextColumn("episodes"),
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


def _write(
    out: Path, title: str, identity: Mapping[str, Any], report: Report, results: Sequence[EpisodeResult]
) -> dict[str, Any]:
    """Write report.md, success.png and summary.json, and return the latter, which names no videos yet."""
    write_markdown(out / "report.md", title, report, results)
    reason = plot(out / "success.png", title, results)
    summary = {"task": identity.get("environment"), **report.model_dump(mode="json"), "run": dict(identity)}
    summary |= {"videos": [], "skipped": {"plot": reason} if reason else {}}
    write_json(out / "summary.json", summary)
    return summary


def _add_videos(
    out: Path, summary: Mapping[str, Any], chosen: Sequence[EpisodeResult], reason: str | None
) -> dict[str, Any]:
    """Add to summary.json the videos that there are, and why others are not; returns it."""
    names = [f"videos/{file_name(result)}" for result in chosen]
    skipped = {**summary["skipped"], **({"videos": reason} if reason else {})}
    added = {**summary, "videos": [name for name in names if (out / name).exists()], "skipped": skipped}
    write_json(out / "summary.json", added)
    return added


def _show(console: Console, title: str, report: Report) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    for label, value in rows(report):
        table.add_row(label, value)
    console.print(table)
