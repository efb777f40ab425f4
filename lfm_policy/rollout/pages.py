"""The HTML reports of an evaluation and of a comparison."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lfm_policy.measure.sequential import Clarity, Comparison, PairedTest
from lfm_policy.measure.statistics import wilson_interval
from lfm_policy.reports.charts import Curve, chart
from lfm_policy.reports.page import (
    PAGE,
    Facts,
    Lines,
    Origin,
    Part,
    Pictures,
    Rate,
    Rates,
    Sheet,
    flat,
    pictures_in,
    write_page,
)
from lfm_policy.rollout.evaluation import Evaluation
from lfm_policy.rollout.records import EpisodeResult
from lfm_policy.rollout.report import Report, Share, rows, summarize
from lfm_policy.rollout.strips import stem


def write_evaluation(
    evaluation: Evaluation, results: Sequence[EpisodeResult], out: str | Path, origin: Origin
) -> str | None:
    """Write `out`/report.html from the episodes, the plot and the films that lie there.

    Args:
        evaluation: what was run.
        results: its episodes, at least one.
        out: folder of the evaluation, with what `write_report` and `film` left in it.
        origin: what made it.

    Returns:
        Why there is no page, or None.
    """
    out = Path(out)
    report = summarize(results, evaluation.policy.contract)
    parts: list[Part] = [
        Rates("Success", [rate_of("success", results)], "The band is the Wilson 95 % interval."),
        Rates("Modes", [_rate_of_mode(share) for share in report.modes], "Which way was taken; bands as above."),
        Facts("Numbers", _numbers(report)),
        Pictures("Success over the episodes, and steps to success", pictures_in(out / "success.png")),
        *_films(evaluation, results, out),
        episodes_sheet(results),
        *made_by(evaluation, results, origin),
    ]
    return write_page(out / PAGE, evaluation.title, parts)


def write_comparison(
    sides: Sequence[tuple[str, Evaluation, Sequence[EpisodeResult]]],
    found: Comparison,
    answer: str,
    look_every: int,
    out: str | Path,
    origin: Origin,
) -> str | None:
    """Write `out`/report.html of two policies on the same seeds.

    Args:
        sides: name, evaluation and episodes of the first and the second policy, by the same seeds.
        found: what the comparison found.
        answer: the same in a sentence.
        look_every: pairs between two looks.
        out: folder of the comparison.
        origin: what made it.

    Returns:
        Why there is no page, or None.
    """
    (first, one, ours), (second, other, theirs) = sides
    looks = _looks(found, look_every, ours, theirs)
    names = ("seed", f"{first} succeeds", f"{second} succeeds", "steps of the first", "steps of the second")
    pairs = [(a.seed, a.success, b.success, a.steps, b.steps) for a, b in zip(ours, theirs, strict=True)]
    parts: list[Part] = [
        Rates("Success", [rate_of(first, ours), rate_of(second, theirs)], "Bands are Wilson 95 % intervals of each."),
        Facts("Difference", flat(found.model_dump())),
        Pictures(
            "What was known at each look",
            chart({"first minus second": looks}, "pairs of episodes", "difference of success", level=0.0),
            f"The band holds the true difference at all looks at once with {1 - found.alpha:.0%}.",
        ),
        Sheet("Episodes, pair by pair", names, pairs),
        *made_by(one, ours, origin, f"What was run: {first}"),
        Facts(f"What was run: {second}", flat(other.whole_identity)),
    ]
    return write_page(Path(out) / PAGE, f"{one.title} against {second}", parts, answer)


def _numbers(report: Report) -> list[tuple[str, str]]:
    """Return what the page does not show as bars."""
    bars = {"success", "Wilson 95 % interval", *(f"mode {share.mode}" for share in report.modes)}
    return [row for row in rows(report) if row[0] not in bars]


def _rate_of_mode(share: Share) -> Rate:
    return Rate(share.mode, share.share, *share.interval, f"{share.count}, of which {share.succeeded} succeed")


def rate_of(name: str, results: Sequence[EpisodeResult]) -> Rate:
    """Return the success of some episodes, at least one, with its Wilson interval."""
    succeeded, count = sum(result.success for result in results), len(results)
    return Rate(name, succeeded / count, *wilson_interval(succeeded, count), f"{succeeded} of {count}")


def episodes_sheet(results: Sequence[EpisodeResult]) -> Sheet:
    """Make a table with a row for each seed."""
    columns = ("seed", "success", "steps", "chunks", "final reward", "ms per chunk", "digest")
    ordered = sorted(results, key=lambda result: result.seed)
    cells = [
        (r.seed, r.success, r.steps, r.chunks, r.final_reward, 1000 * r.policy_seconds / max(r.chunks, 1), r.digest)
        for r in ordered
    ]
    return Sheet("Episodes", columns, cells, "Click a name to sort. Equal digests mean the same episode, bit for bit.")


def made_by(
    evaluation: Evaluation, results: Sequence[EpisodeResult], origin: Origin, title: str = "What was run"
) -> Iterator[Part]:
    """Yield command, commit, seeds, and all that decides an episode, the policy's digest among it."""
    seeds = sorted(result.seed for result in results)
    whole = len(seeds) == seeds[-1] - seeds[0] + 1
    shown = f"{seeds[0]} … {seeds[-1]}" if whole else " ".join(map(str, seeds))
    others = [(name, value) for name, value in origin.items() if name != "command"]
    yield Lines("Command", [origin["command"]] if "command" in origin else [])
    yield Facts(title, [*others, ("seeds", shown), *flat(evaluation.whole_identity)])


def _films(evaluation: Evaluation, results: Sequence[EpisodeResult], out: Path) -> Iterator[Pictures]:
    """Yield the films and strips that there are: successes, then failures."""
    cameras = [camera.name for camera in evaluation.policy.contract.cameras]
    rows = f" Below the scene, as the policy sees it: {', '.join(cameras)}." if cameras else ""
    for title, success in (("Successes", True), ("Failures", False)):
        pictures = []
        for result in sorted(results, key=lambda result: result.seed):
            if result.success == success:
                file, caption = out / "videos" / stem(result), f"seed {result.seed}, {result.steps} steps"
                pictures += pictures_in(file.with_suffix(".jpg"), caption=f"{caption}, from left to right.{rows}")
                pictures += pictures_in(file.with_suffix(".mp4"), caption=caption)
        yield Pictures(title, pictures)


def _looks(found: Comparison, look_every: int, ours: Sequence[EpisodeResult], theirs: Sequence[EpisodeResult]) -> Curve:
    """Repeat the test on the pairs: what it knew at each look."""
    test = PairedTest(Clarity(alpha=found.alpha, margin=found.margin))
    pairs = [(a.success, b.success) for a, b in zip(ours, theirs, strict=True)]
    looks = [test.add(pairs[begin : begin + look_every]) for begin in range(0, len(pairs), look_every)]
    low, high = zip(*(look.interval for look in looks), strict=True)
    return Curve([look.pairs for look in looks], [look.difference for look in looks], low, high)
