"""Our client of a policy server: a `ChunkPolicy` whose inference happens elsewhere, and sessions for thin robots.

It reconnects by itself. Nothing is lost by that: a prediction is a function of what is sent, and a session is told to
the new connection again, history and noise included.
"""

import itertools
import math
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from lfm_policy.contract import Contract
from lfm_policy.errors import ServingError, one_line
from lfm_policy.protocols import ChunkBatch
from lfm_policy.server import requests, wire

T = TypeVar("T")

_PAUSE_S = 0.1
_LONGEST_REPLY = 2**24
"""Bytes that a server may send at once."""
_ITEM_BYTES, _MESSAGE_BYTES = 256, 1024
"""What an item of a batch, and a message, hold beside their numbers."""
_numbers = itertools.count()


class _Limits(BaseModel):
    """What the server allows; a server that does not say is taken at our defaults."""

    max_message_bytes: int = Field(default=2**16, ge=1024)
    max_batch: int = Field(default=32, ge=1)


class _Greeting(BaseModel):
    """What of the server's first frame the client relies on."""

    model_config = ConfigDict(frozen=True)

    policy: str
    digest: str
    observation_steps: int = Field(ge=1, le=10_000)
    action_steps: int = Field(ge=1, le=10_000)
    noise_shape: tuple[Annotated[int, Field(ge=1, le=100_000)], ...] = Field(min_length=1, max_length=8)
    limits: _Limits = _Limits()
    contract: Contract


@dataclass(frozen=True)
class Plan:
    """A chunk from a session."""

    actions: np.ndarray
    """(H, action_dim): from the latest observation's step on; the first Ta of them are meant to be executed."""
    chunk: np.ndarray
    """(T, action_dim): the whole prediction, which begins at the oldest observation of the history."""
    nfe: int
    timing: Mapping[str, float]
    """Server's side: "infer_ms", "queue_ms", "batch", "prev_total_ms"."""


class PolicyClient:
    """A policy behind a server. Implements `ChunkPolicy`, bit for bit the same as the policy itself on that machine.

    Not for several threads at once; give each its own.

    Args:
        uri: "ws://host:8000".
        api_key: where the server asks for one.
        contract: of the robot or environment; a server whose policy has another one is refused.
        timeout_s: longest wait for a reply [s].
        reconnect_s: how long to try again after a connection fails, or could not be made [s].
        proxy: "http://host:port" to go through. None: straight to the robot's network, whatever http_proxy says.

    Raises:
        ServingError: no policy server answers there, it refuses the key, or it says nothing of use about itself.
        ContractError: the policy's contract is not `contract`.

    Example:
        with PolicyClient("ws://localhost:8000", contract=environment.contract) as policy:
            session = policy.session(seed=0)
            plan = session.infer(contract.flatten(observation))
    """

    def __init__(
        self,
        uri: str,
        *,
        api_key: str | None = None,
        contract: Contract | None = None,
        timeout_s: float = 10.0,
        reconnect_s: float = 30.0,
        proxy: str | None = None,
    ) -> None:
        self.uri, self._timeout_s, self._reconnect_s = uri, timeout_s, reconnect_s
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self._expected, self._proxy = contract, proxy
        self._connection: ClientConnection | None = None
        self._closing = ExitStack()
        self.metadata: dict[str, Any] = {}
        self._retry(lambda connection: None)

    def __enter__(self) -> "PolicyClient":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def contract(self) -> Contract:
        """What the policy's observations and actions mean."""
        return self._greeting.contract

    @property
    def observation_steps(self) -> int:
        """To."""
        return self._greeting.observation_steps

    @property
    def action_steps(self) -> int:
        """Ta."""
        return self._greeting.action_steps

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one chunk."""
        return self._greeting.noise_shape

    def digest(self) -> str:
        """Hash of all that decides what the policy does."""
        return self._greeting.digest

    def predict(self, histories: np.ndarray, noise: np.ndarray, frames: np.ndarray | None = None) -> ChunkBatch:
        """See `ChunkPolicy`: histories (B, To, D), noise (B, *noise_shape), frames (B, cameras, H, W, 3).

        More than the server allows at once are asked for in several requests.

        Raises:
            ServingError: the server refuses them, or does not answer any more.
        """
        if not len(histories):
            return ChunkBatch(np.zeros((0, self.noise_shape[0], self.contract.action_dim), np.float32), 0)
        count = self._most_items()
        pieces = [slice(first, first + count) for first in range(0, len(histories), count)]
        parts = [
            self._predict(histories[piece], noise[piece], None if frames is None else frames[piece]) for piece in pieces
        ]
        return ChunkBatch(np.concatenate([part.actions for part in parts]), parts[0].nfe)

    def _predict(self, histories: np.ndarray, noise: np.ndarray, frames: np.ndarray | None = None) -> ChunkBatch:
        items = [
            {requests.STATE: history, requests.NOISE: draw, **self._pictures(None if frames is None else frames[item])}
            for item, (history, draw) in enumerate(zip(histories, noise, strict=True))
        ]
        message = {requests.BATCH: items, requests.ALONE: True}
        reply = self._retry(lambda connection: self._ask(connection, message))
        parts = reply.get("batch")
        if not isinstance(parts, list) or len(parts) != len(items):
            raise ServingError(f"the server at {self.uri} answers {len(items)} requests without a list of as many")
        return ChunkBatch(np.stack([self._chunk(part) for part in parts]), self._nfe(reply))

    def _pictures(self, frames: np.ndarray | None) -> dict[str, np.ndarray]:
        """Return the pictures (cameras, height, width, 3) of one observation under their cameras' names."""
        return {} if frames is None else {c.key: f for c, f in zip(self.contract.cameras, frames, strict=True)}

    def _most_items(self) -> int:
        """Return how many items of a batch fit the server's limits."""
        limits = self._greeting.limits
        numbers = self.observation_steps * self.contract.observation_dim + math.prod(self.noise_shape)
        pictures = math.prod(self.contract.frames_shape or (0,))
        fitting = (limits.max_message_bytes - _MESSAGE_BYTES) // (4 * numbers + pictures + _ITEM_BYTES)
        return max(1, min(limits.max_batch, fitting))

    def _chunk(self, part: Any) -> np.ndarray:
        """Read the chunk in a reply: finite, (T, action_dim)."""
        chunk = part.get("chunk") if isinstance(part, dict) else None
        expected = self.noise_shape[0], self.contract.action_dim
        if not isinstance(chunk, np.ndarray) or chunk.shape != expected or chunk.dtype.kind != "f":
            found = f"{chunk.dtype} of shape {chunk.shape}" if isinstance(chunk, np.ndarray) else type(chunk).__name__
            raise ServingError(f"the server at {self.uri} answers with a chunk that is {found}, expected {expected}")
        if not np.isfinite(chunk).all():
            raise ServingError(f"the server at {self.uri} answers with a chunk that holds NaN or infinity")
        return chunk

    def _nfe(self, reply: Mapping[str, Any]) -> int:
        nfe = reply.get("nfe")
        if not isinstance(nfe, int):
            raise ServingError(f"the server at {self.uri} answers without 'nfe', the evaluations that a chunk took")
        return nfe

    def session(self, seed: int) -> "ClientSession":
        """Make an episode whose history and noise the server keeps, the noise of `RecedingHorizon(policy, seed)`."""
        return ClientSession(self, seed)

    def close(self) -> None:
        """Leave the server."""
        self._connection = None
        self._closing.close()

    def _retry(self, action: Callable[[ClientConnection], T]) -> T:
        """Do something with an open connection; connect again, and do it again, where that fails."""
        deadline = time.monotonic() + self._reconnect_s
        while True:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                return action(self._connection)
            except (ConnectionClosed, OSError, EOFError, _TryAgain) as error:
                self.close()
                if time.monotonic() + _PAUSE_S > deadline:
                    raise ServingError(
                        f"no answer from the policy server at {self.uri} within {self._reconnect_s:g} s "
                        f"({type(error).__name__}: {error}): is lfm serve running there?"
                    ) from None
                time.sleep(_PAUSE_S)
            except Exception:
                self.close()
                raise

    def _connect(self) -> ClientConnection:
        try:
            opening = connect(
                self.uri,
                compression=None,
                max_size=_LONGEST_REPLY,
                proxy=self._proxy,
                additional_headers=self._headers,
                open_timeout=self._timeout_s,
                close_timeout=1,
            )
            connection = self._closing.enter_context(opening)
        except InvalidStatus as error:
            reason = one_line((error.response.body or b"").decode(errors="replace").strip())
            raised = _TryAgain if error.response.status_code == 503 else ServingError
            raise raised(f"{self.uri} refuses the connection ({error.response.status_code}): {reason}") from None
        except ssl.SSLError as error:
            raise ServingError(
                f"no encrypted connection to {self.uri} ({error}): expected ws:// where the server has no certificate, "
                "and wss:// with one that this machine trusts"
            ) from None
        except (InvalidURI, InvalidHandshake, ValueError) as error:
            raise ServingError(f"{self.uri} is no policy server: expected ws://HOST:PORT ({error})") from None
        self._greet(wire.unpack(_binary(connection.recv(self._timeout_s)), wire.REPLY))
        return connection

    def _greet(self, metadata: Any) -> None:
        """Take the server's metadata; a reconnection must find the same policy."""
        try:
            greeting = _Greeting.model_validate(metadata)
        except ValidationError as error:
            row = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in row["loc"]) or "the whole"
            raise ServingError(
                f"the server at {self.uri} does not greet as a policy server of this kind does: {where}: {row['msg']} "
                "(expected lfm serve; is another server, or another version, running there?)"
            ) from None
        if greeting.observation_steps - 1 + greeting.action_steps > greeting.noise_shape[0]:
            raise ServingError(
                f"the server at {self.uri} says that {greeting.action_steps} actions of a chunk of "
                f"{greeting.noise_shape[0]} are executed after {greeting.observation_steps} observations: that many "
                "are not there"
            )
        if self._expected is not None:
            greeting.contract.require_match(self._expected, f"policy {greeting.policy} at {self.uri}", "the client")
        if self.metadata and greeting.digest != self.digest():
            raise ServingError(
                f"the server at {self.uri} now serves {greeting.policy} ({greeting.digest}), "
                f"expected {self._greeting.policy} ({self.digest()}): make a new client for it"
            )
        self.metadata, self._greeting = metadata, greeting

    def _ask(self, connection: ClientConnection, message: Mapping[str, Any]) -> dict[str, Any]:
        connection.send(wire.pack(message))
        reply = wire.unpack(_binary(connection.recv(self._timeout_s)), wire.REPLY)
        if not isinstance(reply, dict):
            raise ServingError(f"the server at {self.uri} answers with {type(reply).__name__}, expected a map")
        return reply


class ClientSession:
    """One episode on the server; made by `PolicyClient.session`."""

    def __init__(self, client: PolicyClient, seed: int) -> None:
        self._client, self._name = client, f"session-{next(_numbers)}"
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Forget the episode and begin the one of `seed` (>= 0)."""
        self.seed, self.chunks = seed, 0
        self._known_to: ClientConnection | None = None
        self._rows: deque[np.ndarray] = deque(maxlen=self._client.observation_steps)
        self._frames: np.ndarray | None = None
        self._new = 0

    def observe(self, observations: np.ndarray, frames: np.ndarray | None = None) -> None:
        """Note observations (D,) or (k, D), oldest first; they are sent when a chunk is wanted.

        Args:
            observations: flattened.
            frames: the newest pictures, uint8 (cameras, height, width, 3); None keeps those before.
        """
        self._frames = self._frames if frames is None else frames
        rows = np.atleast_2d(observations)
        self._rows.extend(rows)
        self._new = min(self._new + len(rows), len(self._rows))

    def infer(self, observations: np.ndarray, frames: np.ndarray | None = None) -> Plan:
        """Note observations (D,) or (k, D), and pictures as in `observe`, and get the next chunk.

        Raises:
            ServingError: the server refuses them, or does not answer any more.
        """
        self.observe(observations, frames)
        reply = self._client._retry(self._continue)
        chunk, nfe = self._client._chunk(reply), self._client._nfe(reply)
        timing = reply.get("server_timing")
        self._new, self.chunks = 0, self.chunks + 1
        actions = chunk[self._client.observation_steps - 1 :]
        return Plan(actions, chunk, nfe, timing if isinstance(timing, dict) else {})

    def close(self) -> None:
        """Let the server forget the episode; it does so by itself when the client leaves."""
        connection = self._client._connection
        if connection is not None and connection is self._known_to:
            message = {requests.REQUEST: "forget", requests.SESSION: self._name}
            self._client._retry(lambda connection: self._client._ask(connection, message))
        self._known_to = None

    def _continue(self, connection: ClientConnection) -> dict[str, Any]:
        name, ask = self._name, self._client._ask
        if self._known_to is not connection:
            reset = {requests.REQUEST: "reset", requests.SESSION: name}
            ask(connection, reset | {requests.SEED: self.seed, requests.CHUNKS: self.chunks})
            self._known_to, self._new = connection, len(self._rows)
        rows = np.stack(list(self._rows)[-self._new :]).astype(np.float32)
        pictures = self._client._pictures(self._frames)
        return ask(connection, {requests.SESSION: name, requests.STATE: rows, **pictures})


class _TryAgain(Exception):
    """The server is there, and has no room now."""


def _binary(frame: str | bytes) -> bytes:
    if isinstance(frame, str):
        raise ServingError(f"the policy server answers: {frame:.2000}")
    return frame
