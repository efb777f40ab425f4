"""Sessions as clients see them, and by the clock: apart, of one seed, and forgotten in time."""

from typing import Any

import numpy as np
import pytest

from lfm_policy.chunks.horizon import RecedingHorizon
from lfm_policy.server.limits import LimitError
from lfm_policy.server.requests import CHUNKS, REQUEST, SEED, SESSION, Query
from lfm_policy.server.requests import STATE as STATE_KEY
from lfm_policy.server.server import PolicyServer
from lfm_policy.server.sessions import SessionPool, Sessions
from tests.rollout.scripted import Straight
from tests.server.served import OBSERVATION, STATE, Clock, ask, connected


def test_a_session_is_the_receding_horizon_of_its_seed(server: PolicyServer) -> None:
    local = RecedingHorizon(Straight(), seed=7)
    rows = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)
    with connected(server) as robot:
        assert ask(robot, {REQUEST: "reset", SESSION: "a", SEED: 7}) == {"session": "a", "seed": 7}
        for first, last in ((0, 1), (1, 5), (5, 6), (6, 12)):
            reply = ask(robot, {SESSION: "a", STATE_KEY: rows[first:last]})
            local.observe(rows[first:last])
            chunk = Straight().predict(local.history[None], local.noise[None]).actions[0]
            np.testing.assert_array_equal(reply["chunk"], chunk)
            assert (reply["seed"], reply["chunk_index"]) == (7, local.chunks)
            local.advance(chunk)


def test_sessions_are_apart_and_end_with_reset_and_forget(server: PolicyServer) -> None:
    def index(robot: Any, name: str) -> int:
        return ask(robot, {SESSION: name, **OBSERVATION})["chunk_index"]

    with connected(server) as robot, connected(server) as other:
        assert [index(robot, "a"), index(robot, "a"), index(robot, "b"), index(other, "a")] == [0, 1, 0, 0]
        ask(robot, {REQUEST: "reset", SESSION: "a", CHUNKS: 5})
        assert [index(robot, "a"), index(robot, "b")] == [5, 1]
        ask(robot, {REQUEST: "forget", SESSION: "b"})
        assert index(robot, "b") == 0


def test_without_a_session_one_observation_counts_as_a_history_that_stood_still(server: PolicyServer) -> None:
    with connected(server) as robot:
        single = ask(robot, {STATE_KEY: STATE, SEED: 3})
        stacked = ask(robot, {STATE_KEY: np.stack([STATE, STATE]), SEED: 3})
        named = ask(robot, {name: np.stack([value] * 2) for name, value in OBSERVATION.items()} | {SEED: 3})
    np.testing.assert_array_equal(single["chunk"], stacked["chunk"])
    np.testing.assert_array_equal(single["chunk"], named["chunk"])


def test_sessions_expire_and_each_client_has_one_whatever_others_hold() -> None:
    clock = Clock()
    pool = SessionPool(limit=3, clients=2, idle_s=60.0, clock=clock)
    sessions, others = Sessions(Straight(), pool), Sessions(Straight(), pool)
    query = Query(np.zeros((1, 4), np.float32), "a", None, None, None)
    first = sessions.of(query)
    clock.now += 59
    assert sessions.of(query) is first
    clock.now += 61
    assert sessions.of(query) is not first
    assert pool.taken == 1
    sessions.reset("b", 0)
    with pytest.raises(LimitError, match="holds 3 sessions at most"):
        sessions.reset("c", 0)
    others.reset("a", 0)
    with pytest.raises(LimitError, match="holds 3 sessions at most"):
        others.reset("b", 0)
    clock.now += 61  # the first client is silent, and still connected
    others.reset("a", 0)
    others.reset("b", 0)
    sessions.close()
    others.close()
    assert pool.taken == 0
