"""Requests that share a call of the policy: each gets its own answer, and a bad one breaks alone."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from lfm_policy.protocols import ChunkBatch
from lfm_policy.server.requests import BATCH, SEED, SESSION
from lfm_policy.server.requests import STATE as STATE_KEY
from lfm_policy.server.server import PolicyServer
from tests.rollout.scripted import HORIZON, Straight
from tests.server.served import OBSERVATION, STATE, Held, ask, connected, eventually, served


def one(server: PolicyServer, **more: Any) -> Any:
    with connected(server) as robot:
        return ask(robot, OBSERVATION | more)


def test_a_batch_answers_each_of_its_items(server: PolicyServer) -> None:
    items = [{STATE_KEY: STATE + row, SEED: row} for row in range(3)] + [{SESSION: "s", **OBSERVATION}]
    with connected(server) as robot:
        alone = [ask(robot, item) for item in items[:3]]
        reply = ask(robot, {BATCH: items})
    assert len(reply["batch"]) == 4
    for one, item in zip(alone, reply["batch"], strict=False):
        np.testing.assert_array_equal(one["chunk"], item["chunk"])


def test_requests_that_wait_share_the_next_call() -> None:
    policy = Held()
    with served(policy) as server, ThreadPoolExecutor(9) as threads:
        with connected(server) as first:
            running = threads.submit(ask, first, OBSERVATION)
            assert policy.entered.acquire(timeout=5)
            others = [threads.submit(lambda: one(server)) for _ in range(8)]
            assert eventually(lambda: len(server._batcher._waiting) == 8)
            policy.go_on.release(2)
            assert running.result()["server_timing"]["batch"] == 1
        assert {other.result()["server_timing"]["batch"] for other in others} == {8}
    assert policy.batches == [1, 8]


def test_a_request_alone_shares_its_call_with_nobody() -> None:
    policy = Held()
    with served(policy) as server, ThreadPoolExecutor(9) as threads:
        futures = [threads.submit(one, server)]
        assert policy.entered.acquire(timeout=5)
        for number, more in enumerate(({}, {"__alone__": True}, {})):
            futures.append(threads.submit(one, server, **more))
            assert eventually(lambda number=number: len(server._batcher._waiting) == number + 1)
        policy.go_on.release(4)
        assert [future.result()["server_timing"]["batch"] for future in futures] == [1, 1, 1, 1]


class Picky(Straight):
    """Fails on histories that hold a negative goal."""

    def predict(self, histories: np.ndarray, noise: np.ndarray) -> ChunkBatch:
        if (histories[:, -1, 2:] < 0).any():
            raise ValueError("goal out of reach")
        time.sleep(0.02)
        return super().predict(histories, noise)


def test_a_request_that_breaks_the_policy_breaks_alone() -> None:
    bad = {"position": STATE[:2], "goal": -STATE[2:]}
    with served(Picky()) as server, ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda number: one(server, **(bad if number == 3 else {})), range(8)))
    assert replies.pop(3) == "the policy failed: ValueError: goal out of reach"
    assert all("actions" in reply for reply in replies)


class Diverged(Straight):
    """A model whose weights are damaged."""

    def predict(self, histories: np.ndarray, noise: np.ndarray) -> ChunkBatch:
        return ChunkBatch(np.full((len(histories), HORIZON, 2), np.nan, np.float32), nfe=1)


def test_a_chunk_that_is_not_finite_never_reaches_a_robot() -> None:
    with served(Diverged()) as server, connected(server) as robot:
        assert "holds NaN or infinity" in ask(robot, OBSERVATION)
