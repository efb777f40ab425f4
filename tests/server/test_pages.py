"""The server's pages over plain HTTP: health, counts, and what is refused."""

import json
import socket
import urllib.error
import urllib.request

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lfm_policy.server.server import PolicyServer
from tests.rollout.scripted import HORIZON
from tests.server.served import OBSERVATION, ask, connected, eventually, get


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


def test_pages_of_other_sites_are_kept_out(server: PolicyServer) -> None:
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(f"ws://127.0.0.1:{server.port}", origin="http://evil.example"),
    ):  # pyright: ignore[reportArgumentType]
        pass
    assert refused.value.response.status_code == 403


def test_two_keys_are_one_too_many(server: PolicyServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
    assert get(server, "/", Upgrade="h2c")[0] == 200
