"""What a server writes about strangers: one printable line each, a few per minute, the rest as a count.

Whoever may connect may make refusals, so that their words and their number are bounded: nobody fills the disk, forges
a line, or hides among the lines of others.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

from lfm_policy.errors import one_line

_WINDOW_S = 60.0
_PER_ADDRESS, _ALTOGETHER = 10, 30
"""Lines in a window."""
_COUNTED, _TOLD = 1000, 3
"""Addresses whose suppressed lines are counted apart, and told."""


class Journal:
    """Writes to a logger. Everything is called from the server's event loop.

    Args:
        log: where to write.
        clock: seconds that never go back.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._began = clock()
        self._written: Counter[str] = Counter()
        self._suppressed: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def note(self, peer: str, text: str) -> None:
        """Write a line about `peer` ("10.0.0.9:41234"), or count it."""
        if self._may_write(peer.rpartition(":")[0]):
            self._log.info("%s %s", one_line(peer), one_line(text))

    def fault(self, text: str, error: BaseException) -> None:
        """Write an error of our own with its traceback, or count it."""
        if self._may_write("this server"):
            self._log.error("%s", one_line(text), exc_info=error)

    def flush(self) -> None:
        """Say how many lines were not written, and begin a new window."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._suppressed:
            most = ", ".join(f"{one_line(of)} ({count})" for of, count in self._suppressed.most_common(_TOLD))
            count = self._suppressed.total()
            self._log.info("%d more lines in %.0f s were not written: %s", count, self._clock() - self._began, most)
        self._written.clear()
        self._suppressed.clear()
        self._began = self._clock()

    def _may_write(self, address: str) -> bool:
        if self._clock() - self._began >= _WINDOW_S:
            self.flush()
        if self._written[address] < _PER_ADDRESS and self._written.total() < _ALTOGETHER:
            self._written[address] += 1
            return True
        known = address in self._suppressed or len(self._suppressed) < _COUNTED
        self._suppressed[address if known else "others"] += 1
        if self._timer is None:
            rest = max(0.0, _WINDOW_S - (self._clock() - self._began))
            self._timer = asyncio.get_running_loop().call_later(rest, self.flush)
        return False
