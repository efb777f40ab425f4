"""Is one policy better than another? A paired test that may be looked at after every pair, and stops when it is clear.

Both policies play the same seeds; D is the success of the first minus that of the second, so -1, 0 or 1. Against the
claim E[D] <= m somebody bets: with stake k their money is multiplied by 1 + k (D - m) / (1 + m), which on average does
not grow where the claim is true. So the chance that it ever reaches 1/a is at most a (Ville's inequality), at whatever
time one stops (Waudby-Smith and Ramdas, arXiv 2010.09686; Ramdas et al., arXiv 2210.01948). Claims that have been made
to pay are rejected; those that have not, on both sides, are an interval that holds E[D] at all times at once.

The money is divided among fixed stakes from small to large and left there, so that it depends on how often each outcome
came and not on their order. STEP (arXiv 2503.10966) computes a stopping rule that is near the best one for a largest
number of pairs that is fixed before; this test needs no such number.
"""

from collections.abc import Iterable
from math import log
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lfm_policy.settings import Frozen

Verdict = Literal["better", "worse", "equal", "undecided"]
Counts = int | np.integer | np.floating | NDArray[np.integer] | NDArray[np.floating]
"""How often something came, in one comparison or in many."""

STAKES = 0.95 / 2.0 ** np.arange(8)
"""Shares of the most that may be staked; the gain lost by the nearest of them is at most a sixth."""


class Clarity(Frozen):
    """What counts as clear."""

    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Largest probability of a wrong verdict, whenever one looks."""
    margin: float = Field(default=0.05, gt=0, lt=1)
    """Difference of two success rates that does not matter."""


class Comparison(Frozen):
    """Two policies after some pairs of episodes."""

    verdict: Verdict
    difference: float
    """Success rate of the first minus that of the second."""
    interval: tuple[float, float]
    """Holds the true difference, at this look and all others at once, with probability 1 - alpha."""
    pairs: int
    only_first: int
    """Pairs of which only the first policy's episode succeeded."""
    only_second: int
    alpha: float
    margin: float


class PairedTest:
    """Takes pairs in, and says at any time what is known.

    Args:
        options: what counts as clear.
    """

    def __init__(self, options: Clarity | None = None) -> None:
        self.options = options or Clarity()
        self._first = self._second = self._ties = 0
        self._low, self._high = -1.0, 1.0

    def add(self, pairs: Iterable[tuple[bool, bool]]) -> Comparison:
        """Take in (success of the first, success of the second) of some seeds, and look."""
        for first, second in pairs:
            self._first += int(first and not second)
            self._second += int(second and not first)
            self._ties += int(first == second)
        # what was excluded once stays excluded
        level = log(2 / self.options.alpha)
        self._low = max(self._low, _bound(self._first, self._second, self._ties, level))
        self._high = min(self._high, -_bound(self._second, self._first, self._ties, level))
        return self.look()

    def look(self) -> Comparison:
        """Say what is known."""
        pairs = self._first + self._second + self._ties
        return Comparison(
            verdict=self._verdict(),
            difference=(self._first - self._second) / max(1, pairs),
            interval=(self._low, self._high),
            pairs=pairs,
            only_first=self._first,
            only_second=self._second,
            alpha=self.options.alpha,
            margin=self.options.margin,
        )

    def _verdict(self) -> Verdict:
        if self._low > 0:
            return "better"
        if self._high < 0:
            return "worse"
        within = self._low > -self.options.margin and self._high < self.options.margin
        return "equal" if within else "undecided"


def log_wealth(gains: Counts, losses: Counts, ties: Counts, mean: float) -> NDArray[np.float64]:
    """Compute the logarithm of what 1 has become that was bet against E[D] <= `mean`.

    Args:
        gains: how often D was 1.
        losses: how often it was -1.
        ties: how often it was 0.
        mean: the claim, above -1 and at most 1.
    """
    counts = np.stack(np.broadcast_arrays(gains, losses, ties), axis=-1).astype(np.float64)
    outcomes = np.array([1.0, -1.0, 0.0])
    growth = np.log1p(STAKES[:, None] * (outcomes - mean) / (1 + mean))  # (stakes, outcomes)
    return np.asarray(np.logaddexp.reduce(counts @ growth.T, axis=-1) - log(len(STAKES)))


def _bound(gains: int, losses: int, ties: int, level: float) -> float:
    """Find the largest mean that is rejected: all below are too, as the wealth falls where the mean rises."""
    rejected, kept = -1.0, 1.0
    for _ in range(24):
        middle = (rejected + kept) / 2
        if log_wealth(gains, losses, ties, middle) >= level:
            rejected = middle
        else:
            kept = middle
    return rejected
