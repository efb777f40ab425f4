"""The policy server: openpi's websocket protocol, one handler a client, the policy in a thread of its own.

On connect the server sends its metadata, contract included. Every message is answered by one frame: the actions, or a
text that says what is wrong, after which the connection is closed, with code 1011 for a bad request and 1013 where a
limit was reached. Other clients do not notice.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from lfm_policy.errors import LFMError, ServingError
from lfm_policy.server import wire
from lfm_policy.server.batching import Batcher, Prediction
from lfm_policy.server.limits import ApiKeys, LimitError, Rate, ServerOptions, Slots
from lfm_policy.server.metrics import Metrics
from lfm_policy.server.pages import Pages, refuse
from lfm_policy.server.requests import Forget, Infer, Match, Reset, parse
from lfm_policy.server.served import Served, metadata
from lfm_policy.server.sessions import Session, Sessions

log = logging.getLogger("lfm_policy.server")

BAD_REQUEST, TRY_LATER, GOING_AWAY = 1011, 1013, 1001
"""Close codes of RFC 6455; openpi's server uses 1011 for every error."""
_SEND_S = 10.0
"""Longest time for a client to take a reply [s]."""
_LONGEST_TEXT = 2000


@dataclass
class _Client:
    """One connection's state."""

    key: int
    sessions: Sessions
    rate: Rate
    previous_ms: float | None = None


class PolicyServer:
    """Serves one policy. Use it as an async context manager: it listens inside, and stops with grace on exit.

    Args:
        served: the policy and what it is called.
        options: where to listen and what to allow.
        keys: who may connect.
    """

    def __init__(self, served: Served, options: ServerOptions | None = None, keys: ApiKeys | None = None) -> None:
        self.served, self.options, self.keys = served, options or ServerOptions(), keys or ApiKeys()
        self.metrics = Metrics(served.policy.action_steps)
        self.metadata = metadata(served, self.options)
        self._pages = Pages(self.metadata, self.metrics)
        self._sessions = Slots(self.options.max_sessions, "sessions")
        self._connections: dict[ServerConnection, bool] = {}
        self._stopping = False
        self._numbers = iter(range(2**63))

    async def __aenter__(self) -> "PolicyServer":
        self._batcher = await Batcher(self.served.policy, self.options.max_batch).__aenter__()
        quiet = logging.getLogger("lfm_policy.server.websockets")
        quiet.setLevel(logging.CRITICAL)  # port scanners and broken clients would fill the log with tracebacks
        try:
            self._server: Server = await serve(
                self._converse,
                self.options.host,
                self.options.port,
                compression=None,
                max_size=self.options.max_message_bytes,
                origins=[None],  # no page of another site may use the visitor's browser as a client
                process_request=self._http,
                close_timeout=2,
                logger=quiet,
            )
        except BaseException:
            await self._batcher.__aexit__()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        """Refuse new clients, end idle connections, wait for requests under way, then close what is left."""
        self._stopping = True
        self._server.close(close_connections=False)
        await self._close([connection for connection, busy in self._connections.items() if not busy])
        deadline = time.monotonic() + self.options.grace_s
        while self._connections and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await self._batcher.__aexit__()
        await self._close(list(self._connections))
        await self._server.wait_closed()

    async def _close(self, connections: list[ServerConnection]) -> None:
        await asyncio.gather(*(connection.close(GOING_AWAY, "the server stops") for connection in connections))

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.sockets[0].getsockname()[1]

    def _http(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """Answer what is not a websocket, and keep out who may not come in."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return self._pages.health(self._stopping)
        if not self.keys.allow(request.headers.get("Authorization")):
            return refuse(401, "this server needs a key: send the header 'Authorization: Api-Key <key>'\n")
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return self._pages.answer(request.method, path)
        if self._stopping or len(self._connections) >= self.options.max_clients:
            reason = "stops" if self._stopping else f"has its {self.options.max_clients} clients"
            return refuse(503, f"this server {reason}: try again later\n")
        return None

    async def _converse(self, connection: ServerConnection) -> None:
        """Life of one connection."""
        client = _Client(
            next(self._numbers),
            Sessions(self.served.policy, self._sessions, self.options.idle_s),
            Rate(self.options.rate_hz, self.options.max_batch),
        )
        self._connections[connection] = True
        self.metrics.connected(client.key, _peer(connection))
        try:
            await self._send(connection, wire.pack(self.metadata))
            while not self._stopping:
                await self._answer(client, connection, await self._receive(connection))
            await self._close([connection])
        except ConnectionClosed:
            log.debug("%s has left", _peer(connection))
        except TimeoutError:
            await connection.close(GOING_AWAY, "silent, or not reading, for too long")
        except LFMError as error:
            await self._refuse(connection, error)
        except Exception:
            log.exception("a fault of this server, at a message of %s", _peer(connection))
            await self._refuse(connection, ServingError("a fault of the server, whose log says more"))
        finally:
            del self._connections[connection]
            client.sessions.close()
            self.metrics.sessions(self._sessions.taken)
            self.metrics.disconnected(client.key)

    async def _receive(self, connection: ServerConnection) -> bytes:
        self._connections[connection] = False
        async with asyncio.timeout(self.options.idle_s):
            message = await connection.recv()
        self._connections[connection] = True
        if isinstance(message, str):
            raise ServingError("expected a binary frame of msgpack, found text")
        return message

    async def _send(self, connection: ServerConnection, message: bytes | str) -> None:
        async with asyncio.timeout(_SEND_S):
            await connection.send(message)

    async def _refuse(self, connection: ServerConnection, error: LFMError) -> None:
        limited = isinstance(error, LimitError)
        self.metrics.answered("limited" if limited else "refused")
        log.info("%s refused: %s", _peer(connection), error)
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            await self._send(connection, str(error)[:_LONGEST_TEXT])
            reason = "limit reached" if limited else "bad request"
            await connection.close(TRY_LATER if limited else BAD_REQUEST, f"{reason}: see the text frame before")

    async def _answer(self, client: _Client, connection: ServerConnection, message: bytes) -> None:
        arrived = time.monotonic()
        request = parse(wire.unpack(message), self.served.policy, self.options.max_batch)
        match request:
            case Infer():
                reply = await self._infer(client, request, arrived)
            case Reset(name, seed, chunks):
                reply = {"session": name, "seed": client.sessions.reset(name, seed, chunks).seed}
            case Forget(name):
                client.sessions.forget(name)
                reply = {"session": name}
            case Match(contract):
                self.served.policy.contract.require_match(contract, f"policy {self.served.name}", "the client")
                reply = {"match": True}
        self.metrics.sessions(self._sessions.taken)
        await self._send(connection, wire.pack(reply))
        client.previous_ms = 1000 * (time.monotonic() - arrived)
        self.metrics.answered("ok")

    async def _infer(self, client: _Client, request: Infer, arrived: float) -> dict[str, Any]:
        client.rate.take(len(request.queries))
        sessions = [client.sessions.of(query) for query in request.queries]
        noise = [
            session.horizon.noise if query.noise is None else query.noise
            for session, query in zip(sessions, request.queries, strict=True)
        ]
        histories = np.stack([session.horizon.history for session in sessions])
        prediction = await self._batcher.predict(histories, np.stack(noise), request.alone)
        parts = [self._part(session, chunk) for session, chunk in zip(sessions, prediction.chunks, strict=True)]
        self.metrics.predicted(client.key, prediction, time.monotonic() - arrived)
        return {
            **({"batch": parts} if request.batched else parts[0]),
            "nfe": prediction.nfe,
            "server_timing": _timing(prediction, client.previous_ms),
        }

    def _part(self, session: Session, chunk: np.ndarray) -> dict[str, Any]:
        session.horizon.advance(chunk)
        now = self.served.policy.observation_steps - 1
        return {"actions": chunk[now:], "chunk": chunk, "seed": session.seed, "chunk_index": session.horizon.chunks - 1}


def _timing(prediction: Prediction, previous_ms: float | None) -> dict[str, float]:
    timing = {
        "infer_ms": 1000 * prediction.infer_s,
        "queue_ms": 1000 * prediction.queue_s,
        "batch": float(prediction.batch),
    }
    return timing if previous_ms is None else timing | {"prev_total_ms": previous_ms}


def _peer(connection: ServerConnection) -> str:
    host, port = (connection.remote_address or ("gone", 0))[:2]
    return f"{host}:{port}"
