"""How long calls take, and the control rate that they allow."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from lfm_policy.settings import Frozen


class Latency(Frozen):
    """Times of single calls [ms]."""

    p50: float
    p95: float
    p99: float
    calls: int

    def highest_rate_hz(self, actions: int = 1) -> float:
        """Return the control rate [Hz] at which 99 % of the calls end in time.

        Args:
            actions: control periods that a call may take: 1 when the robot waits for its chunk, the executed actions
                of a chunk when the next is computed meanwhile.
        """
        return 1000 * actions / self.p99


def latencies(sides: Sequence[Callable[[], object]], calls: int) -> list[Latency]:
    """Time single calls of each side; the sides take turns, so that a machine's drift meets all alike.

    Args:
        sides: what to call, without arguments; each is called three times before the clock starts.
        calls: timed calls of each.
    """
    for side in sides:
        for _ in range(3):
            side()
    times = np.array([[_milliseconds(side) for side in sides] for _ in range(calls)])
    rows = np.percentile(times, [50, 95, 99], axis=0).T.tolist()
    return [Latency(p50=p50, p95=p95, p99=p99, calls=calls) for p50, p95, p99 in rows]


def _milliseconds(side: Callable[[], object]) -> float:
    started = time.perf_counter()
    side()
    return 1000 * (time.perf_counter() - started)
