"""The door of a server: connections wait outside until they say something, and come in one after the other.

To serve a new connection costs a third of a millisecond of the event loop, and a stranger makes thousands per second.
So they are only taken from the system at first, a few in each turn of the loop, and wait as bare sockets, which costs
a tenth. Who has said something is let in at a steady pace, the addresses in turn: a robot that is served already waits
for one newcomer at most, and an honest newcomer does not wait behind all those of another address.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable

from lfm_policy.server.admission import address_of
from lfm_policy.server.crowd import Crowd

TAKEN_PER_TURN = 8
"""Connections taken from the system in one turn of the event loop."""
PACE_S = 0.01
"""Time between two that are let in [s]."""
MOST_WAITING = 256
"""Connections that have said nothing yet; and as many that have."""
_SILENT_S = 10.0
"""Time for a connection to say something [s]."""
_BACKLOG = 128
"""Connections that the system keeps for us."""
_OUT_OF_FILES_S = 1.0
"""Pause when the system has no file left for a connection [s]."""


class Door:
    """Takes connections from listening sockets. Everything happens on the running event loop.

    Args:
        listening: bound sockets; they are the door's from now on.
        let_in: serves a connection that has said something; the socket is its from then on.
    """

    def __init__(self, listening: Iterable[socket.socket], let_in: Callable[[socket.socket], None]) -> None:
        self._listening, self._let_in = list(listening), let_in
        self._silent: Crowd[socket.socket] = Crowd(MOST_WAITING)
        self._ready: Crowd[socket.socket] = Crowd(MOST_WAITING)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def open(self) -> None:
        """Begin to listen.

        Raises:
            OSError: the system does not allow it.
        """
        for listening in self._listening:
            listening.setblocking(False)
            listening.listen(_BACKLOG)
            self._loop.add_reader(listening, self._take, listening)

    def close(self) -> None:
        """Stop listening, and send away who waits."""
        for listening in self._listening:
            self._loop.remove_reader(listening)
            listening.close()
        self._listening.clear()
        if self._timer is not None:
            self._timer.cancel()
        for one in (*self._silent, *self._ready):
            self._send_away(one)

    def _take(self, listening: socket.socket) -> None:
        """Take a few connections from the system."""
        for _ in range(TAKEN_PER_TURN):
            try:
                one, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(listening)
                self._loop.call_later(_OUT_OF_FILES_S, self._take_again, listening)
                return
            one.setblocking(False)
            self._loop.add_reader(one, self._spoke, one, address_of(address[0]))
            self._loop.call_later(_SILENT_S, self._was_silent, one)
            gives_way = self._silent.add(one, address_of(address[0]))
            if gives_way is not None:
                self._send_away(gives_way)

    def _take_again(self, listening: socket.socket) -> None:
        if listening in self._listening:
            self._loop.add_reader(listening, self._take, listening)

    def _was_silent(self, one: socket.socket) -> None:
        if self._silent.remove(one):
            self._send_away(one)

    def _spoke(self, one: socket.socket, address: str) -> None:
        """Let a connection that says something wait for its turn; one that has ended is forgotten."""
        self._loop.remove_reader(one)
        self._silent.remove(one)
        try:
            left = not one.recv(1, socket.MSG_PEEK)
        except OSError:
            left = True
        gives_way = one if left else self._ready.add(one, address)
        if gives_way is not None:
            self._send_away(gives_way)
        self._wait()

    def _wait(self) -> None:
        if self._timer is None and len(self._ready):
            self._timer = self._loop.call_at(self._due, self._next)

    def _next(self) -> None:
        self._timer = None
        self._due = self._loop.time() + PACE_S
        if len(self._ready):
            self._let_in(self._ready.next())
        self._wait()

    def _send_away(self, one: socket.socket) -> None:
        self._silent.remove(one)
        self._ready.remove(one)
        self._loop.remove_reader(one)
        one.close()
