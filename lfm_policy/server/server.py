"""The policy server: openpi's websocket protocol, one handler per client, the policy in a thread of its own.

On connect the server sends its metadata, contract included. Every message is answered by one frame: the actions, or a
text that says what is wrong, after which the connection is closed, with code 1011 for a bad request, 1013 where a
limit was reached and 1009 for a message that is too long. Other clients do not notice.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.server import ServerProtocol

from lfm_policy.contract import Contract
from lfm_policy.errors import LFMError, ServingError, shown
from lfm_policy.server import wire
from lfm_policy.server.admission import Admission
from lfm_policy.server.batching import Batcher, Prediction
from lfm_policy.server.connection import RobotConnection
from lfm_policy.server.door import Door
from lfm_policy.server.journal import Journal
from lfm_policy.server.limits import ApiKeys, LimitError, Rate, ServerOptions, message_limit
from lfm_policy.server.metrics import Metrics
from lfm_policy.server.observations import Names
from lfm_policy.server.pages import Pages, refuse
from lfm_policy.server.requests import Forget, Infer, Match, Reset, Terms, parse
from lfm_policy.server.served import Served, metadata
from lfm_policy.server.sessions import Session, SessionPool, Sessions

log = logging.getLogger("lfm_policy.server")
_quiet = logging.getLogger("lfm_policy.server.websockets")
_quiet.setLevel(logging.CRITICAL)  # port scanners and broken clients would fill the log with tracebacks

BAD_REQUEST, TRY_LATER, GOING_AWAY = 1011, 1013, 1001
"""Close codes of RFC 6455; openpi's server uses 1011 for every error."""
_SEND_S = 10.0
"""Longest time for a client to take a reply [s]."""
_LONGEST_TEXT = 2000
_PINGS_HZ = 50.0
"""Small frames that a client may send beside its requests [1/s]."""
_QUEUE = 2
"""Frames of one client that wait to be read."""
_MOST_TOLD = 20
"""Ignored entries of its messages that a client is told."""


@dataclass
class _Client:
    """One connection's state."""

    key: int
    sessions: Sessions
    rate: Rate
    previous_ms: float | None = None
    told: set[str] = field(default_factory=set)
    """Entries of its messages of which it knows that they are ignored."""


class PolicyServer:
    """Serves one policy. Use it as an async context manager: it listens inside, and stops with grace on exit.

    Args:
        served: the policy and what it is called.
        options: where to listen and what to allow.
        keys: who may connect.
    """

    def __init__(
        self,
        served: Served,
        options: ServerOptions | None = None,
        keys: ApiKeys | None = None,
        names: Names | None = None,
    ) -> None:
        self.served, self.options, self.keys = served, options or ServerOptions(), keys or ApiKeys()
        policy, allowed = served.policy, self.options
        self.max_message_bytes = allowed.max_message_bytes or message_limit(policy, allowed.max_batch)
        self.metrics = Metrics(policy.action_steps)
        self.metadata = metadata(served, allowed, self.max_message_bytes)
        self._greeting = wire.pack(self.metadata)
        self._terms = Terms(policy, names or Names(policy.contract), allowed.max_batch)
        self._pages = Pages(self.metadata, self.metrics)
        self._sessions = SessionPool(allowed.max_sessions, allowed.max_clients, allowed.idle_s)
        self._admission = Admission(allowed.max_clients, allowed.max_clients_per_address, allowed.idle_s)
        self._journal = Journal(log)
        self._connections: set[RobotConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._numbers = iter(range(2**63))

    async def __aenter__(self) -> "PolicyServer":
        batcher = Batcher(self.served.policy, self.options.max_batch, self._journal.fault)
        self._batcher = await batcher.__aenter__()
        try:
            self._server: Server = await serve(
                self._converse,
                self.options.host,
                self.options.port,
                process_request=self._http,
                logger=_quiet,
                create_connection=self._connection,  # pyright: ignore[reportArgumentType]
            )
            self._door = Door([bound.dup() for bound in self._server.sockets], self._let_in)
            for bound in self._server.sockets:
                asyncio.get_running_loop().remove_reader(bound)  # asyncio would take a hundred in one turn
            self._door.open()
        except BaseException:
            await self._batcher.__aexit__()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        """Refuse new clients, end idle connections, wait for requests under way, then close what is left."""
        self._stopping = True
        self._door.close()
        self._server.close(close_connections=False)
        self._admission.turn_away()
        await self._close([connection for connection in self._connections if not _is_busy(connection)])
        deadline = time.monotonic() + self.options.grace_s
        while self._connections and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await self._batcher.__aexit__()
        await self._close(list(self._connections))
        await self._server.wait_closed()
        self._journal.flush()

    def _let_in(self, accepted: socket.socket) -> None:
        """Serve a connection that the door has taken from the system."""
        self._start(self._shake_hands(accepted))

    async def _shake_hands(self, accepted: socket.socket) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(self._connection, accepted)

    def _connection(self, *_: object, **__: object) -> RobotConnection:
        """Return the protocol of a new connection, whatever the library would have taken for it."""
        return RobotConnection(
            ServerProtocol(
                origins=[None],  # no page of another site may use the visitor's browser as a client
                max_size=self.max_message_bytes,
                logger=_quiet,
            ),
            self._server,
            ping_interval=self.options.ping_s,
            ping_timeout=self.options.ping_s,
            close_timeout=2,
            max_queue=_QUEUE,
            admission=self._admission,
            small_hz=2 * self.options.rate_hz + _PINGS_HZ,
            advice=_advice(self.served.policy.contract),
        )

    async def _close(self, connections: list[RobotConnection]) -> None:
        await asyncio.gather(*(connection.close(GOING_AWAY, "the server stops") for connection in connections))

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.sockets[0].getsockname()[1]

    def _http(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """Answer what is not a websocket, and keep out who may not come in."""
        assert isinstance(connection, RobotConnection)
        response = self._admit(connection, request)
        if response is not None and response.status_code >= HTTPStatus.BAD_REQUEST:
            self.metrics.turned_away(response.status_code)
            reason = response.body.decode(errors="replace").strip()
            self._journal.note(_peer(connection), f"turned away ({response.status_code}): {reason}")
        return response

    def _admit(self, connection: RobotConnection, request: HttpRequest) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return self._pages.health(self._stopping)
        authorizations = request.headers.get_all("Authorization")
        if len(authorizations) > 1:
            return refuse(400, f"expected one Authorization header, found {len(authorizations)}\n")
        if not self.keys.allow(next(iter(authorizations), None)):
            return refuse(401, "this server needs a key: send the header 'Authorization: Api-Key <key>'\n")
        upgrades = ",".join(request.headers.get_all("Upgrade")).lower().split(",")
        if "websocket" not in [upgrade.strip() for upgrade in upgrades]:
            return self._pages.answer(request.method, path)
        if self._stopping:
            return refuse(503, "this server stops: try again later\n")
        try:
            connection.place = place = self._admission.enter(_peer(connection).rpartition(":")[0])
        except LimitError as error:
            return refuse(503, f"{error}\n")
        self._admission.settle(connection.transport)
        place.give_up = lambda reason: self._start(self._refuse(connection, LimitError(reason)))
        return None

    def _start(self, action: Coroutine[Any, Any, None]) -> None:
        """Do something beside the rest."""
        task = asyncio.get_running_loop().create_task(action)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, connection: ServerConnection) -> None:
        """Serve one connection from beginning to end."""
        assert isinstance(connection, RobotConnection)
        client = _Client(
            next(self._numbers),
            Sessions(self.served.policy, self._sessions),
            Rate(self.options.rate_hz, self.options.max_batch),
        )
        self._connections.add(connection)
        self.metrics.connected(client.key, _peer(connection))
        try:
            await self._send(connection, self._greeting)
            while not self._stopping:
                await self._answer(client, connection, await self._receive(connection))
            await self._close([connection])
        except ConnectionClosed as closed:
            self._left(connection, closed)
        except TimeoutError:
            await connection.close(GOING_AWAY, "not reading for too long")
        except LFMError as error:
            await self._refuse(connection, error)
        except Exception as error:
            self._journal.fault(f"a fault of this server, at a message of {_peer(connection)}", error)
            await self._refuse(connection, ServingError("a fault of the server, whose log says more"))
        finally:
            self._connections.discard(connection)
            client.sessions.close()
            self.metrics.sessions(self._sessions.taken)
            self.metrics.disconnected(client.key)

    async def _receive(self, connection: RobotConnection) -> bytes:
        _set_busy(connection, False)
        message = await connection.recv()
        _set_busy(connection, True)
        if isinstance(message, str):
            raise ServingError("expected a binary frame of msgpack, found text")
        return message

    async def _send(self, connection: ServerConnection, message: bytes | str) -> None:
        async with asyncio.timeout(_SEND_S):
            await connection.send(message)

    async def _refuse(self, connection: RobotConnection, error: LFMError) -> None:
        limited = isinstance(error, LimitError)
        self.metrics.answered("limited" if limited else "refused")
        self._journal.note(_peer(connection), f"refused: {error}")
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            await self._send(connection, str(error)[:_LONGEST_TEXT])
            reason = "limit reached" if limited else "bad request"
            await connection.close(TRY_LATER if limited else BAD_REQUEST, f"{reason}: see the text frame before")

    def _left(self, connection: RobotConnection, closed: ConnectionClosed) -> None:
        """Note why a connection has ended, where the client did not just leave."""
        if connection.offence is not None:
            self.metrics.answered("refused")
            self._journal.note(_peer(connection), f"cut off: {connection.offence}")
        elif closed.sent is not None and closed.rcvd is None and closed.sent.code == BAD_REQUEST:
            self._journal.note(_peer(connection), f"dropped: no answer to a ping within {self.options.ping_s:g} s")

    async def _answer(self, client: _Client, connection: RobotConnection, message: bytes) -> None:
        arrived = time.monotonic()
        request = parse(message, self._terms)
        client.rate.take(len(request.queries) if isinstance(request, Infer) else 1)
        if connection.place is not None:
            self._admission.asked(connection.place)
        match request:
            case Infer():
                reply = await self._infer(client, request, arrived)
                reply |= self._note(client, connection, request)
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
        sessions = [client.sessions.of(query) for query in request.queries]
        noise = [
            session.horizon.noise if query.noise is None else query.noise
            for session, query in zip(sessions, request.queries, strict=True)
        ]
        histories = np.stack([session.horizon.history for session in sessions])
        frames = [query.frames for query in request.queries if query.frames is not None]
        pictures = np.stack(frames) if frames else None
        prediction = await self._batcher.predict(histories, np.stack(noise), pictures, request.alone)
        parts = [self._part(session, chunk) for session, chunk in zip(sessions, prediction.chunks, strict=True)]
        self.metrics.predicted(client.key, prediction, time.monotonic() - arrived)
        if pictures is not None:
            self.metrics.saw(client.key, pictures[-1])
        return {
            **({"batch": parts} if request.batched else parts[0]),
            "nfe": prediction.nfe,
            "server_timing": _timing(prediction, client.previous_ms),
        }

    def _note(self, client: _Client, connection: RobotConnection, request: Infer) -> dict[str, str]:
        """Tell a client, once, what of its messages is ignored."""
        names = {name for query in request.queries for name in query.ignored} - client.told
        if not names or len(client.told) >= _MOST_TOLD:
            return {}
        client.told |= names
        note = f"not observed by this policy, and ignored: {', '.join(map(shown, sorted(names)[:_MOST_TOLD]))}"
        self._journal.note(_peer(connection), note)
        return {"note": note}

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


def _set_busy(connection: RobotConnection, busy: bool) -> None:
    if connection.place is not None:
        connection.place.busy = busy


def _is_busy(connection: RobotConnection) -> bool:
    return connection.place is not None and connection.place.busy


def _advice(contract: Contract) -> str:
    """Say what to send to a client whose message is too long."""
    if contract.cameras:
        return "send the newest uint8 picture of each camera, and ask for fewer chunks at once"
    return "this policy observes no pictures: send arrays of the contract's observations only, or ask for fewer chunks"
