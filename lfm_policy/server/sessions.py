"""Sessions: episodes whose observation history and noise the server keeps, so that a client may send one row a time."""

import secrets
import time
from collections.abc import Callable

from lfm_policy.chunks.horizon import RecedingHorizon
from lfm_policy.errors import ServingError
from lfm_policy.protocols import ChunkPolicy
from lfm_policy.server.limits import Slots
from lfm_policy.server.requests import Query


class Session:
    """One episode."""

    def __init__(self, policy: ChunkPolicy, seed: int | None, chunks: int = 0) -> None:
        self.seed = secrets.randbits(48) if seed is None else seed
        self.horizon = RecedingHorizon(policy, self.seed, chunks)
        self.used = 0.0


class Sessions:
    """The sessions of one connection. They end with it, so that no other client can reach or outlive them.

    Args:
        policy: whose horizons they keep.
        slots: what all connections together may hold.
        idle_s: a session that was not used for so long is over [s].
        clock: seconds that never go back.
    """

    def __init__(
        self, policy: ChunkPolicy, slots: Slots, idle_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._policy, self._slots, self._idle_s, self._clock = policy, slots, idle_s, clock
        self._open: dict[str, Session] = {}

    def reset(self, name: str, seed: int | None, chunks: int = 0) -> Session:
        """Begin an episode under `name`, new or not.

        Raises:
            LimitError: the server holds as many sessions as it may.
        """
        self._expire()
        if name not in self._open:
            self._slots.take()
        session = self._open[name] = Session(self._policy, seed, chunks)
        session.used = self._clock()
        return session

    def of(self, query: Query) -> Session:
        """The session that a query continues, begins, or is by itself, with the query's observations in its history.

        Raises:
            ServingError: the query states a seed for an episode under way.
            LimitError: the server holds as many sessions as it may.
        """
        self._expire()
        if query.session is None:
            session = Session(self._policy, query.seed)
        elif query.session not in self._open:
            session = self.reset(query.session, query.seed)
        elif query.seed is not None:
            raise ServingError(f"the seed of session '{query.session}' is set when it begins: send a reset instead")
        else:
            session = self._open[query.session]
        session.used = self._clock()
        session.horizon.observe(query.rows)
        return session

    def forget(self, name: str) -> None:
        """End a session; nothing happens when there is none."""
        if self._open.pop(name, None) is not None:
            self._slots.give()

    def close(self) -> None:
        """End all."""
        for name in list(self._open):
            self.forget(name)

    def _expire(self) -> None:
        for name in [name for name, session in self._open.items() if self._clock() - session.used > self._idle_s]:
            self.forget(name)
