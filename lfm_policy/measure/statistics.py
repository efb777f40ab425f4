"""Statistics of evaluations: proportions, paired differences, and how well scores separate two kinds of episodes."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from math import sqrt

import numpy as np

from lfm_policy.errors import RolloutError
from lfm_policy.settings import Frozen

_Z = statistics.NormalDist().inv_cdf(0.975)


class PairedComparison(Frozen):
    """Two runs on the same seeds."""

    difference: float
    """Success rate of the first minus that of the second."""
    interval: tuple[float, float]
    """Bonett-Price 95 % interval of the difference."""
    episodes: int
    only_first: int
    """Seeds at which only the first succeeded."""
    only_second: int


def wilson_interval(successes: int, episodes: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927); (0, 1) without episodes."""
    if not 0 <= successes <= episodes:
        raise ValueError(f"expected 0 <= successes <= episodes, found {successes} of {episodes}")
    if episodes == 0:
        return 0.0, 1.0
    rate, weight = successes / episodes, _Z**2 / episodes
    centre = (rate + weight / 2) / (1 + weight)
    half = sqrt(rate * (1 - rate) * weight + weight**2 / 4) / (1 + weight)
    # At the ends the bound is 0 or 1 exactly; the difference of two roundings need not be.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == episodes else min(1.0, centre + half)


def balanced_accuracy(hits: int, unusual: int, passes: int, usual: int) -> tuple[float, tuple[float, float]]:
    """Return the mean of two shares, alarms where there should be one and none elsewhere, and its 95 % interval.

    The interval joins the two score intervals (Newcombe 1998, method 10), so that it has a length at 0 and 1 too.

    Args:
        hits: unusual episodes with an alarm.
        unusual: all of them.
        passes: usual episodes without one.
        usual: all of them.

    Raises:
        ValueError: one kind has no episode.
    """
    if not unusual or not usual:
        raise ValueError(f"expected episodes of both kinds, found {unusual} and {usual}")
    shares = np.array([hits / unusual, passes / usual])
    lows, highs = np.array([wilson_interval(hits, unusual), wilson_interval(passes, usual)]).T
    value = float(shares.mean())
    down, up = (float(np.hypot(*(shares - ends)) / 2) for ends in (lows, highs))
    return value, (value - down, value + up)


def paired_comparison(first: Mapping[int, bool], second: Mapping[int, bool]) -> PairedComparison:
    """Compare two success rates with the adjusted Wald interval of Bonett and Price (2012) for their difference.

    Args:
        first: success by seed.
        second: success by seed, for the same seeds.

    Raises:
        RolloutError: the seeds are not the same.
    """
    if first.keys() != second.keys() or not first:
        raise RolloutError(
            f"expected two runs on the same seeds, found {len(first)} and {len(second)} episodes, of which "
            f"{len(first.keys() & second.keys())} have a seed in common"
        )
    n = len(first)
    only_first = sum(first[seed] and not second[seed] for seed in first)
    only_second = sum(second[seed] and not first[seed] for seed in first)
    share_first, share_second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    centre = share_first - share_second
    half = _Z * sqrt((share_first + share_second - centre**2) / (n + 2))
    return PairedComparison(
        difference=(only_first - only_second) / n,
        interval=(max(-1.0, centre - half), min(1.0, centre + half)),
        episodes=n,
        only_first=only_first,
        only_second=only_second,
    )


def auroc(usual: Sequence[float] | np.ndarray, unusual: Sequence[float] | np.ndarray) -> float:
    """Return the probability that an unusual score is above a usual one, ties counting half.

    Raises:
        ValueError: one side is empty.
    """
    if not len(usual) or not len(unusual):
        raise ValueError(f"expected scores of both kinds, found {len(usual)} and {len(unusual)}")
    differences = np.asarray(unusual)[:, None] - np.asarray(usual)[None]
    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))


def auroc_interval(usual: Sequence[float] | np.ndarray, unusual: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the 95 % score interval of `auroc`, with a length above 0 also where the scores separate perfectly.

    Its ends are the areas from which the observed one is 1.96 standard errors away, by Hanley and McNeil's (1982)
    formula with equal sides (Newcombe 2006, method 5).

    Raises:
        ValueError: one side is empty.
    """
    found, pairs = auroc(usual, unusual), len(usual) * len(unusual)
    extra = (len(usual) + len(unusual)) / 2 - 1

    def excess(area: float) -> float:
        variance = area * (1 - area) * (1 + extra * (1 - area) / (2 - area) + extra * area / (1 + area)) / pairs
        return abs(found - area) - _Z * sqrt(variance)

    return _root(excess, 0.0, found), _root(excess, 1.0, found)


def _root(excess: Callable[[float], float], outside: float, inside: float) -> float:
    """Bisect between a point where `excess` is positive, or an end of the range, and one where it is not."""
    if excess(outside) <= 0:
        return outside
    for _ in range(60):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if excess(middle) > 0 else (outside, middle)
    return inside
