"""The server's HTTP side: health, Prometheus metrics, and a status page that needs nothing from elsewhere."""

import json
import math
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from websockets.datastructures import Headers
from websockets.http11 import Response

from lfm_policy.errors import shown
from lfm_policy.server.metrics import Metrics

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


_FRESH_S = 0.2
"""Age up to which a page is sent again as it is, however often it is asked for [s]."""


class Pages:
    """Answers GET requests.

    Args:
        metadata: what the server tells every client.
        metrics: what it counts.
    """

    def __init__(self, metadata: Mapping[str, Any], metrics: Metrics) -> None:
        self._metadata, self._metrics = metadata, metrics
        self._made: dict[str, tuple[float, bytes]] = {}
        self._page = files("lfm_policy.server").joinpath("status.html").read_bytes()

    def health(self, stopping: bool) -> Response:
        """Answer 200 while the server takes requests, 503 when it stops."""
        return refuse(503, "stopping\n") if stopping else _respond(200, "text/plain", b"OK\n")

    def answer(self, method: str, path: str) -> Response:
        """Return the page of a path."""
        if method != "GET":
            return refuse(405, f"expected GET, found {shown(method, 20)}\n")
        match path:
            case "/":
                return _respond(200, "text/html", self._page)
            case "/metrics":
                return _respond(200, "text/plain; version=0.0.4", self._fresh(path, self._metrics.prometheus))
            case "/status.json":
                return _respond(200, "application/json", self._fresh(path, self._status))
            case "/pictures.json":
                return _respond(200, "application/json", self._fresh(path, self._pictures))
            case _:
                return refuse(404, "expected /, /status.json, /pictures.json, /metrics, /healthz, or a websocket\n")

    def _status(self) -> bytes:
        return json.dumps({"server": self._metadata, **self._metrics.snapshot()}).encode()

    def _pictures(self) -> bytes:
        return json.dumps(self._metrics.pictures()).encode()

    def _fresh(self, path: str, make: Callable[[], bytes]) -> bytes:
        at, page = self._made.get(path, (-math.inf, b""))
        if time.monotonic() - at >= _FRESH_S:
            page = make()
            self._made[path] = time.monotonic(), page
        return page


def refuse(status: int, text: str) -> Response:
    """Answer with an error in plain text."""
    return _respond(status, "text/plain", text.encode())


def _respond(status: int, kind: str, body: bytes) -> Response:
    headers = Headers()
    charset = "" if "json" in kind else "; charset=utf-8"
    headers["Content-Type"] = kind + charset
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    headers["Cache-Control"] = "no-store"
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Content-Security-Policy"] = _POLICY
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Basic realm="API key as the password"'
    return Response(status, HTTPStatus(status).phrase, headers, body)
