"""The server as clients see it: openpi's own client first, then sessions, batches, limits, keys, pages, shutdown."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from lfm_envs.point_mass import CONTRACT, PointMass
from lfm_policy.chunks.horizon import RecedingHorizon
from lfm_policy.protocols import ChunkBatch
from lfm_policy.server import admission, wire
from lfm_policy.server.requests import BATCH, CHUNKS, REQUEST, SEED, SESSION
from lfm_policy.server.requests import STATE as STATE_KEY
from lfm_policy.server.server import PolicyServer
from tests.rollout.scripted import ACTION_STEPS, HORIZON, OBSERVATION_STEPS, Straight
from tests.server.served import OBSERVATION, STATE, Held, ask, close_code, connected, eventually, served

# openpi-client 0.1.2 calls websockets' connect() in a way that 17.1 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")


@pytest.fixture(scope="module")
def server() -> Iterator[PolicyServer]:
    with served() as running:
        yield running


def get(server: PolicyServer, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def openpi(server: PolicyServer, **options: Any) -> Any:
    return pytest.importorskip("openpi_client.websocket_client_policy").WebsocketClientPolicy(
        "127.0.0.1", server.port, **options
    )


def test_openpi_client_gets_metadata_and_actions(server: PolicyServer) -> None:
    client = openpi(server)
    metadata = client.get_server_metadata()
    assert metadata["contract"] == CONTRACT.model_dump(mode="json")
    assert (metadata["observation_steps"], metadata["action_steps"]) == (OBSERVATION_STEPS, ACTION_STEPS)
    first, second = client.infer(OBSERVATION), client.infer(OBSERVATION)
    assert first["actions"].shape == (HORIZON - OBSERVATION_STEPS + 1, 2) == (metadata["action_horizon"], 2)
    np.testing.assert_array_equal(first["actions"], first["chunk"][OBSERVATION_STEPS - 1 :])
    assert first["server_timing"]["infer_ms"] > 0
    assert "prev_total_ms" not in first["server_timing"]
    assert second["server_timing"]["prev_total_ms"] > 0
    client._ws.close()


def test_openpi_chunk_broker_drives_the_point_mass_to_its_goal() -> None:
    broker = pytest.importorskip("openpi_client.action_chunk_broker")
    environment = PointMass()
    observation, success, steps = environment.reset(3), False, 0
    with served(Straight(noise_m=0, gain=1)) as server:
        client = openpi(server)
        policy = broker.ActionChunkBroker(client, ACTION_STEPS)
        while not success:
            result = environment.step(
                policy.infer({**observation, SESSION: "robot", "prompt": "go to the goal"})["actions"]
            )
            observation, success = result.observation, result.success
            steps += 1
            assert steps < environment.horizon
        client._ws.close()


def test_openpi_client_raises_the_servers_text(server: PolicyServer) -> None:
    client = openpi(server)
    with pytest.raises(RuntimeError, match="'goal' is missing: expected \\['position', 'goal'\\]"):
        client.infer({"position": STATE[:2]})
    with pytest.raises(ConnectionClosed):
        client.infer(OBSERVATION)


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


def test_a_batch_answers_each_of_its_items(server: PolicyServer) -> None:
    items = [{STATE_KEY: STATE + row, SEED: row} for row in range(3)] + [{SESSION: "s", **OBSERVATION}]
    with connected(server) as robot:
        alone = [ask(robot, item) for item in items[:3]]
        reply = ask(robot, {BATCH: items})
    assert len(reply["batch"]) == 4
    for one, item in zip(alone, reply["batch"], strict=False):
        np.testing.assert_array_equal(one["chunk"], item["chunk"])


def test_the_contract_is_compared_both_sides_named(server: PolicyServer) -> None:
    ours = CONTRACT.model_dump(mode="json")
    with connected(server) as robot:
        assert ask(robot, {REQUEST: "contract", "__contract__": ours}) == {"match": True}
        error = ask(robot, {REQUEST: "contract", "__contract__": ours | {"control_hz": 10.0}})
        assert "control_hz: policy straight has 20.0, the client has 10.0" in error
        assert close_code(robot) == 1011


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


def one(server: PolicyServer, **more: Any) -> Any:
    with connected(server) as robot:
        return ask(robot, OBSERVATION | more)


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


def test_a_key_is_asked_of_robots_and_pages_alike() -> None:
    key = "a-key-of-sixteen-characters"
    with served(keys=("another-key-of-some-length", key)) as server:
        for wrong in (None, "wrong", key[:-1], key + "x"):
            with pytest.raises(InvalidStatus) as refused:
                openpi(server, api_key=wrong)
            assert refused.value.response.status_code == 401
            assert b"Authorization: Api-Key" in refused.value.response.body
        client = openpi(server, api_key=key)
        assert "actions" in client.infer(OBSERVATION)
        client._ws.close()
        assert {get(server, path)[0] for path in ("/metrics", "/status.json", "/pictures.json", "/")} == {401}
        assert get(server, "/metrics", Authorization=f"Bearer {key}")[0] == 200
        assert get(server, "/metrics", Authorization="Basic !")[0] == 401
        assert get(server, "/healthz") == (200, "OK\n")


def test_a_client_that_asks_too_often_is_refused_and_others_are_not() -> None:
    with served(rate_hz=5, max_batch=5) as server, connected(server) as other:
        with connected(server) as robot:
            replies = [ask(robot, OBSERVATION) for _ in range(6)]
            assert all("actions" in reply for reply in replies[:5])
            assert replies[5] == "more than 5 chunks per second from one client: ask less often"
            assert close_code(robot) == 1013
        assert "actions" in ask(other, OBSERVATION)


def test_clients_and_sessions_are_limited() -> None:
    with served(max_clients=2, max_sessions=3) as server, connected(server) as robot:
        with connected(server) as other:
            assert "actions" in ask(robot, OBSERVATION | {SESSION: "a"})
            assert "actions" in ask(robot, OBSERVATION | {SESSION: "b"})
            assert "actions" in ask(other, OBSERVATION | {SESSION: "a"})
            with pytest.raises(InvalidStatus, match="503"), connected(server):
                pass
            assert "holds 3 sessions at most" in ask(other, OBSERVATION | {SESSION: "b"})
            assert close_code(other) == 1013
        assert eventually(lambda: len(server.metrics.clients) == 1)
        with connected(server) as third:
            assert "actions" in ask(third, OBSERVATION | {SESSION: "a"})


def test_idle_strangers_give_way_and_quiet_robots_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_STRANGER_S", 0.1)
    with served(max_clients=3, idle_s=1000) as server, connected(server) as robot:
        assert "actions" in ask(robot, OBSERVATION)
        with connected(server) as stranger, connected(server) as later:
            time.sleep(0.15)
            with connected(server) as newcomer:
                assert "your place was given to another client" in stranger.recv(5)
                assert close_code(stranger) == 1013
                assert "actions" in ask(newcomer, OBSERVATION)
                assert "actions" in ask(later, OBSERVATION)
                with pytest.raises(InvalidStatus, match="503"), connected(server):
                    pass
        assert "actions" in ask(robot, OBSERVATION)


def test_an_address_has_its_share_only() -> None:
    with served(max_clients=3, max_clients_per_address=2) as server, connected(server), connected(server):
        with pytest.raises(InvalidStatus) as refused, connected(server):
            pass
        assert refused.value.response.status_code == 503
        assert b"has 2 clients from your address" in refused.value.response.body


def test_a_quiet_client_stays_as_long_as_it_answers_pings() -> None:
    with served(ping_s=0.1, idle_s=0.1) as server, connected(server) as robot:
        assert "actions" in ask(robot, OBSERVATION)
        with connected(server) as dead:
            dead.protocol.receive_data = lambda data: None  # pyright: ignore[reportAttributeAccessIssue]
            assert eventually(lambda: len(server.metrics.clients) == 1)
            dead.socket.close()
        assert "actions" in ask(robot, OBSERVATION)


def test_slow_handshakes_keep_nobody_out_and_do_not_delay_the_end() -> None:
    with served() as server, connected(server) as robot, ExitStack() as closing:
        for _ in range(300):
            closing.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        with connected(server) as newcomer:
            assert "actions" in ask(newcomer, OBSERVATION)
        assert "actions" in ask(robot, OBSERVATION)
        assert 200 < len(server._admission._pending) <= 256
        server.stop()  # pyright: ignore[reportAttributeAccessIssue]
        started = time.monotonic()
        assert close_code(robot) == 1001
        assert eventually(lambda: not server._admission._pending)
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("size", [4000, 3_000_000])
def test_a_message_that_is_too_long_is_told_so_before_it_is_cut_off(size: int) -> None:
    with served(max_message_bytes=2000) as server, connected(server) as robot, connected(server) as other:
        text = ask(robot, OBSERVATION | {"image": np.zeros(size, np.uint8)})
        assert "exceeds limit of 2000 bytes: this policy observes no pictures" in text
        assert close_code(robot) == 1009
        assert "actions" in ask(other, OBSERVATION)
    assert server.metrics.outcomes["refused"] == 1


def exhaust(connection: ClientConnection) -> None:
    """Read until there is nothing more."""
    while True:
        connection.recv(10)


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG, Opcode.CONT, Opcode.BINARY])
def test_a_flood_of_small_frames_is_cut_off(server: PolicyServer, opcode: Opcode) -> None:
    with connected(server) as flood, connected(server) as other:
        if opcode is Opcode.CONT:
            flood.socket.sendall(Frame(Opcode.BINARY, b"", fin=False).serialize(mask=True))
        frames = Frame(opcode, b"\x80", fin=opcode is not Opcode.CONT).serialize(mask=True) * 50_000
        with suppress(OSError):
            flood.socket.sendall(frames)
        assert "actions" in ask(other, OBSERVATION)
        with pytest.raises(ConnectionClosed):
            exhaust(flood)


def test_two_keys_are_one_too_many(server: PolicyServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
    assert get(server, "/", Upgrade="h2c")[0] == 200


def test_openpis_habits_are_served(server: PolicyServer) -> None:
    habits = {
        "lists": {name: value.tolist() for name, value in OBSERVATION.items()},
        "nested": {"observation": OBSERVATION, "prompt": "go there"},
        "slashes": {f"observation/{name}": value for name, value in OBSERVATION.items()},
        "state": {"observation/state": STATE.tolist()},
    }
    with connected(server) as robot:
        expected = ask(robot, OBSERVATION | {SEED: 3})
        for name, habit in habits.items():
            reply = ask(robot, habit | {SEED: 3})
            np.testing.assert_array_equal(reply["chunk"], expected["chunk"])
            assert ("'prompt'" in reply.get("note", "")) == (name == "nested")
        assert "note" not in ask(robot, habits["nested"])  # once is enough


def test_a_client_that_neither_reads_nor_finishes_slows_nobody(server: PolicyServer) -> None:
    with connected(server) as stuck, connected(server) as other:
        stuck.socket.sendall(b"\x82\xfe\xff\xff")  # the head of a frame that never comes
        with connected(server, max_queue=1) as deaf:
            for _ in range(200):
                deaf.send(wire.pack(OBSERVATION))
            times = []
            for _ in range(50):
                started = time.monotonic()
                assert "actions" in ask(other, OBSERVATION)
                times.append(time.monotonic() - started)
        assert sorted(times)[25] < 0.5
        stuck.socket.close()


def test_pages_of_other_sites_are_kept_out(server: PolicyServer) -> None:
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(f"ws://127.0.0.1:{server.port}", origin="http://evil.example"),
    ):  # pyright: ignore[reportArgumentType]
        pass
    assert refused.value.response.status_code == 403


def test_http_pages(server: PolicyServer) -> None:
    with connected(server) as robot:
        assert "actions" in ask(robot, OBSERVATION)
        assert "expected a map" in ask(robot, b"\x01")
    assert eventually(lambda: server.metrics.outcomes.get("refused", 0) > 0)
    status, text = get(server, "/metrics")
    assert status == 200
    for name in (
        'lfm_requests_total{outcome="ok"}',
        'lfm_requests_total{outcome="refused"}',
        "lfm_chunks_total",
        "lfm_request_seconds_bucket",
        "lfm_inference_seconds_sum",
        "lfm_batch_rows_count",
        "lfm_connections",
    ):
        assert name in text
    page = json.loads(get(server, "/status.json")[1])
    assert page["server"]["contract"]["environment"] == "PointMass"
    assert sum(page["latency_ms"]["counts"]) == page["latency_ms"]["count"] > 0
    assert len(page["chunks"][0]["chunk"]) == HORIZON
    assert get(server, "/nothing")[0] == 404
    assert get(server, "/healthz?x=1") == (200, "OK\n")


def test_post_is_not_allowed(server: PolicyServer) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/status.json", method="POST", data=b"")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=5)
    refused.value.close()
    assert refused.value.code == 405


def test_stopping_finishes_requests_under_way_and_says_goodbye() -> None:
    policy = Held()
    with served(policy) as server, connected(server) as idle, connected(server) as busy:
        replies: list[Any] = []
        asking = threading.Thread(target=lambda: replies.append(ask(busy, OBSERVATION)))
        asking.start()
        assert policy.entered.acquire(timeout=5)
        port = server.port
        server.stop()  # pyright: ignore[reportAttributeAccessIssue]
        assert close_code(idle) == 1001
        with pytest.raises(OSError, match="refused"), connect(f"ws://127.0.0.1:{port}"):
            pass
        policy.go_on.release()
        asking.join(5)
        assert "actions" in replies[0]
        assert close_code(busy) == 1001


def test_stopping_does_not_wait_for_ever() -> None:
    policy = Held()
    with served(policy, grace_s=0.1) as server, connected(server) as busy:
        replies: list[Any] = []
        asking = threading.Thread(target=lambda: replies.append(ask(busy, OBSERVATION)))
        asking.start()
        assert policy.entered.acquire(timeout=5)
        server.stop()  # pyright: ignore[reportAttributeAccessIssue]
        asking.join(1)
        policy.go_on.release()
        asking.join(5)
        assert replies == ["the server stops"]
