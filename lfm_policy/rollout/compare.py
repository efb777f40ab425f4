"""Two policies on the same seeds, a few at a time, until it is clear which is better or that the seeds are over."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from lfm_policy.errors import ConfigError
from lfm_policy.files import write_json
from lfm_policy.measure.sequential import Clarity, Comparison, PairedTest
from lfm_policy.rollout.evaluation import Evaluation, episode_log
from lfm_policy.rollout.records import EpisodeResult

AGAINST = "against"
"""Folder of the second policy's episodes, inside that of the first."""
EXIT_CODES = {"better": 0, "equal": 0, "worse": 1, "undecided": 3}
"""For a continuous integration that asks whether a change made a policy worse; 2 is for wrong settings."""

Episodes = Callable[[Sequence[int]], list[EpisodeResult]]


def compare(
    first: Evaluation,
    second: Evaluation,
    seeds: Sequence[int],
    out: str | Path,
    *,
    clarity: Clarity | None = None,
    look_every: int = 10,
    console: Console | None = None,
) -> Comparison:
    """Play the same seeds with both policies until the test is clear; leaves comparison.json in `out`.

    Both evaluations keep their episodes, in `out` and in `out`/against, and go on with what is there.

    Args:
        first: whose advantage is measured.
        second: in the same environments.
        seeds: in the order in which they are played, distinct and not negative.
        out: folder of the first evaluation.
        clarity: what counts as clear.
        look_every: seeds between two looks.
        console: where to show the looks; standard output if None.

    Raises:
        ConfigError: the evaluations run on a cluster, or have nothing to look at.
        ContractError: environment and one of the policies disagree.
        RolloutError: a folder holds episodes of another identity, or a worker keeps failing.
    """
    if "ray" in (first.backend, second.backend):
        raise ConfigError("a comparison stops as soon as it is clear, and so runs here: use backend=local")
    if not seeds or look_every < 1:
        raise ConfigError(
            f"expected 1 or more episodes and look_every >= 1, found {len(seeds)} and look_every={look_every}"
        )
    out, screen, test = Path(out), console or Console(), PairedTest(clarity)
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(_playing(*side)) for side in ((first, out), (second, out / AGAINST))]
        for begin in range(0, len(seeds), look_every):
            part = seeds[begin : begin + look_every]
            ours, theirs = ([result.success for result in side(part)] for side in sides)
            found = test.add(zip(ours, theirs, strict=True))
            screen.print(_line(found), highlight=False)
            if found.verdict != "undecided":
                break
    write_json(out / "comparison.json", found.model_dump(mode="json"))
    return found


def sentence(found: Comparison, first: str, second: str) -> str:
    """Say what a comparison found, with the verdict first."""
    low, high = found.interval
    evidence = (
        f"success differs by {found.difference:+.3f}, [{low:+.3f}, {high:+.3f}] with {1 - found.alpha:.0%} "
        f"at any time ({found.pairs} pairs, {found.only_first} won by the first alone, {found.only_second} by the "
        "second)"
    )
    match found.verdict:
        case "better":
            return f"BETTER: {first} than {second}; {evidence}"
        case "worse":
            return f"WORSE: {first} than {second}; {evidence}"
        case "equal":
            return f"EQUAL WITHIN {found.margin:g}: {first} and {second}; {evidence}"
        case "undecided":
            return f"UNDECIDED: {first} and {second}; {evidence}; more episodes may decide"


@contextlib.contextmanager
def _playing(evaluation: Evaluation, out: Path) -> Iterator[Episodes]:
    """Yield workers that stay, and the episodes that they or earlier runs have played."""
    log = episode_log(evaluation, out)
    with evaluation.runner([log]) as runner:

        def episodes(seeds: Sequence[int]) -> list[EpisodeResult]:
            missing = [seed for seed in seeds if seed not in log.done]
            if missing:
                runner.run(missing)
            return [log.done[seed] for seed in seeds]

        yield episodes


def _line(found: Comparison) -> str:
    low, high = found.interval
    return f"{found.pairs} pairs: difference {found.difference:+.3f}, [{low:+.3f}, {high:+.3f}]"
