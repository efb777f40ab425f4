"""The wire format against openpi's own packer, and its refusals."""

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
        (b"\x91" * 100_000, "StackError"),
        (b"\xdd\xff\xff\xff\xff", "not"),
        (msgpack.packb({1: 2}), "strict_map_key"),
        (array(data=b"\0" * 7), "has 8 bytes, found 7"),
        (array(shape=[2**62, 2**62]), "found 8"),
        (array(shape=[-1]), "list of sizes"),
        (array(shape=[True, 2]), "list of sizes"),
        (array(shape="2"), "list of sizes"),
        (array(shape=[1] * 40, data=b"\0" * 4), "has 4 bytes"),
        (array(dtype="O"), "not accepted"),
        (array(dtype="c8"), "not accepted"),
        (array(dtype="f4,f4"), "not accepted"),
        (array(dtype="<M8[s]"), "not accepted"),
        (array(dtype="U0", shape=[10**9], data=b""), "not accepted"),
        (array(dtype="nonsense"), "unknown dtype"),
        (array(dtype="f4," * 1000), "short string"),
        (array(dtype=None), "short string"),
        (array(data="text"), "must be bytes"),
        (msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}), "number or a string"),
        (msgpack.packb({b"__npgeneric__": True, b"data": 2**40, b"dtype": "<i4"}), "cannot hold"),
    ],
)
def test_refuses_messages_that_contradict_themselves(message: bytes, reason: str) -> None:
    with pytest.raises(ServingError, match=reason):
        wire.unpack(message)
