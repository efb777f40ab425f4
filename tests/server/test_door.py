"""Real connections at a door: how many are taken in a turn, at which pace they come in, and in which order."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing

import numpy as np
import pytest

from lfm_policy.server.door import MOST_WAITING, PACE_S, TAKEN_PER_TURN, Door


class Counting(socket.socket):
    """A listening socket that knows how many connections were taken from it."""

    taken = 0

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        accepted = super().accept()
        self.taken += 1
        return accepted


class Visitors(ExitStack):
    """Connections of addresses of this machine, closed at the end."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def come(self, count: int, address: str = "127.0.0.1", says: bytes = b"G") -> list[socket.socket]:
        """Connect from an address, and say something."""
        came = []
        for _ in range(count):
            one = socket.create_connection(("127.0.0.1", self._port), timeout=10, source_address=(address, 0))
            one.sendall(says)
            came.append(self.enter_context(closing(one)))
        return came


@asynccontextmanager
async def door(let_in: Callable[[socket.socket], None]) -> AsyncIterator[tuple[Counting, Visitors]]:
    """An open door, and who comes to it."""
    listening = Counting()
    listening.bind(("127.0.0.1", 0))
    opened = Door([listening], let_in)
    opened.open()
    try:
        with Visitors(listening.getsockname()[1]) as visitors:
            yield listening, visitors
    finally:
        opened.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition comes true."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def test_a_few_are_taken_in_each_turn_and_let_in_at_a_steady_pace() -> None:
    async def live() -> None:
        taken, came, clock = [0], [0], asyncio.get_running_loop().time
        count = 0

        def let_in(one: socket.socket) -> None:
            nonlocal count
            count += 1
            one.close()

        async with door(let_in) as (listening, visitors):
            visitors.come(60)
            started = clock()
            while count < 60:
                await asyncio.sleep(0)
                taken.append(listening.taken)
                came.append(count)
            assert clock() - started >= 59 * PACE_S
        assert (taken[-1], came[-1]) == (60, 60)
        assert max(np.diff(taken)) == TAKEN_PER_TURN
        assert max(np.diff(came)) == 1

    asyncio.run(live())


def test_a_newcomer_does_not_wait_behind_a_crowd() -> None:
    async def live() -> None:
        came: list[str] = []

        def let_in(one: socket.socket) -> None:
            came.append(one.getpeername()[0])
            one.close()

        async with door(let_in) as (listening, visitors):
            visitors.come(100)
            await until(lambda: listening.taken == 100)
            before = len(came)
            visitors.come(1, "127.0.0.2")
            await until(lambda: len(came) == 101)
        assert before < 50
        assert came.index("127.0.0.2") - before <= 4  # one in each turn that takes it, hears it, and is another's

    asyncio.run(live())


@pytest.mark.parametrize("says", [b"", b"G"], ids=["silent", "spoken"])
def test_of_too_many_the_oldest_of_the_largest_crowd_is_sent_away(says: bytes) -> None:
    async def live() -> None:
        async with door(socket.socket.close) as (listening, visitors):
            (honest,) = visitors.come(1, "127.0.0.2", says=b"")
            (first,) = visitors.come(1, says=says)
            for count in range(80, MOST_WAITING + 80, 80):
                visitors.come(80, says=says)
                await until(lambda count=count: listening.taken == 2 + count)
            assert _ended(first)
            assert not _ended(honest)

    asyncio.run(live())


def test_who_says_nothing_is_not_let_in() -> None:
    async def live() -> None:
        came: list[bytes] = []

        def let_in(one: socket.socket) -> None:
            came.append(one.recv(10))
            one.close()

        async with door(let_in) as (listening, visitors):
            silent = visitors.come(5, says=b"")
            visitors.come(5, says=b"")[0].close()
            visitors.come(1, says=b"hello")
            silent[0].sendall(b"late")
            await until(lambda: len(came) == 2)
            assert listening.taken == 11
            assert sorted(came) == [b"hello", b"late"]
            assert not _ended(silent[1])

    asyncio.run(live())


def _ended(one: socket.socket) -> bool:
    one.settimeout(0)
    try:
        return not one.recv(1)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
