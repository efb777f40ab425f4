"""Load on a policy server: many robots at once, each asking for a chunk at its control rate."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from lfm_policy.errors import ServingError
from lfm_policy.server import requests, wire


@dataclass
class Load:
    """What the clients saw."""

    latency_ms: list[float] = field(default_factory=list)
    """Between sending an observation and having its chunk."""
    errors: list[str] = field(default_factory=list)
    """Refusals and broken connections, one for each."""

    def summary(self, seconds: float) -> dict[str, Any]:
        """Return percentiles as plain JSON values."""
        shares = {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99, "max_ms": 100}
        latency = self.latency_ms
        return {
            "chunks": len(latency),
            "chunks_per_s": round(len(latency) / seconds, 2),
            "errors": len(self.errors),
            "first_error": self.errors[0] if self.errors else None,
            **{name: round(float(np.percentile(latency, q)), 2) if latency else None for name, q in shares.items()},
        }


def load(
    uri: str,
    clients: int,
    seconds: float,
    chunks_hz: float | None = None,
    api_key: str | None = None,
    tick: Callable[[Load], None] = lambda load: None,
) -> Load:
    """Put `clients` robots on a server for `seconds`, each with a session of its own.

    Args:
        uri: "ws://host:8000".
        clients: robots at once.
        seconds: how long.
        chunks_hz: chunks per second that each asks for; None: control rate / Ta, as a robot does.
        api_key: where the server asks for one.
        tick: called with the numbers so far, about ten times per second.

    Raises:
        ServingError: nobody answers at all.
    """
    return asyncio.run(_all(uri, clients, seconds, chunks_hz, api_key, tick))


async def _all(uri: str, clients: int, seconds: float, chunks_hz: float | None, api_key: str | None, tick: Any) -> Load:
    found, ready = Load(), asyncio.Barrier(clients)
    headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(_robot(uri, headers, number, seconds, chunks_hz, found, ready))
            ticking = asyncio.create_task(_tick(tick, found))
        ticking.cancel()
    except* (OSError, WebSocketException, ServingError) as errors:
        raise ServingError(f"cannot connect to {uri}: {errors.exceptions[0]}") from None
    return found


async def _tick(tick: Callable[[Load], None], found: Load) -> None:
    while True:
        tick(found)
        await asyncio.sleep(0.1)


async def _robot(
    uri: str,
    headers: dict[str, str] | None,
    number: int,
    seconds: float,
    chunks_hz: float | None,
    found: Load,
    ready: asyncio.Barrier,
) -> None:
    async with connect(uri, compression=None, proxy=None, additional_headers=headers) as connection:
        metadata = wire.unpack(_binary(await connection.recv()))
        contract = metadata["contract"]
        period = 1 / (chunks_hz or contract["control_hz"] / metadata["action_steps"])
        width = sum(key["dim"] for key in contract["observations"])
        cameras = [(f"{c['name']}_image", (c["height"], c["width"], 3)) for c in contract.get("cameras", [])]
        pictures = {name: np.random.default_rng(number).integers(0, 256, size, np.uint8) for name, size in cameras}
        generator = np.random.default_rng(number)
        await ready.wait()
        due = time.monotonic() + period * number / ready.parties
        end = time.monotonic() + seconds
        while due < end:
            await asyncio.sleep(due - time.monotonic())
            try:
                found.latency_ms.append(await _ask(connection, generator.normal(0, 0.3, width), pictures, number))
            except (ServingError, OSError, WebSocketException) as error:
                found.errors.append(f"client {number}: {type(error).__name__}: {error}")
                return
            due = max(due + period, time.monotonic())


async def _ask(connection: ClientConnection, row: np.ndarray, pictures: Mapping[str, np.ndarray], number: int) -> float:
    message = {requests.SESSION: f"robot {number}", requests.STATE: row.astype(np.float32), **pictures}
    started = time.perf_counter()
    await connection.send(wire.pack(message))
    wire.unpack(_binary(await connection.recv()))
    return 1000 * (time.perf_counter() - started)


def _binary(frame: str | bytes) -> bytes:
    if isinstance(frame, str):
        raise ServingError(frame)
    return frame
