"""What an evaluation says: success with its interval, steps, cost."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lfm_policy.contract import Contract, Score
from lfm_policy.errors import RolloutError
from lfm_policy.files import keeping, write_json, write_text
from lfm_policy.measure.statistics import wilson_interval
from lfm_policy.rollout.evaluation import Evaluation
from lfm_policy.rollout.plot import plot
from lfm_policy.rollout.records import EpisodeResult
from lfm_policy.rollout.strips import stem
from lfm_policy.settings import Frozen

UNDECIDED = "undecided"
"""How a report names episodes in which no mode was chosen."""


class Share(Frozen):
    """How many of the episodes took one mode."""

    mode: str
    count: int
    share: float
    interval: tuple[float, float]
    """Wilson 95 % interval."""
    succeeded: int


class Report(Frozen):
    """Summary of an evaluation; what cannot be known (steps to success without a success) is None, never NaN."""

    success: float
    """Share of the episodes that succeeded."""
    episodes: int
    interval: tuple[float, float]
    """Wilson 95 % interval of the success rate."""
    mean_steps: float | None
    """Mean steps of the successful episodes."""
    median_steps: float | None
    nfe: float
    """Network evaluations per chunk."""
    ms_per_chunk: float
    """Median time of a policy call [ms]."""
    ms_per_chunk_p95: float
    episodes_per_minute: float
    """Episodes per minute of wall time while the environments ran; start and report aside."""
    failed_seeds: tuple[int, ...]
    redone: int
    """Episodes that were done again because their worker failed."""
    seam_jerk: float | None = None
    """Jerk of the commands between chunks, root mean square of an episode, mean over them [unit/s³]."""
    inner_jerk: float | None = None
    """The same within chunks."""
    unit: str = "m"
    """Unit of the commands; empty where they have none, or several."""
    score: Score | None = None
    """Which reward of each episode the task is judged by, beside success."""
    mean_score: float | None = None
    score_interval: tuple[float, float] | None = None
    """Student's 95 % interval of the mean; None of fewer than two episodes."""
    modes: tuple[Share, ...] = ()
    """Of a contract with modes: these, and after them what else was told of any episode."""


def summarize(results: Sequence[EpisodeResult], contract: Contract | None = None) -> Report:
    """Report on some episodes, at least one.

    Args:
        results: the episodes.
        contract: of the task, which may declare a score, modes and a unit of its own.

    Raises:
        RolloutError: no episodes.
    """
    if not results:
        raise RolloutError("expected at least one episode to report on, found none")
    steps = [result.steps_to_success for result in results if result.steps_to_success is not None]
    milliseconds = [ms for result in results for ms in result.chunk_ms]
    # Workers run side by side, so each episode took its share of the clock.
    seconds = sum(result.wall_seconds / result.workers for result in results)
    return Report(
        success=len(steps) / len(results),
        episodes=len(results),
        interval=wilson_interval(len(steps), len(results)),
        mean_steps=statistics.fmean(steps) if steps else None,
        median_steps=statistics.median(steps) if steps else None,
        nfe=sum(result.nfe for result in results) / sum(result.chunks for result in results),
        ms_per_chunk=float(np.median(milliseconds)),
        ms_per_chunk_p95=float(np.percentile(milliseconds, 95)),
        episodes_per_minute=60 * len(results) / max(seconds, 1e-6),
        failed_seeds=tuple(sorted(result.seed for result in results if not result.success)),
        redone=sum(result.attempts > 1 for result in results),
        seam_jerk=_mean(result.seam_jerk for result in results),
        inner_jerk=_mean(result.inner_jerk for result in results),
        unit="m" if contract is None else contract.unit,
        **_scored(results, contract.score if contract else None),
        modes=_shares(results, contract.modes if contract else ()),
    )


def _shares(results: Sequence[EpisodeResult], modes: Sequence[str]) -> tuple[Share, ...]:
    if not modes:
        return ()
    took = [(result.mode or UNDECIDED, result.success) for result in results]
    others = sorted({mode for mode, _ in took} - set(modes))
    shares = []
    for mode in (*modes, *others):
        successes = [success for name, success in took if name == mode]
        count, of = len(successes), len(took)
        found = {"share": count / of, "interval": wilson_interval(count, of), "succeeded": sum(successes)}
        shares.append(Share(mode=mode, count=count, **found))
    return tuple(shares)


def _scored(results: Sequence[EpisodeResult], score: Score | None) -> dict[str, Any]:
    if score is None:
        return {}
    values = [value for result in results if (value := getattr(result, score)) is not None]
    mean, count = statistics.fmean(values) if values else None, len(values)
    interval = None
    if mean is not None and count > 1:
        from scipy.special import stdtrit  # Student's quantile, without the second that scipy.stats takes

        half = float(stdtrit(count - 1, 0.975)) * statistics.stdev(values) / count**0.5
        interval = (mean - half, mean + half)
    return {"score": score, "mean_score": mean, "score_interval": interval}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def rows(report: Report) -> list[tuple[str, str]]:
    """Return the report as (label, value) pairs, for tables."""
    low, high = report.interval
    succeeded = round(report.success * report.episodes)
    steps = "no success"
    if report.mean_steps is not None:
        steps = f"{report.mean_steps:.1f} mean, {report.median_steps:g} median"
    jerk = "no seam"
    if report.seam_jerk is not None and report.inner_jerk is not None:
        base = f"({report.unit})" if "/" in report.unit else report.unit
        unit = f" {base}/s³" if base else ""
        jerk = f"{report.seam_jerk:.0f}{unit} between chunks, {report.inner_jerk:.0f}{unit} within"
    scored = []
    if report.score is not None and report.mean_score is not None:
        ends = report.score_interval
        scored.append((f"{report.score.replace('_', ' ')}, mean", f"{report.mean_score:.3f}"))
        scored += [("Student's 95 % interval", f"[{ends[0]:.3f}, {ends[1]:.3f}]")] if ends else []
    modes = [(f"mode {share.mode}", _told(share)) for share in report.modes]
    return [
        ("success", f"{report.success:.3f} ({succeeded} of {report.episodes})"),
        ("Wilson 95 % interval", f"[{low:.3f}, {high:.3f}]"),
        *scored,
        *modes,
        ("steps to success", steps),
        ("network evaluations per chunk", f"{report.nfe:g}"),
        ("time per chunk", f"{report.ms_per_chunk:.1f} ms median, {report.ms_per_chunk_p95:.1f} ms at 95 %"),
        ("episodes per minute", f"{report.episodes_per_minute:.1f}"),
        ("jerk of the commands", jerk),
        ("redone after a worker failed", str(report.redone)),
    ]


def _told(share: Share) -> str:
    low, high = share.interval
    return f"{share.share:.3f} [{low:.3f}, {high:.3f}] ({share.count}, of which {share.succeeded} succeed)"


def write_report(
    evaluation: Evaluation, results: Sequence[EpisodeResult], out: str | Path, console: Console | None = None
) -> Report:
    """Write summary.json, report.md and success.png into `out`, and show the summary.

    Args:
        evaluation: what was run.
        results: its episodes, at least one.
        out: folder of the evaluation.
        console: where to show the table; standard output if None.
    """
    out, screen = Path(out), console or Console()
    report, title = summarize(results, evaluation.policy.contract), evaluation.title
    with keeping(out / "report.md"):
        write_markdown(out / "report.md", title, report, results)
    reason = None
    with keeping(out / "success.png"):
        reason = plot(out / "success.png", title, results)
    summary = {
        "task": evaluation.identity.get("environment"),
        **report.model_dump(mode="json"),
        "run": evaluation.whole_identity,
        "videos": [f"videos/{path.name}" for path in _films(out, results)],
        "skipped": {"plot": reason} if reason else {},
    }
    with keeping(out / "summary.json"):
        write_json(out / "summary.json", summary)
    table = Table(title=title, show_header=False, title_justify="left")
    for label, value in rows(report):
        table.add_row(label, value)
    screen.print(table)
    if reason:
        screen.print(f"no plot: {reason}", markup=False, highlight=False)
    return report


def _films(out: Path, results: Sequence[EpisodeResult]) -> list[Path]:
    """List the films that lie there from before: of successes, then of failures."""
    ordered = sorted(results, key=lambda result: (not result.success, result.seed))
    return [path for result in ordered if (path := out / "videos" / f"{stem(result)}.mp4").exists()]


def write_markdown(path: str | Path, title: str, report: Report, results: Sequence[EpisodeResult]) -> None:
    """Write the report and the per-seed table as Markdown."""
    lines = [f"# {title}", "", "| | |", "|---|---|", *(f"| {label} | {value} |" for label, value in rows(report))]
    lines += [
        "",
        "| seed | success | steps | chunks | final reward | ms per chunk | digest |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.seed} | {'yes' if r.success else '**no**'} | {r.steps} | {r.chunks} | {r.final_reward:g} "
        f"| {1000 * r.policy_seconds / max(r.chunks, 1):.1f} | `{r.digest}` |"
        for r in sorted(results, key=lambda result: result.seed)
    ]
    write_text(path, "\n".join(lines) + "\n")
