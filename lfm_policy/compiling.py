"""What is told while machine code is made, which takes a minute on a fresh machine: how far it is, and the time left.

Whoever may speak says so first, with `tell`; what then compiles, in `lfm_policy.compiled`, reports to it. This module
imports nothing, so that a command can say so before it knows whether anything is compiled.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

SILENT_S = 1.0
"""Nothing is said of what takes no longer [s]."""
AGAIN_S = 5.0
"""Time between two lines [s]."""


@dataclass(frozen=True)
class Compiling:
    """How far a process is with its machine code."""

    done: int
    """Functions that are compiled, or lay on the disk."""
    total: int
    left_s: float | None
    """None: it has only begun."""


Tell = Callable[[Compiling], None]

_asked: list[Tell] = []


def tell(how: Tell | None) -> None:
    """Let this process report what it compiles; None: silently, as at first."""
    _asked[:] = [] if how is None else [how]


def report(state: Compiling) -> None:
    """Report to whoever has asked."""
    for how in _asked:
        how(state)


class Lines:
    """Says it on standard error: on a terminal a line every few seconds, elsewhere one.

    Several processes that compile the same at once are heard as one, the one that is furthest.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: float | None = None
        self._furthest = (0, 0)

    def __call__(self, state: Compiling) -> None:
        """Say a line, if it is time."""
        terminal, now = sys.stderr is not None and sys.stderr.isatty(), self._clock()
        over = self._furthest[0] == self._furthest[1]  # what comes now is another's
        self._furthest = max((0, 0) if over else self._furthest, (state.total, state.done))
        if sys.stderr is None or (self._said is not None and (not terminal or now - self._said < AGAIN_S)):
            return
        self._said, first = now, self._said is None
        total, done = self._furthest
        left = "" if state.left_s is None else f"  {round(state.left_s) // 60}:{round(state.left_s) % 60:02d} left"
        far = f" {done}/{total} functions{left}" if terminal else ", up to a minute"
        print(f"compiling{far}{'  (once on this machine)' if first else ''}", file=sys.stderr, flush=True)


lines = Lines()
"""How this process says it."""
