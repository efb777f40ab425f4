"""The wire format of the openpi protocol: msgpack, with numpy arrays and scalars as tagged maps. Never pickle."""

import math
from typing import Any

import msgpack
import numpy as np

from lfm_policy.errors import ServingError

_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"
_KINDS = "biufSU"
"""Kinds of dtype that may travel: bool, integers, floats, strings."""
_LONGEST_DTYPE = 16


def pack(value: Any) -> bytes:
    """Encode maps, lists, strings, numbers and numpy values.

    Raises:
        ServingError: a value of another type, or an array of objects, records or complex numbers.
    """
    try:
        return msgpack.packb(value, default=_encode)  # pyright: ignore[reportReturnType]
    except (TypeError, ValueError, OverflowError) as error:
        raise ServingError(f"cannot be sent as msgpack: {error}") from None


def unpack(message: bytes) -> Any:
    """Decode what `pack`, or openpi's own packer, has made. Arrays are read-only views of the message.

    Raises:
        ServingError: not msgpack, cut short, too deep, with bytes left over, or with an array that contradicts itself.
    """
    try:
        return msgpack.unpackb(message, object_hook=_decode)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ServingError(f"expected one msgpack map, found {len(message)} bytes that are not ({reason})") from None


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
        raise ServingError(f"a numpy scalar of dtype {dtype.str} cannot hold {data}")
    return dtype.type(data)


def _array(value: dict[Any, Any]) -> np.ndarray:
    dtype, shape, data = _dtype(value.get(b"dtype")), value.get(b"shape"), value.get(b"data")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ServingError(f"an array's 'shape' must be a list of sizes, found {shape!r:.80}")
    if not isinstance(data, bytes):
        raise ServingError(f"an array's 'data' must be bytes, found {type(data).__name__}")
    needed = math.prod(shape) * dtype.itemsize
    if len(shape) > 32 or needed != len(data):
        raise ServingError(
            f"an array of dtype {dtype.str} and shape {tuple(shape)!s:.80} has {needed} bytes, found {len(data)}"
        )
    return np.frombuffer(data, dtype).reshape(shape) if data else np.zeros(shape, dtype)


def _dtype(text: Any) -> np.dtype[Any]:
    if not isinstance(text, str) or len(text) > _LONGEST_DTYPE:
        raise ServingError(f"an array's 'dtype' must be a short string such as '<f4', found {text!r:.80}")
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError, SyntaxError):
        raise ServingError(f"unknown dtype {text!r}; expected one such as '<f4'") from None
    if dtype.kind not in _KINDS or not dtype.itemsize:
        raise ServingError(f"arrays of dtype {text!r} are not accepted; expected bool, integers, floats or strings")
    return dtype
