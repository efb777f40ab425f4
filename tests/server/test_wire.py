"""The wire format against openpi's own packer, and its refusals."""

import time
from typing import Any

import msgpack
import numpy as np
import pytest

from lfm_policy.errors import ServingError
from lfm_policy.server import wire

reference = pytest.importorskip("openpi_client.msgpack_numpy")

VALUES = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(1.5),
    np.zeros((0, 4), ">f8"),
    np.array([True, False]),
    np.array([2**62], np.uint64),
    np.array(["pick up the cube"]),
    np.float32(0.5),
    np.int64(-3),
    {"a": [1, 2.5, None, "text", b"bytes", True], "b": {"nested": np.ones(3, np.float16)}},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_openpi_reads_what_we_write_and_we_read_what_it_writes(value: Any) -> None:
    for pack, unpack in ((wire.pack, reference.unpackb), (reference.packb, wire.unpack), (wire.pack, wire.unpack)):
        np.testing.assert_equal(unpack(pack(value)), value)
        if isinstance(value, np.ndarray | np.generic):
            assert unpack(pack(value)).dtype == value.dtype


def test_both_packers_make_the_same_bytes() -> None:
    message = {"actions": np.ones((2, 3), np.float32), "server_timing": {"infer_ms": 1.5}}
    assert wire.pack(message) == reference.packb(message)


@pytest.mark.parametrize(
    "value",
    [np.array([object()]), np.array([1j]), np.zeros(2, "V4"), {1, 2}, object()],
    ids=["objects", "complex", "void", "set", "object"],
)
def test_refuses_to_send_what_is_no_plain_data(value: Any) -> None:
    with pytest.raises(ServingError, match="cannot be sent"):
        wire.pack({"value": value})


def array(dtype: Any = "<f4", shape: Any = (2,), data: Any = b"\0" * 8) -> bytes:
    """An array that may contradict itself."""
    return msgpack.packb({b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape})


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "not"),
        (b"\xc1", "not"),
        (b"\x81", "not"),
        (msgpack.packb(1) + b"\x01", "ExtraData"),
        (b"\x91" * 100_000, "at most 12 deep"),
        (b"\xdd\xff\xff\xff\xff", "not"),
        (msgpack.packb({1: 2}), "strict_map_key"),
        (array(data=b"\0" * 7), "has 8 bytes, found 7"),
        (array(shape=[2**62, 2**62]), "each from 0 to 2147483647"),
        (array(shape=[-1]), "list of sizes"),
        (array(shape=[True, 2]), "list of sizes"),
        (array(shape="2"), "list of sizes"),
        (array(shape=[1] * 40, data=b"\0" * 4), "at most 32 of them"),
        (array(dtype="O"), "not accepted"),
        (array(dtype="c8"), "not accepted"),
        (array(dtype="f4,f4"), "not accepted"),
        (array(dtype="<M8[s]"), "not accepted"),
        (array(dtype="U0", shape=[10**9], data=b""), "not accepted"),
        (array(dtype="nonsense"), "unknown dtype"),
        (array(dtype="f4," * 1000), "short string"),
        (array(dtype=None), "short string"),
        (array(data="text"), "must be bytes"),
        (array(dtype=b"\x1b" * 10**6), r"found b'.*\.\.\."),
        (array(shape=[2**62] * 9000), "at most 32 of them"),
        (array(shape=[2**31 - 1] * 32), r"shape \(2147483647, .* has \d+\.\.\.\d+ bytes, found 8"),
        (msgpack.packb({"prompt": "x" * 5000}), "texts of at most 4096 bytes"),
        (msgpack.packb({"when": msgpack.Timestamp(1)}), "timestamps are not accepted"),
        (msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}), "number or a string"),
        (msgpack.packb({b"__npgeneric__": True, b"data": 2**40, b"dtype": "<i4"}), "cannot hold"),
    ],
)
def test_refuses_messages_that_contradict_themselves(message: bytes, reason: str) -> None:
    with pytest.raises(ServingError, match=reason):
        wire.unpack(message)


FLOODS = {
    "one list": msgpack.packb([[]] * 10**6),
    "lists in lists": msgpack.packb([[[]] * 1000] * 1000),
    "one map": msgpack.packb({f"k{number}": 0 for number in range(90_000)}),
    "maps": msgpack.packb([{}] * 10**6),
    "sizes": array(shape=[2**62] * 100_000),
    "numbers": b"\xdd\x00\x0f\x42\x40" + b"\xcb" + b"\0" * 8 * 10**6,
    "claims": b"\xdd\xff\xff\xff\xff" + b"\xdf\xff\xff\xff\xff" * 1000,
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_message_of_many_values_is_refused_before_any_is_built(name: str) -> None:
    started = time.thread_time()
    with pytest.raises(ServingError, match=r"at most 10000 values|at most 256 keys"):
        wire.unpack(FLOODS[name])
    assert time.thread_time() - started < 0.05


def test_what_is_judged_agrees_with_what_is_built_wherever_a_message_ends() -> None:
    """Every head of msgpack is counted as it is, and no count goes beyond the message."""
    kinds = {"a": 1, "b": [2**40, -(2**40), 1.5, None, True, "é" * 40, b"b" * 300]}
    message = msgpack.packb([kinds, [-1] * 20, {str(number): number for number in range(20)}])
    for cut in range(len(message)):
        wire.judge(message[: len(message) - cut], wire.Bounds(values=83, keys=20, depth=3, text_bytes=80))
    for bounds, reason in (
        (wire.Bounds(values=82, keys=20, depth=3, text_bytes=80), "at most 82 values"),
        (wire.Bounds(values=83, keys=20, depth=2, text_bytes=80), "at most 2 deep"),
        (wire.Bounds(values=83, keys=20, depth=3, text_bytes=79), "at most 79 bytes"),
        (wire.Bounds(values=83, keys=19, depth=3, text_bytes=80), "at most 19 keys"),
    ):
        with pytest.raises(ServingError, match=reason):
            wire.judge(message, bounds)
