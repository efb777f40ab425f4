"""An honest robot at 20 Hz beside every attack: python -m tests.slow.attacks [POLICY] [SECONDS] [NAME] [TIMES]

NAME is part of the attacks' names; TIMES is how often each is made. Server, robot and attackers are processes of their
own. Before each attack the robot's latency is measured without it, so that what else the machine does counts on both
sides; attackers run at low priority for the same reason. On a busy machine make several: the median counts.
"""

import itertools
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from lfm_policy.server import wire
from tests.slow.raw_client import RawClient, frame
from tests.slow.server_process import ServerProcess, serving

CONTRACT = {"__request__": "contract"}


def array(shape: list[int]) -> dict[bytes, Any]:
    """An array that claims a shape."""
    return {b"__ndarray__": True, b"data": b"\0" * 76, b"dtype": "<f4", b"shape": shape}


MESSAGES: dict[str, bytes] = {
    **{f"shape of {n:,} sizes": msgpack.packb({"observation.state": array([2**62] * n)}) for n in (5_000, 20_000)},
    "contract of 200,000 empty observations": msgpack.packb(
        CONTRACT | {"__contract__": {"observations": [{}] * 200_000}}
    ),
    "contract of 9,000 empty observations": msgpack.packb(CONTRACT | {"__contract__": {"observations": [{}] * 9_000}}),
    "a list of 1,000,000 empty lists": msgpack.packb({"position": [[]] * 10**6}),
    "the same as __session__": msgpack.packb({"__session__": [[]] * 10**6}),
    "1,000 x 1,000 nested lists": msgpack.packb([[[]] * 1000] * 1000),
    "contract of 90,000 unknown keys": msgpack.packb(CONTRACT | {"__contract__": {f"k{n}": 0 for n in range(90_000)}}),
    "a map of 90,000 keys": msgpack.packb({f"k{n}": 0 for n in range(90_000)}),
    "a map of 4,900 keys": msgpack.packb({f"k{n}": 0 for n in range(4_900)}),
    "900 small arrays": msgpack.packb({f"k{n}": array([19]) for n in range(250)}),
    "a picture of 2.8 MB": wire.pack({"observation/image": np.zeros((3, 480, 640, 3), np.uint8)}),
    "a name of 60 kB with line breaks": wire.pack({"__" + "\n" * 60_000: 1}),
}


def repeat(message: bytes) -> Callable[[int], None]:
    """Send a message, read what comes, and come back."""

    def attack(port: int) -> None:
        client = RawClient(port)
        with suppress(OSError):
            client.socket.sendall(frame(message))
            client.read()
        client.close()

    return attack


def flood(opcode: int, payload: bytes) -> Callable[[int], None]:
    """Many small frames at once."""
    frames = frame(payload, opcode) * 20_000

    def attack(port: int) -> None:
        client = RawClient(port)
        with suppress(OSError):
            client.socket.sendall(frames)
        client.close()

    return attack


def get(path: str) -> Callable[[int], None]:
    """Ask for a page."""

    def attack(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            while connection.recv(65536):
                pass

    return attack


def connecting(says: bytes) -> Callable[[int], None]:
    """Connections that never finish their handshake; the last 600 stay open."""
    held: list[socket.socket] = []

    def attack(port: int) -> None:
        held.append(socket.create_connection(("127.0.0.1", port), timeout=5))
        held[-1].sendall(says)
        if len(held) > 600:
            held.pop(0).close()

    return attack


def idling() -> Callable[[int], None]:
    """Clients that come in and say nothing; the last 60 stay."""
    held: list[RawClient] = []

    def attack(port: int) -> None:
        held.append(RawClient(port))
        if len(held) > 60:
            held.pop(0).close()

    return attack


ATTACKS: dict[str, Callable[[int], None]] = {
    "nothing: it only computes": lambda port: None,
    **{name: repeat(message) for name, message in MESSAGES.items()},
    "pings": flood(9, b""),
    "tiny messages": flood(2, b"\x80"),
    "handshakes that never end": connecting(b""),
    "handshakes that begin and never end": connecting(b"GET / HTTP/1.1\r\n"),
    "idle strangers": idling(),
    "coming and going": lambda port: RawClient(port).close(),
    "GET /status.json": get("/status.json"),
    "GET /metrics": get("/metrics"),
}


def attacker(name: str, port: int, rounds: Any, stop: Any) -> None:
    """Attack until told to stop."""
    os.nice(15)
    attack = ATTACKS[name]
    while not stop.is_set():
        try:
            attack(port)
        except OSError:
            time.sleep(0.01)
        rounds.value += 1


def honest(robot: RawClient, message: bytes, seconds: float) -> list[float]:
    """A robot that asks for a chunk 20 times per second; how long each took [ms]."""
    waited, due = [], time.monotonic()
    end = due + 3 * seconds
    while len(waited) < 20 * seconds and time.monotonic() < end:
        time.sleep(max(0.0, due - time.monotonic()))
        started = time.monotonic()
        opcode, reply = robot.ask(message)
        assert opcode == 2, reply
        waited.append(1000 * (time.monotonic() - started))
        due = max(due + 0.05, time.monotonic())
    return waited


@dataclass(frozen=True)
class Measured:
    """A robot beside an attack."""

    name: str
    rounds: int
    """How often the attack was made."""
    quiet: list[float]
    """Latencies before [ms]."""
    attacked: list[float]
    """Latencies beside it [ms]."""
    turn: float
    """CPU time of the longest turn of the server's event loop [ms]."""


def measure(server: ServerProcess, seconds: float, names: list[str]) -> Iterator[Measured]:
    """Put the robot beside one attack after the other."""
    robot = RawClient(server.port)
    greeting = robot.greeting["contract"]["observations"]
    message = wire.pack({key["name"]: np.full(key["dim"], 0.1, np.float32) for key in greeting} | {"__session__": "a"})
    honest(robot, message, 1.0)
    for name in names:
        quiet = honest(robot, message, seconds)
        rounds, stop = multiprocessing.Value("q", 0), multiprocessing.Event()
        process = multiprocessing.Process(target=attacker, args=(name, server.port, rounds, stop))
        server.longest_ms()
        process.start()
        try:
            attacked = honest(robot, message, seconds)
            yield Measured(name, rounds.value, quiet, attacked, server.longest_ms())
        finally:
            stop.set()
            process.join(20)


def row(times: list[Measured]) -> str:
    """What was measured beside one attack, as a row of a table: medians, and the range of the ratio."""
    quiet, attacked = (np.array([np.percentile(each, (50, 99)) for each in of]) for of in _both(times))
    ratios = attacked[:, 1] / quiet[:, 1]
    columns = [f"{value:.1f}" for value in (*np.median(quiet, 0), *np.median(attacked, 0))]
    turn = max(one.turn for one in times)
    last = f"{np.median(ratios):.2f} | {ratios.min():.2f} to {ratios.max():.2f}"
    return f"| {times[0].name} | {sum(one.rounds for one in times)} | {turn:.1f} | {' | '.join(columns)} | {last} |"


def _both(times: list[Measured]) -> tuple[list[list[float]], list[list[float]]]:
    return [one.quiet for one in times], [one.attacked for one in times]


def main(policy: str, seconds: float, chosen: str, times: int) -> None:
    """Print a row for each attack."""
    with tempfile.TemporaryDirectory() as folder, serving(policy, Path(folder)) as server:
        load = f"load of the machine {os.getloadavg()[0]:.1f}"
        print(f"policy {policy}, {seconds:g} s each, {times} times, {load}; all times in ms\n")
        print(
            "| beside a robot at 20 Hz | rounds | longest turn, CPU | quiet p50 | p99 | attacked p50 | p99 | ratio | |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for name in ATTACKS:
            if chosen in name:
                print(row(list(measure(server, seconds, [name] * times))), flush=True)
        text = server.log.read_text()
        assert "Traceback" not in text, text
        print(f"\nThe log has {len(text)} bytes, {len(text.splitlines())} lines.")


if __name__ == "__main__":
    arguments = dict(itertools.zip_longest(("policy", "seconds", "chosen", "times"), sys.argv[1:5]))
    main(
        arguments["policy"] or "lift",
        float(arguments["seconds"] or 10),
        arguments["chosen"] or "",
        int(arguments["times"] or 1),
    )
