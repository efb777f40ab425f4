"""A robot behind a ZeroMQ socket, such as one that ROS 2 drives: its process answers `observe` and takes `act`.

A message is a list of frames: a JSON object, then one frame for each array that its "arrays" names, little-endian in C
order. Nothing else is understood, and nothing is executed. Requests are numbered ("id"); an answer has its request's.

    request  {"lfm": 1, "id": 7, "do": "act", "arrays": [{"name": "action", "dtype": "float64", "shape": [6]}]}
    answer   {"lfm": 1, "id": 7}, or {"lfm": 1, "id": 7, "error": "the arm is in teach mode"}
"""

import json
import time
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from lfm_policy.contract import Contract
from lfm_policy.control.limits import number_names
from lfm_policy.control.robot import Reading
from lfm_policy.errors import ConfigError, ContractError, RolloutError, shown

VERSION = 1
DTYPES = ("float32", "float64", "uint8")
LARGEST_BYTES = 1 << 26
"""Of one frame."""
LARGEST_HEADER = 1 << 20


def encode(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> list[bytes]:
    """Write a message: the header with the arrays' names, types and shapes, and their bytes."""
    listed = [{"name": name, "dtype": array.dtype.name, "shape": array.shape} for name, array in arrays.items()]
    full = {"lfm": VERSION, **header, "arrays": listed}
    raw = [np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes() for array in arrays.values()]
    return [json.dumps(full).encode(), *raw]


def decode(frames: Sequence[bytes]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a message.

    Raises:
        RolloutError: it is none, of another version, or its frames are not what the header says.
    """
    header = _header(frames)
    listed = header.get("arrays", [])
    if not isinstance(listed, list) or len(listed) != len(frames) - 1:
        raise RolloutError(f"the header names {shown(listed)} as arrays, and {len(frames) - 1} frames follow it")
    arrays: dict[str, np.ndarray] = {}
    for entry, raw in zip(listed, frames[1:], strict=True):
        name, dtype, shape = (entry.get(k) if isinstance(entry, dict) else None for k in ("name", "dtype", "shape"))
        if (
            not isinstance(name, str)
            or dtype not in DTYPES
            or not isinstance(shape, list)
            or not all(map(_size, shape))
        ):
            raise RolloutError(f"expected a name, a dtype of {DTYPES} and a shape for each array, found {shown(entry)}")
        kind = np.dtype(dtype).newbyteorder("<")
        if prod(shape) * kind.itemsize != len(raw):
            raise RolloutError(f"'{shown(name)}' is {dtype} {shape} and has {len(raw)} bytes")
        arrays[name] = np.frombuffer(raw, kind).reshape(shape)
    return header, arrays


def _size(value: object) -> bool:
    return type(value) is int and value >= 0


def _header(frames: Sequence[bytes]) -> dict[str, Any]:
    try:
        header = json.loads(frames[0]) if frames and len(frames[0]) <= LARGEST_HEADER else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("lfm") != VERSION:
        found = shown(bytes(frames[0][:80])) if frames else "no frame"
        raise RolloutError(f'expected a JSON header with "lfm": {VERSION} in the first frame, found {found}')
    return header


class BridgedRobot:
    """A robot whose process answers on a ZeroMQ REP (or ROUTER) socket. Implements `Robot`.

    Args:
        contract: of the policy; sent along with `hello`. Where its numbers have names, the robot must have the same.
        address: where the robot's process listens, "tcp://localhost:5557" or "ipc:///tmp/arm".
        patience_s: longest wait for an answer, and for an observation with a new stamp [s].

    Raises:
        ConfigError: pyzmq is missing.
        ContractError: the robot's numbers are others.
        RolloutError: nobody answers, or with an error.
    """

    def __init__(self, contract: Contract, address: str, patience_s: float = 1.0) -> None:
        try:
            import zmq
        except ImportError:
            raise ConfigError(f"robot={address} needs pyzmq: pip install 'lfm-policy[bridge]'") from None
        self.contract, self._address, self._patience = contract, address, patience_s
        self._sent, self._stamp, self._news = 0, None, time.monotonic()
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_BYTES)
        self._socket.setsockopt(zmq.LINGER, 200)  # for the last words [ms]
        self._socket.connect(address)
        try:
            self._agree(self._ask("hello", contract=contract.model_dump(mode="json"))[0])
        except BaseException:
            self._socket.close()
            raise

    def reset(self, seed: int) -> Reading:
        """Begin an episode; the robot rests until the first command."""
        self._stamp = None
        return self._reading(*self._ask("reset", seed=seed))

    def read(self) -> Reading:
        """Tell what the robot sees now; nothing where that has the stamp of the last time."""
        return self._reading(*self._ask("observe"))

    def send(self, action: np.ndarray, due: float) -> None:
        """Command an action; the robot's answer to it is read with the next observation."""
        self._post("act", {"action": np.asarray(action, np.float64)}, due_in_s=round(due - time.monotonic(), 6))

    def stop(self) -> None:
        """Tell the robot to stop, and wait until it says that it has heard."""
        self._ask("stop")

    def close(self) -> None:
        """Take leave."""
        self._post("close")
        self._socket.close()

    def _agree(self, said: Mapping[str, Any]) -> None:
        """Compare the numbers of an action with the robot's."""
        if self.contract.poses or not self.contract.actions:
            return
        expected, found = number_names(self.contract), said.get("actions")
        if found != expected:
            raise ContractError(
                f"the policy commands {expected} in this order, and the robot at {self._address} says to `hello` "
                f'that its "actions" are {shown(found, 300)}'
            )

    def _reading(self, said: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Reading:
        stamp, now = said.get("stamp"), time.monotonic()
        success, over = bool(said.get("success", False)), bool(said.get("over", False))
        if stamp is not None and stamp == self._stamp:
            if now - self._news > self._patience:
                raise RolloutError(f"the robot at {self._address} has seen nothing new for {self._patience:g} s")
            return Reading(np.zeros((0, self.contract.observation_dim), np.float32), success, over)
        self._stamp, self._news = stamp, now
        frames = self.contract.stack(arrays) if self.contract.cameras else None
        return Reading(self.contract.flatten(arrays)[None], success, over, frames)

    def _post(self, do: str, arrays: Mapping[str, np.ndarray] | None = None, **more: Any) -> int:
        self._sent += 1
        self._socket.send_multipart([b"", *encode({"id": self._sent, "do": do, **more}, arrays or {})])
        return self._sent

    def _ask(self, do: str, **more: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Send a request and wait for its answer; answers to commands come before it."""
        asked, deadline = self._post(do, **more), time.monotonic() + self._patience
        while (left := deadline - time.monotonic()) > 0:
            if not self._socket.poll(max(1, int(1000 * left))):
                continue
            _, *frames = self._socket.recv_multipart()
            header, arrays = decode(frames)
            if "error" in header:
                raise RolloutError(f"the robot at {self._address} says: {shown(header['error'], 300)}")
            if header.get("id") == asked:
                return header, arrays
        raise RolloutError(f"the robot at {self._address} did not answer '{do}' for {self._patience:g} s")
