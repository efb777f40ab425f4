"""The server as clients see it: openpi's own client, the contract, keys, and the end."""

import threading
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from lfm_envs.point_mass import CONTRACT, PointMass
from lfm_policy.server.requests import REQUEST, SESSION
from lfm_policy.server.server import PolicyServer
from tests.rollout.scripted import ACTION_STEPS, HORIZON, OBSERVATION_STEPS, Straight
from tests.server.served import OBSERVATION, STATE, Held, ask, close_code, connected, get, served

# openpi-client 0.1.2 calls websockets' connect() in a way that 17.1 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")


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


def test_the_contract_is_compared_both_sides_named(server: PolicyServer) -> None:
    ours = CONTRACT.model_dump(mode="json")
    with connected(server) as robot:
        assert ask(robot, {REQUEST: "contract", "__contract__": ours}) == {"match": True}
        error = ask(robot, {REQUEST: "contract", "__contract__": ours | {"control_hz": 10.0}})
        assert "control_hz: policy straight has 20.0, the client has 10.0" in error
        assert close_code(robot) == 1011


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
