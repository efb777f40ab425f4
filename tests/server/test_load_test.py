"""Many robots at once: none is refused, none waits long, whatever one of them sends."""

import threading

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from lfm_policy.errors import ServingError
from lfm_policy.server import wire
from lfm_policy.server.load_test import load
from lfm_policy.server.served import warm_up
from tests.bundles.policies import policy
from tests.server.served import OBSERVATION, ask, connected, served


def test_thirty_two_robots_get_their_chunks() -> None:
    made = policy("lift", blocks=1)
    warm_up(made)
    with served(made) as server:
        found = load(f"ws://127.0.0.1:{server.port}", clients=32, seconds=3.0)
        chunks = server.metrics.registry.get_sample_value("lfm_chunks_total")
    summary = found.summary(3.0)
    assert summary["errors"] == 0, found.errors
    assert summary["chunks"] == chunks >= 32
    assert summary["p99_ms"] < 2000


def test_malicious_clients_do_not_hold_up_the_others() -> None:
    stop = threading.Event()

    def attack(server_port: int, message: bytes) -> None:
        while not stop.is_set():
            try:
                with connected(server) as robot:
                    ask(robot, message)
            except (OSError, ConnectionClosed, TimeoutError):
                stop.wait(0.01)

    attacks = [b"\xc1", b"\x91" * 500_000, wire.pack({"position": [0] * 500_000}), b""]
    with served() as server:
        threads = [threading.Thread(target=attack, args=(server.port, message)) for message in attacks]
        for thread in threads:
            thread.start()
        found = load(f"ws://127.0.0.1:{server.port}", clients=8, seconds=2.0)
        stop.set()
        for thread in threads:
            thread.join()
        refused = server.metrics.outcomes["refused"]
    assert found.errors == []
    assert len(found.latency_ms) >= 8
    assert np.median(found.latency_ms) < 500
    assert refused >= len(attacks)


@pytest.mark.slow
def test_thirty_two_robots_for_a_minute() -> None:
    with served(policy("lift", blocks=1)) as server:
        found = load(f"ws://127.0.0.1:{server.port}", clients=32, seconds=60.0)
    summary = found.summary(60.0)
    assert summary["errors"] == 0, found.errors
    assert summary["chunks"] >= 32 * 60 * 2.5 * 0.95
    assert summary["p99_ms"] < 1000


def test_errors_are_counted_not_raised() -> None:
    with served(rate_hz=1.0, max_batch=1) as server:
        found = load(f"ws://127.0.0.1:{server.port}", clients=2, seconds=1.0, chunks_hz=20.0)
        with connected(server) as robot:
            assert "actions" in ask(robot, OBSERVATION)
    assert len(found.errors) == 2
    assert "more than 1 chunks per second" in found.errors[0]


def test_nobody_there() -> None:
    with pytest.raises(ServingError, match=r"cannot connect to ws://127.0.0.1:9"):
        load("ws://127.0.0.1:9", clients=2, seconds=1.0)
