"""Sessions: episodes whose observation history and noise the server keeps, so that a client may send row by row."""

import secrets
import time
from collections.abc import Callable

from lfm_policy.chunks.horizon import RecedingHorizon
from lfm_policy.errors import ServingError
from lfm_policy.protocols import ChunkPolicy
from lfm_policy.server.limits import LimitError
from lfm_policy.server.requests import Query


class Session:
    """One episode."""

    def __init__(self, policy: ChunkPolicy, seed: int | None, chunks: int = 0) -> None:
        self.seed = secrets.randbits(48) if seed is None else seed
        self.horizon = RecedingHorizon(policy, self.seed, chunks)
        self.used = 0.0


class SessionPool:
    """The sessions of all clients together. Each client has one for itself; further ones come from what is left.

    Args:
        limit: sessions at once, unless there are more clients.
        clients: at once, each with a session of its own.
        idle_s: a session that was not used for so long is over [s].
        clock: seconds that never go back.
    """

    def __init__(self, limit: int, clients: int, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._further = limit, max(0, limit - clients)
        self.idle_s, self.clock = idle_s, clock
        self.members: set[Sessions] = set()

    @property
    def taken(self) -> int:
        """Sessions that are open."""
        return sum(len(member) for member in self.members)

    def require_room(self, member: "Sessions") -> None:
        """Raise LimitError when `member` may not open one more session."""
        if not len(member) or self._used() < self._further:
            return
        for other in self.members:
            other.expire()
        if len(member) and self._used() >= self._further:
            raise LimitError(f"this server holds {self._limit} sessions at most, and has them: try again later")

    def _used(self) -> int:
        return sum(max(0, len(member) - 1) for member in self.members)


class Sessions:
    """The sessions of one connection. They end with it, so that no other client can reach or outlive them.

    Args:
        policy: whose horizons they keep.
        pool: what all connections together may hold.
    """

    def __init__(self, policy: ChunkPolicy, pool: SessionPool) -> None:
        self._policy, self._pool = policy, pool
        self._open: dict[str, Session] = {}
        pool.members.add(self)

    def __len__(self) -> int:
        return len(self._open)

    def reset(self, name: str, seed: int | None, chunks: int = 0) -> Session:
        """Begin an episode under `name`, new or not.

        Raises:
            LimitError: the server holds as many sessions as it may.
        """
        self.expire()
        if name not in self._open:
            self._pool.require_room(self)
        session = self._open[name] = Session(self._policy, seed, chunks)
        session.used = self._pool.clock()
        return session

    def of(self, query: Query) -> Session:
        """Return the session that a query continues, begins, or is by itself, its observations in the history.

        Raises:
            ServingError: the query states a seed for an episode under way.
            LimitError: the server holds as many sessions as it may.
        """
        self.expire()
        if query.session is None:
            session = Session(self._policy, query.seed)
        elif query.session not in self._open:
            session = self.reset(query.session, query.seed)
        elif query.seed is not None:
            raise ServingError(f"the seed of session {query.session!r} is set when it begins: send a reset instead")
        else:
            session = self._open[query.session]
        session.used = self._pool.clock()
        session.horizon.observe(query.rows, query.frames)
        return session

    def forget(self, name: str) -> None:
        """End a session; nothing happens when there is none."""
        self._open.pop(name, None)

    def close(self) -> None:
        """End all."""
        self._open.clear()
        self._pool.members.discard(self)

    def expire(self) -> None:
        """End those that were not used for too long."""
        now = self._pool.clock()
        for name in [name for name, session in self._open.items() if now - session.used > self._pool.idle_s]:
            self.forget(name)
