"""One websocket: frames are counted wherever the stream is cut; who floods it or hangs troubles nobody."""

import time
from contextlib import suppress

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection

from lfm_policy.server import wire
from lfm_policy.server.connection import FrameCounter
from lfm_policy.server.server import PolicyServer
from tests.server.served import OBSERVATION, ask, close_code, connected, eventually, served

OPENING = b"GET / HTTP/1.1\r\nHost: robot\r\n\r\n"


def frame(opcode: Opcode, size: int) -> bytes:
    return Frame(opcode, b"\r\n\r\n"[: size % 5] + b"\x80" * max(0, size - 4)).serialize(mask=True)


@pytest.mark.parametrize("piece", [1, 3, 7, 1000, 100_000])
def test_small_frames_are_counted_wherever_the_stream_is_cut(piece: int) -> None:
    sizes: list[int] = np.random.default_rng(0).choice([0, 1, 100, 504, 600, 66_000], 20).tolist()
    stream = OPENING + b"".join(frame(Opcode.BINARY if size else Opcode.PING, size) for size in sizes)
    counter = FrameCounter()
    found = sum(counter.small(stream[at : at + piece], enough=1000) for at in range(0, len(stream), piece))
    assert found == sum(size < 512 for size in sizes)


def test_counting_stops_where_it_is_enough() -> None:
    assert FrameCounter().small(OPENING + frame(Opcode.PING, 0) * 40_000, enough=100) == 101


@pytest.mark.parametrize("size", [4000, 3_000_000])
def test_a_message_that_is_too_long_is_told_so_before_it_is_cut_off(size: int) -> None:
    with served(max_message_bytes=2000) as server, connected(server) as robot, connected(server) as other:
        text = ask(robot, OBSERVATION | {"image": np.zeros(size, np.uint8)})
        assert "exceeds limit of 2000 bytes: this policy observes no pictures" in text
        assert close_code(robot) == 1009
        assert "actions" in ask(other, OBSERVATION)
    assert server.metrics.outcomes["refused"] == 1


def exhaust(connection: ClientConnection) -> None:
    """Read until there is nothing more."""
    while True:
        connection.recv(10)


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG, Opcode.CONT, Opcode.BINARY])
def test_a_flood_of_small_frames_is_cut_off(server: PolicyServer, opcode: Opcode) -> None:
    with connected(server) as flood, connected(server) as other:
        if opcode is Opcode.CONT:
            flood.socket.sendall(Frame(Opcode.BINARY, b"", fin=False).serialize(mask=True))
        frames = Frame(opcode, b"\x80", fin=opcode is not Opcode.CONT).serialize(mask=True) * 50_000
        with suppress(OSError):
            flood.socket.sendall(frames)
        assert "actions" in ask(other, OBSERVATION)
        with pytest.raises(ConnectionClosed):
            exhaust(flood)


def test_a_quiet_client_stays_as_long_as_it_answers_pings() -> None:
    with served(ping_s=0.1, idle_s=0.1) as server, connected(server) as robot:
        assert "actions" in ask(robot, OBSERVATION)
        with connected(server) as dead:
            dead.protocol.receive_data = lambda data: None  # pyright: ignore[reportAttributeAccessIssue]
            assert eventually(lambda: len(server.metrics.clients) == 1)
            dead.socket.close()
        assert "actions" in ask(robot, OBSERVATION)


def test_a_client_that_neither_reads_nor_finishes_slows_nobody(server: PolicyServer) -> None:
    with connected(server) as stuck, connected(server) as other:
        stuck.socket.sendall(b"\x82\xfe\xff\xff")  # the head of a frame that never comes
        with connected(server, max_queue=1) as deaf:
            for _ in range(200):
                deaf.send(wire.pack(OBSERVATION))
            times = []
            for _ in range(50):
                started = time.monotonic()
                assert "actions" in ask(other, OBSERVATION)
                times.append(time.monotonic() - started)
        assert sorted(times)[25] < 0.5
        stuck.socket.close()
