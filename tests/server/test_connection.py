"""Frames are counted as they are, however the stream is cut."""

import numpy as np
import pytest
from websockets.frames import Frame, Opcode

from lfm_policy.server.connection import FrameCounter

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
