"""Alarm levels over time, from episodes that went well: a one-sided functional conformal band.

As FAIL-Detect (arXiv 2503.08558) does it: half of the episodes shape the band, their mean and spread at every step; the
other half decide how wide it is. A new successful episode then stays below the band at all of its steps with the chosen
probability at least, whatever the scores' law (Diquigiovanni, Fontana and Vantini 2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from lfm_policy.choices import Score
from lfm_policy.errors import ConfigError
from lfm_policy.settings import Frozen

FEWEST = 5
"""Episodes that still run, at least, where a step's mean and spread are taken; later steps have those of the last."""
FLOOR = 0.1
"""Smallest spread of a step, as a share of the mean spread."""


@dataclass(frozen=True)
class Trace:
    """The scores of one episode."""

    steps: np.ndarray
    """int (n,): the control steps at which they were taken, rising."""
    scores: np.ndarray
    """(n,)."""


class Band(Frozen):
    """A score's alarm level at every control step."""

    score: Score
    draws: int
    false_alarms: float
    """Share of successful episodes that may cross it."""
    steps: tuple[int, ...]
    """Control steps at which the level changes, rising."""
    levels: tuple[float, ...]
    episodes: tuple[int, int]
    """Successful episodes that shaped it, and that decided its width."""

    @classmethod
    def calibrate(cls, score: Score, draws: int, traces: Sequence[Trace], false_alarms: float = 0.05) -> "Band":
        """Make a band that at most a share `false_alarms` of episodes like these crosses.

        Args:
            score: what the scores are.
            draws: of the score.
            traces: of successful episodes that are alike in law, in an order that says nothing.
            false_alarms: the share, 0 to 1.

        Raises:
            ConfigError: there are too few episodes for such a share.
        """
        traces = [trace for trace in traces if len(trace.steps)]
        shaping, deciding = traces[::2], traces[1::2]
        rank = ceil((len(deciding) + 1) * (1 - false_alarms))
        if rank > len(deciding) or len(shaping) < FEWEST:
            raise ConfigError(
                f"{len(traces)} successful episodes are too few for an alarm in {false_alarms:.0%} of such episodes: "
                f"expected {2 * max(ceil(1 / false_alarms - 1), FEWEST)} at least"
            )
        steps, mean, spread = _shape(shaping)
        excess = sorted(
            float(np.max((t.scores - _at(steps, mean, t.steps)) / _at(steps, spread, t.steps))) for t in deciding
        )
        levels = mean + excess[rank - 1] * spread
        counts = (len(shaping), len(deciding))
        values = {"steps": tuple(steps.tolist()), "levels": tuple(levels.tolist()), "episodes": counts}
        return cls(score=score, draws=draws, false_alarms=false_alarms, **values)

    def level(self, step: int) -> float:
        """Return the alarm level at a control step: that of the last step before at which it changes."""
        return float(_at(np.array(self.steps), np.array(self.levels), np.array([step]))[0])

    def alarm(self, trace: Trace) -> int | None:
        """Return the first step at which the score is above the band; None if it never is."""
        above = trace.scores > _at(np.array(self.steps), np.array(self.levels), trace.steps)
        return int(trace.steps[above.argmax()]) if above.any() else None


def _shape(traces: Sequence[Trace]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return steps, mean and spread of the scores at them, as far as enough episodes go."""
    taken = np.concatenate([trace.steps for trace in traces])
    scores = np.concatenate([trace.scores for trace in traces])
    steps, counts = np.unique(taken, return_counts=True)
    steps = steps[counts >= FEWEST] if (counts >= FEWEST).any() else steps[:1]
    mean = np.array([scores[taken == step].mean() for step in steps])
    spread = np.array([scores[taken == step].std() for step in steps])
    return steps, mean, np.maximum(spread, max(FLOOR * float(spread.mean()), 1e-9))


def _at(steps: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the values of a step function that holds its first value before, and its last one after."""
    return values[np.clip(np.searchsorted(steps, wanted, side="right") - 1, 0, None)]
