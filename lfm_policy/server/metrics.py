"""What a server counts: Prometheus metrics, and the recent past for the status page."""

import base64
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from lfm_policy.server.batching import Prediction

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_RECENT, _CHUNKS, _WINDOW_S = 2000, 6, 10.0
_SIDE = 128
"""Largest height and width of pictures on the status page; of larger ones it gets every second row, third row, …"""
_EDGES_MS = np.array([0, *np.geomspace(0.5, 2000, 25)])
"""Bins of the page's histogram [ms]; the last takes everything above."""


@dataclass
class ClientRecord:
    """What is known of one connection."""

    peer: str
    since: float = field(default_factory=time.monotonic)
    chunks: int = 0
    times: "deque[float]" = field(default_factory=lambda: deque(maxlen=256))
    """When its last chunks were sent [s]."""
    last_ms: float = 0.0


class Metrics:
    """Counters of one server. Everything is called from its event loop."""

    def __init__(self, action_steps: int) -> None:
        self._action_steps, self._started = action_steps, time.monotonic()
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter("lfm_requests", "Messages answered, by outcome", ["outcome"], registry=registry)
        self._away = Counter("lfm_turned_away", "Connections refused before they began", ["status"], registry=registry)
        self._chunk_count = Counter("lfm_chunks", "Action chunks predicted", registry=registry)
        self._connections = Gauge("lfm_connections", "Robots connected", registry=registry)
        self._sessions = Gauge("lfm_sessions", "Sessions open", registry=registry)
        self._request_s, self._queue_s, self._infer_s = (
            Histogram(f"lfm_{name}_seconds", text, buckets=_SECONDS, registry=registry)
            for name, text in (
                ("request", "From a message's arrival to its reply"),
                ("queue", "Waiting for the policy"),
                ("inference", "The policy call that a request was part of"),
            )
        )
        self._rows = Histogram(
            "lfm_batch_rows",
            "Histories in the policy call that a request was part of",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.clients: dict[int, ClientRecord] = {}
        self.outcomes: dict[str, int] = {}
        self._latency_ms: deque[float] = deque(maxlen=_RECENT)
        self._sent: deque[float] = deque(maxlen=_RECENT)
        self._last: deque[dict[str, Any]] = deque(maxlen=_CHUNKS)
        self._seen: tuple[str, float, np.ndarray] | None = None
        """Who sent the last pictures, when, and the pictures (cameras, height, width, 3)."""

    def connected(self, key: int, peer: str) -> None:
        """Note that a client has been let in."""
        self.clients[key] = ClientRecord(peer)
        self._connections.set(len(self.clients))

    def disconnected(self, key: int) -> None:
        """Note that a client is gone."""
        self.clients.pop(key, None)
        self._connections.set(len(self.clients))

    def sessions(self, count: int) -> None:
        """Note that `count` sessions are open now."""
        self._sessions.set(count)

    def answered(self, outcome: str) -> None:
        """Note that a message was answered: "ok", "refused", "limited" or "failed"."""
        self._requests.labels(outcome).inc()
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def turned_away(self, status: int) -> None:
        """Note that a connection was refused with an HTTP status."""
        self._away.labels(str(status)).inc()

    def predicted(self, key: int, prediction: Prediction, seconds: float) -> None:
        """Note that a client's chunks were predicted, `seconds` after its message had arrived."""
        now, client = time.monotonic(), self.clients[key]
        count = len(prediction.chunks)
        self._chunk_count.inc(count)
        self._request_s.observe(seconds)
        self._queue_s.observe(prediction.queue_s)
        self._infer_s.observe(prediction.infer_s)
        self._rows.observe(prediction.batch)
        self._latency_ms.append(1000 * seconds)
        self._sent.extend([now] * count)
        client.chunks += count
        client.times.extend([now] * count)
        client.last_ms = 1000 * seconds
        chunk = np.round(prediction.chunks[0].astype(float), 5).tolist()
        self._last.append({"at": now, "peer": client.peer, "batch": prediction.batch, "chunk": chunk})

    def saw(self, key: int, pictures: np.ndarray) -> None:
        """Note a client's newest pictures, uint8 (cameras, height, width, 3)."""
        self._seen = self.clients[key].peer, time.monotonic(), pictures

    def pictures(self) -> dict[str, Any]:
        """Return the last pictures that were acted on, small, as plain JSON values; rows of RGB bytes in base64."""
        if self._seen is None:
            return {}
        peer, at, pictures = self._seen
        every = -(-max(pictures.shape[1:3]) // _SIDE)
        small = np.ascontiguousarray(pictures[:, ::every, ::every])
        rows = [base64.b64encode(picture).decode() for picture in small]
        shape = {"height": small.shape[1], "width": small.shape[2]}
        return {"peer": peer, "at": round(time.monotonic() - at, 2), **shape, "rgb": rows}

    def prometheus(self) -> bytes:
        """Write the text format that Prometheus scrapes."""
        return generate_latest(self.registry)

    def snapshot(self) -> dict[str, Any]:
        """Return the recent past as plain JSON values: times in seconds before now, latencies in milliseconds."""
        now, latency = time.monotonic(), np.array(self._latency_ms)
        counts = np.histogram(np.minimum(latency, _EDGES_MS[-1]), _EDGES_MS)[0] if latency.size else np.zeros(25, int)
        quantiles = np.percentile(latency, (50, 95, 99, 100)) if latency.size else np.full(4, np.nan)
        names = ("p50", "p95", "p99", "max")
        return {
            "uptime_s": round(now - self._started, 1),
            "requests": dict(self.outcomes),
            "chunks_per_s": round(_rate(self._sent, now), 2),
            "actions_per_s": round(_rate(self._sent, now) * self._action_steps, 1),
            "latency_ms": {
                "count": int(latency.size),
                **{name: _number(value) for name, value in zip(names, quantiles, strict=True)},
                "edges": np.round(_EDGES_MS, 3).tolist(),
                "counts": counts.tolist(),
            },
            "holds_hz": _number(1000 * self._action_steps / quantiles[2]),
            "clients": [self._client(record, now) for record in self.clients.values()],
            "chunks": [{**chunk, "at": round(now - chunk["at"], 2)} for chunk in reversed(self._last)],
        }

    def _client(self, record: ClientRecord, now: float) -> dict[str, Any]:
        return {
            "peer": record.peer,
            "connected_s": round(now - record.since, 1),
            "chunks": record.chunks,
            "actions_per_s": round(_rate(record.times, now) * self._action_steps, 1),
            "last_ms": round(record.last_ms, 2),
        }


def _rate(times: "deque[float]", now: float) -> float:
    """Return events per second over the last _WINDOW_S seconds, or over what `times` still holds of them."""
    recent = [at for at in times if now - at <= _WINDOW_S]
    if len(recent) == times.maxlen:
        return len(recent) / max(now - recent[0], 1e-9)
    return len(recent) / _WINDOW_S


def _number(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None
