"""Our client of a policy server: a `ChunkPolicy` whose inference happens elsewhere, and sessions for thin robots.

It reconnects by itself. Nothing is lost by that: a prediction is a function of what is sent, and a session is told to
the new connection again, history and noise included.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from lfm_policy.contract import Contract
from lfm_policy.errors import ServingError
from lfm_policy.protocols import ChunkBatch
from lfm_policy.server import requests, wire

T = TypeVar("T")

_PAUSE_S = 0.1
_numbers = itertools.count()


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

    Raises:
        ServingError: no policy server answers there, or it refuses the key.
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
    ) -> None:
        self.uri, self._timeout_s, self._reconnect_s = uri, timeout_s, reconnect_s
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self._expected = contract
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
        return self._contract

    @property
    def observation_steps(self) -> int:
        """To."""
        return self.metadata["observation_steps"]

    @property
    def action_steps(self) -> int:
        """Ta."""
        return self.metadata["action_steps"]

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one chunk."""
        return tuple(self.metadata["noise_shape"])

    def digest(self) -> str:
        """Hash of all that decides what the policy does."""
        return self.metadata["digest"]

    def predict(self, histories: np.ndarray, noise: np.ndarray) -> ChunkBatch:
        """`ChunkPolicy`: histories (B, To, D) and noise (B, *noise_shape) as float32 arrays; see protocols.py.

        Raises:
            ServingError: the server refuses them, or does not answer any more.
        """
        items = [
            {requests.STATE: history, requests.NOISE: draw} for history, draw in zip(histories, noise, strict=True)
        ]
        message = {requests.BATCH: items, requests.ALONE: True}
        reply = self._retry(lambda connection: self._ask(connection, message))
        return ChunkBatch(np.stack([part["chunk"] for part in reply["batch"]]), reply["nfe"])

    def session(self, seed: int) -> "ClientSession":
        """An episode whose history and noise the server keeps; the noise is that of `RecedingHorizon(policy, seed)`."""
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
                        f"({type(error).__name__}: {error}): is lfm-serve running there?"
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
                max_size=None,
                additional_headers=self._headers,
                open_timeout=self._timeout_s,
                close_timeout=1,
            )
            connection = self._closing.enter_context(opening)
        except InvalidStatus as error:
            reason = (error.response.body or b"").decode(errors="replace").strip()
            raised = _TryAgain if error.response.status_code == 503 else ServingError
            raise raised(f"{self.uri} refuses the connection ({error.response.status_code}): {reason}") from None
        except (InvalidURI, InvalidHandshake, ValueError) as error:
            raise ServingError(f"{self.uri} is no policy server: expected ws://HOST:PORT ({error})") from None
        self._greet(wire.unpack(_binary(connection.recv(self._timeout_s))))
        return connection

    def _greet(self, metadata: Any) -> None:
        """Take the server's metadata; a reconnection must find the same policy."""
        try:
            contract = Contract.model_validate(metadata["contract"])
        except (KeyError, TypeError, ValidationError):
            raise ServingError(f"the server at {self.uri} states no contract: expected lfm-serve") from None
        if self._expected is not None:
            contract.require_match(self._expected, f"policy {metadata['policy']} at {self.uri}", "the client")
        if self.metadata and metadata["digest"] != self.metadata["digest"]:
            raise ServingError(
                f"the server at {self.uri} now serves {metadata['policy']} ({metadata['digest']}), "
                f"expected {self.metadata['policy']} ({self.metadata['digest']}): make a new client for it"
            )
        self.metadata, self._contract = metadata, contract

    def _ask(self, connection: ClientConnection, message: Mapping[str, Any]) -> dict[str, Any]:
        connection.send(wire.pack(message))
        return wire.unpack(_binary(connection.recv(self._timeout_s)))


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
        self._new = 0

    def observe(self, observations: np.ndarray) -> None:
        """Note observations (D,) or (k, D), oldest first; they are sent when a chunk is wanted."""
        rows = np.atleast_2d(observations)
        self._rows.extend(rows)
        self._new = min(self._new + len(rows), len(self._rows))

    def infer(self, observations: np.ndarray) -> Plan:
        """Note observations (D,) or (k, D), and get the next chunk.

        Raises:
            ServingError: the server refuses them, or does not answer any more.
        """
        self.observe(observations)
        reply = self._client._retry(self._continue)
        self._new, self.chunks = 0, self.chunks + 1
        return Plan(reply["actions"], reply["chunk"], reply["nfe"], reply["server_timing"])

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
        return ask(connection, {requests.SESSION: name, requests.STATE: rows})


class _TryAgain(Exception):
    """The server is there, and has no room now."""


def _binary(frame: str | bytes) -> bytes:
    if isinstance(frame, str):
        raise ServingError(f"the policy server answers: {frame}")
    return frame
