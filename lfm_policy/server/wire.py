"""The wire format of the openpi protocol: msgpack, with numpy arrays and scalars as tagged maps. Never pickle.

What a message claims to hold is judged before anything of it is built, in time that is bounded whatever its length:
how many values there are altogether, how deep they lie, how long their texts are, how large their arrays.
"""

import math
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from lfm_policy.errors import ServingError, shown

_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"
_KINDS = "biufSU"
"""Kinds of dtype that may travel: bool, integers, floats, strings."""
_LONGEST_DTYPE = 16
_MOST_SIZES, _LARGEST_SIZE = 32, 2**31


@dataclass(frozen=True)
class Bounds:
    """What one message may hold."""

    values: int
    """Maps, lists, keys, numbers and texts altogether; a map counts five, an array fourteen and its sizes."""
    keys: int
    """Entries of one map."""
    depth: int
    """Maps and lists within each other."""
    text_bytes: int
    """Length of one text; arrays are as long as the message may be."""


REQUEST = Bounds(values=10_000, keys=256, depth=12, text_bytes=4096)
"""Enough for 32 histories of 59 numbers that come as lists."""
REPLY = Bounds(values=1_000_000, keys=256, depth=12, text_bytes=2**16)
"""For a client, which nobody else waits for."""


def pack(value: Any) -> bytes:
    """Encode maps, lists, strings, numbers and numpy values.

    Raises:
        ServingError: a value of another type, or an array of objects, records or complex numbers.
    """
    try:
        return msgpack.packb(value, default=_encode)  # pyright: ignore[reportReturnType]
    except (TypeError, ValueError, OverflowError) as error:
        raise ServingError(f"cannot be sent as msgpack: {error}") from None


def unpack(message: bytes, bounds: Bounds = REQUEST) -> Any:
    """Decode what `pack`, or openpi's own packer, has made. Arrays are read-only views of the message.

    Raises:
        ServingError: not msgpack, cut short, beyond `bounds`, with bytes left over, or with an array that contradicts
            itself.
    """
    judge(message, bounds)
    try:
        return msgpack.unpackb(message, object_hook=_decode)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ServingError(
            f"expected one msgpack map, found {len(message)} bytes that are not ({reason:.200})"
        ) from None


def judge(message: bytes, bounds: Bounds) -> None:
    """Walk over a message's heads, without building anything, as far as it is msgpack.

    Raises:
        ServingError: it holds more than `bounds` allow, or an extension type.
    """
    position, values, left, outer, end = 0, 0, 1, [], len(message)
    while position < end:
        if not left:
            if not outer:
                return
            left = outer.pop()
            continue
        values, left, number_bytes = values + 1, left - 1, _NUMBER_BYTES[message[position]]
        if number_bytes:
            position += number_bytes
            continue
        kind, width, size = _HEADS[message[position]]
        size += int.from_bytes(message[position + 1 : position + 1 + width], "big")
        position += 1 + width
        if kind in (_LIST, _MAP):
            outer.append(left)
            left = size * kind
        else:
            position += size
        if kind == _MAP:
            values += 4
        _require_within(bounds, kind, size, len(outer), values + left)


def _require_within(bounds: Bounds, kind: int, size: int, depth: int, values: int) -> None:
    """Raise ServingError where a value, its depth or the number of values so far is beyond what is allowed."""
    if kind == _EXTENSION:
        raise ServingError("msgpack's extension types and timestamps are not accepted")
    if kind == _MAP and size > bounds.keys:
        raise ServingError(f"expected maps of at most {bounds.keys} keys, found one of {size}")
    if kind == _TEXT and size > bounds.text_bytes:
        raise ServingError(f"expected texts of at most {bounds.text_bytes} bytes, found one of {size}")
    if depth > bounds.depth:
        raise ServingError(f"expected maps and lists at most {bounds.depth} deep, found deeper ones")
    if values > bounds.values:
        raise ServingError(
            f"expected at most {bounds.values} values in one message, found {values} or more: "
            "send arrays, not lists of numbers"
        )


_PLAIN, _LIST, _MAP, _TEXT, _EXTENSION = range(5)
"""Kinds of values; of lists and maps also the number of values that an entry has."""


def _head(byte: int) -> tuple[int, int, int]:
    """Return a msgpack value's kind by its first byte, the bytes that hold its size, and what is added to that size."""
    if byte < 0x80 or byte >= 0xE0 or 0xC0 <= byte <= 0xC3:  # small integers, nil, booleans
        return _PLAIN, 0, 0
    if byte < 0xA0:  # small maps and lists
        return _MAP if byte < 0x90 else _LIST, 0, byte & 0x0F
    if byte < 0xC0:  # short texts
        return _TEXT, 0, byte & 0x1F
    lengths = {
        0xC4: (_PLAIN, 1, 0), 0xC5: (_PLAIN, 2, 0), 0xC6: (_PLAIN, 4, 0),
        0xC7: (_EXTENSION, 1, 1), 0xC8: (_EXTENSION, 2, 1), 0xC9: (_EXTENSION, 4, 1),
        0xD9: (_TEXT, 1, 0), 0xDA: (_TEXT, 2, 0), 0xDB: (_TEXT, 4, 0),
        0xDC: (_LIST, 2, 0), 0xDD: (_LIST, 4, 0), 0xDE: (_MAP, 2, 0), 0xDF: (_MAP, 4, 0),
    }  # fmt: skip
    if byte in lengths:
        return lengths[byte]
    if 0xD4 <= byte <= 0xD8:  # fixed extensions
        return _EXTENSION, 0, 1 + (1 << (byte - 0xD4))
    numbers = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
    return _PLAIN, 0, numbers[byte]


_HEADS = [_head(byte) for byte in range(256)]
_NUMBER_BYTES = [1 + head[2] if head[:2] == (_PLAIN, 0) else int(head == (_LIST, 0, 0)) for head in _HEADS]
"""Bytes of a value that is a number, a boolean, nil or a list of nothing, by its first byte; 0: another kind."""


def _encode(value: Any) -> dict[bytes, Any]:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in _KINDS:
        raise ServingError(f"arrays of dtype {value.dtype} cannot be sent; expected bool, integers, floats or strings")
    if isinstance(value, np.ndarray):
        return {_ARRAY: True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {_SCALAR: True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"expected maps, lists, strings, numbers or arrays, found {type(value).__name__}")


def _decode(value: dict[Any, Any]) -> Any:
    if _ARRAY in value:
        return _array(value)
    if _SCALAR in value:
        return _scalar(_dtype(value.get(b"dtype")), value.get(b"data"))
    return value


def _scalar(dtype: np.dtype[Any], data: Any) -> np.generic:
    if not isinstance(data, bool | int | float | str | bytes):
        raise ServingError(f"a numpy scalar's 'data' must be a number or a string, found {type(data).__name__}")
    fits = isinstance(data, int) and np.iinfo(dtype).min <= data <= np.iinfo(dtype).max if dtype.kind in "iu" else True
    if not fits:  # numpy 1 would wrap around
        raise ServingError(f"a numpy scalar of dtype {dtype.str} cannot hold {shown(data)}")
    return dtype.type(data)


def _array(value: dict[Any, Any]) -> np.ndarray:
    dtype, shape, data = _dtype(value.get(b"dtype")), value.get(b"shape"), value.get(b"data")
    if not isinstance(shape, list) or len(shape) > _MOST_SIZES or not all(map(_is_size, shape)):
        raise ServingError(
            f"an array's 'shape' must be a list of sizes, at most {_MOST_SIZES} of them, each from 0 to "
            f"{_LARGEST_SIZE - 1}, found {shown(shape)}"
        )
    if not isinstance(data, bytes):
        raise ServingError(f"an array's 'data' must be bytes, found {type(data).__name__}")
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(data):
        raise ServingError(
            f"an array of dtype {dtype.str} and shape {shown(tuple(shape))} has {shown(needed)} bytes, "
            f"found {len(data)}"
        )
    return np.frombuffer(data, dtype).reshape(shape) if data else np.zeros(shape, dtype)


def _is_size(size: Any) -> bool:
    return type(size) is int and 0 <= size < _LARGEST_SIZE


def _dtype(text: Any) -> np.dtype[Any]:
    if not isinstance(text, str) or len(text) > _LONGEST_DTYPE:
        raise ServingError(f"an array's 'dtype' must be a short string such as '<f4', found {shown(text)}")
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError, SyntaxError):
        raise ServingError(f"unknown dtype {text!r}; expected one such as '<f4'") from None
    if dtype.kind not in _KINDS or not dtype.itemsize:
        raise ServingError(f"arrays of dtype {text!r} are not accepted; expected bool, integers, floats or strings")
    return dtype
