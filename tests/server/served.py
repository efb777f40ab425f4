"""Servers for tests: real ones, on a free port, in a thread of this process."""

import asyncio
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from lfm_envs.point_mass import CONTRACT
from lfm_policy.protocols import ChunkBatch, ChunkPolicy
from lfm_policy.server import wire
from lfm_policy.server.limits import ApiKeys, ServerOptions
from lfm_policy.server.served import Served
from lfm_policy.server.server import PolicyServer
from tests.rollout.scripted import Straight

STATE = np.array([0.1, -0.2, 0.5, 0.6], np.float32)
"""A point mass's position and goal."""
OBSERVATION = {"position": STATE[:2], "goal": STATE[2:]}


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Held(Straight):
    """A straight policy whose calls wait until the test lets them go on."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def predict(self, histories: np.ndarray, noise: np.ndarray) -> ChunkBatch:
        self.entered.release()
        assert self.go_on.acquire(timeout=10)
        return super().predict(histories, noise)


@contextmanager
def served(policy: ChunkPolicy | None = None, keys: tuple[str, ...] = (), **options: Any) -> Iterator[PolicyServer]:
    """A listening server."""
    policy = policy or Straight()
    server = PolicyServer(Served(policy, "straight", "digest"), ServerOptions(**{"port": 0, **options}), ApiKeys(keys))
    started, loops, stops = threading.Event(), [], []

    async def live() -> None:
        loops.append(asyncio.get_running_loop())
        stops.append(asyncio.Event())
        async with server:
            started.set()
            await stops[0].wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    assert started.wait(10)

    def stop() -> None:
        with suppress(RuntimeError):  # the loop is closed: it has stopped already
            loops[0].call_soon_threadsafe(stops[0].set)

    server.stop = stop  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield server
    finally:
        stop()
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


@contextmanager
def connected(server: PolicyServer, **options: Any) -> Iterator[ClientConnection]:
    """A bare websocket that has had the server's greeting."""
    with connect(f"ws://127.0.0.1:{server.port}", compression=None, close_timeout=1, **options) as connection:
        connection.recv(5)
        yield connection


def ask(connection: ClientConnection, message: Any) -> Any:
    """Send a message and return the decoded reply, or the error's text."""
    connection.send(message if isinstance(message, bytes | str) else wire.pack(message))
    reply = connection.recv(10)
    return reply if isinstance(reply, str) else wire.unpack(reply)


def get(server: PolicyServer, path: str, **headers: str) -> tuple[int, str]:
    """Return the status and the text of a page."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def close_code(connection: ClientConnection) -> int | None:
    """Wait until the server has closed the connection."""
    try:
        connection.recv(10)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None
    raise AssertionError("expected the server to close the connection")


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether a condition comes true in time."""
    waiting = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return True
        waiting.wait(0.01)
    return False


__all__ = [
    "CONTRACT",
    "OBSERVATION",
    "STATE",
    "Clock",
    "Held",
    "ask",
    "close_code",
    "connected",
    "eventually",
    "get",
    "served",
]
