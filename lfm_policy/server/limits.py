"""What a server allows: its options, how long messages may be, who may connect, how often."""

import base64
import binascii
import hashlib
import hmac
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import Field

from lfm_policy.choices import Place
from lfm_policy.errors import ConfigError, ServingError
from lfm_policy.protocols import ChunkPolicy
from lfm_policy.settings import Frozen

_SHORTEST_KEY = 16
_SMALLEST_LIMIT = 2**16
_NUMBER_BYTES, _NAME_BYTES = 9, 256
_CAMERA_PIXELS = 640 * 480
_PICTURES = 8
"""Sets of the contract's pictures in one message."""


class LimitError(ServingError):
    """A client asks for more than the server gives anyone; it may try again later."""


class ServerOptions(Frozen):
    """Where to listen, and what to allow."""

    host: str = Field(
        default="127.0.0.1", description="address to listen on; 0.0.0.0: every interface, for robots elsewhere"
    )
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0: any free one")
    api_keys: Place | None = Field(
        default=None, description="file of accepted keys, one per line; null: anyone may connect"
    )
    names: Place | None = Field(
        default=None, description="JSON file from the robot's names of observations to the contract's; null: the same"
    )
    max_clients: int = Field(default=64, ge=1, description="robots connected at once")
    max_clients_per_address: int = Field(default=32, ge=1, description="robots connected at once from one address")
    max_sessions: int = Field(
        default=256, ge=1, description="sessions of all clients together; one is kept for each client"
    )
    max_message_bytes: int | None = Field(
        default=None, ge=1024, description="longest message of a client [bytes]; null: what the contract needs"
    )
    max_batch: int = Field(default=32, ge=1, description="histories in one policy call, and in one request")
    rate_hz: float = Field(default=500.0, gt=0, description="chunks that one client may ask for [1/s]")
    idle_s: float = Field(
        default=600.0, gt=0, description="silence after which a session, or a place that others need, is lost [s]"
    )
    ping_s: float = Field(
        default=20.0, gt=0, description="time between pings, and for a client to answer one before it is dropped [s]"
    )
    grace_s: float = Field(default=10.0, ge=0, description="time for requests under way when the server stops [s]")


def message_limit(policy: ChunkPolicy, max_batch: int) -> int:
    """Return the bytes of the longest message that a robot needs: a batch of histories with noise and pictures.

    Numbers count as the nine bytes that they have in a list; pictures are one set as large as cameras usually send
    them, or several of the contract's size.
    """
    contract, steps = policy.contract, policy.observation_steps
    numbers = contract.observation_dim * steps + math.prod(policy.noise_shape)
    states = max_batch * (_NUMBER_BYTES * numbers + _NAME_BYTES * (len(contract.observations) + 4))
    small = sum(3 * camera.height * camera.width for camera in contract.cameras)
    raw = sum(3 * max(camera.height * camera.width, _CAMERA_PIXELS) for camera in contract.cameras)
    pictures = max(raw, small * min(max_batch, _PICTURES))
    return max(_SMALLEST_LIMIT, states + pictures)


class Rate:
    """A token bucket: `rate_hz` per second on average, and one second's worth (or `burst`) at once."""

    def __init__(self, rate_hz: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_hz, self._capacity, self._clock = rate_hz, max(rate_hz, burst), clock
        self._tokens, self._at = float(self._capacity), clock()

    def take(self, count: int) -> None:
        """Raise LimitError when `count` now are more than the rate allows."""
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._rate_hz)
        self._at = now
        if count > self._tokens:
            raise LimitError(f"more than {self._rate_hz:g} chunks per second from one client: ask less often")
        self._tokens -= count


class ApiKeys:
    """The keys that open the server; with none, it is open."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    @classmethod
    def read(cls, path: Path | None) -> "ApiKeys":
        """Read a file of one key per line; empty lines and those that begin with # do not count.

        Raises:
            ConfigError: the file is missing, holds no key, or a key that could be guessed.
        """
        if path is None:
            return cls()
        try:
            lines = [line.strip() for line in path.read_text().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the API keys in {path} cannot be read: {error}") from None
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys or min(map(len, keys)) < _SHORTEST_KEY:
            raise ConfigError(
                f"{path}: expected one key per line, {_SHORTEST_KEY} characters or more, found {len(keys)} keys"
                + (f", the shortest with {min(map(len, keys))}" if keys else "")
                + "; make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def allow(self, authorization: str | None) -> bool:
        """Say whether an Authorization header (Api-Key, Bearer, or Basic with the key as password) holds a known key.

        Every key is compared, each in constant time.
        """
        if not self._digests:
            return True
        digest = hashlib.sha256(_credential(authorization or "").encode(errors="replace")).digest()
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def _credential(authorization: str) -> str:
    scheme, _, credential = authorization.strip().partition(" ")
    if scheme.lower() in ("api-key", "bearer"):
        return credential.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credential, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""
