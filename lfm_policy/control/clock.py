"""A fixed rate with absolute deadlines: one late tick delays none of the next ones, and every lateness is counted."""

import math
import time
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

_CLOSE = 1e-6
"""Share of a period: two times that near each other are the same tick, whatever the rounding."""


@runtime_checkable
class Clock(Protocol):
    """Where time comes from; tests bring their own."""

    def now(self) -> float:
        """Return the monotonic time [s]."""
        ...

    def sleep_until(self, moment: float) -> None:
        """Return at `moment` [s], or at once if it is over."""
        ...


class MonotonicClock:
    """The machine's monotonic clock, the same for all of its processes."""

    def now(self) -> float:
        """Return the monotonic time [s]."""
        return time.monotonic()

    def sleep_until(self, moment: float) -> None:
        """Sleep, without spinning."""
        while (remaining := moment - time.monotonic()) > 0:
            time.sleep(remaining)


@dataclass(frozen=True)
class Tick:
    """One control period."""

    index: int
    due: float
    """When it begins [s]."""
    skipped: int
    """Ticks before it that were over when the loop came back."""


class Ticker:
    """Tick k is due at start + k / rate, whatever happened before.

    Args:
        rate_hz: ticks per second.
        clock: where time comes from.
        start: when tick 0 is due [s]; now if None.
    """

    def __init__(self, rate_hz: float, clock: Clock, start: float | None = None) -> None:
        self.rate_hz, self._clock = rate_hz, clock
        self.start = clock.now() if start is None else start
        self._last = -1

    def wait(self) -> Tick:
        """Sleep until the next tick is due; ticks whose whole period is over are skipped."""
        index = max(self._last + 1, self._current())
        skipped, self._last = index - self._last - 1, index
        due = self.start + index / self.rate_hz
        self._clock.sleep_until(due)
        return Tick(index, due, skipped)

    def catch_up(self) -> int:
        """Return, after a wait inside a tick, the tick that time has come to, which is taken as served."""
        self._last = max(self._last, self._current())
        return self._last

    def _current(self) -> int:
        return math.floor((self._clock.now() - self.start) * self.rate_hz + _CLOSE)


class Pace:
    """How well a loop kept its rate: when each tick's command left, against when the tick was due.

    Args:
        tolerance_ms: lateness that counts as a missed deadline [ms].
    """

    def __init__(self, tolerance_ms: float = 10.0) -> None:
        self.tolerance_ms = tolerance_ms
        self.late_ms: list[float] = []
        self.skipped = 0

    def served(self, tick: Tick, moment: float) -> None:
        """Return the command of `tick` left at `moment` [s]."""
        self.late_ms.append(1000 * (moment - tick.due))
        self.skipped += tick.skipped

    def extend(self, other: "Pace") -> None:
        """Add another loop's ticks."""
        self.late_ms += other.late_ms
        self.skipped += other.skipped

    @property
    def missed(self) -> int:
        """Deadlines missed by more than the tolerance; a skipped tick is one."""
        return sum(late > self.tolerance_ms for late in self.late_ms) + self.skipped

    def summary(self) -> dict[str, Any]:
        """Return plain values: counts, and the lateness [ms] of the ticks that were served."""
        late = np.array(self.late_ms or [0.0])
        quantiles = {f"late_ms_p{q:g}": round(float(np.percentile(late, q)), 3) for q in (50, 99, 99.9)}
        return {
            "ticks": len(self.late_ms),
            "skipped": self.skipped,
            "missed": self.missed,
            "tolerance_ms": self.tolerance_ms,
            **quantiles,
            "late_ms_max": round(float(late.max()), 3),
        }
