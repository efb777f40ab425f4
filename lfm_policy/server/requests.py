"""What a client may ask: messages, decoded by `wire`, become typed requests or an error that says what is wrong.

A message is a map from observation names to raw arrays, as openpi's clients send. Keys that begin with two underscores
are ours: they choose another request, name a session, or decide the noise. Observations that the contract does not
name are ignored; a misspelt key of ours is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from lfm_policy.contract import Contract
from lfm_policy.errors import ContractError, ServingError, nearest, shown
from lfm_policy.protocols import ChunkPolicy
from lfm_policy.server import wire
from lfm_policy.server.observations import STATE, Names, as_array, as_floats, observe

REQUEST, SESSION, SEED, NOISE = "__request__", "__session__", "__seed__", "__noise__"
BATCH, ALONE, CHUNKS, CONTRACT = "__batch__", "__alone__", "__chunks__", "__contract__"

__all__ = ["ALONE", "BATCH", "CHUNKS", "CONTRACT", "NOISE", "REQUEST", "SEED", "SESSION", "STATE", "parse"]

_KEYS = {
    "infer": {SESSION, SEED, NOISE, BATCH, ALONE},
    "reset": {SESSION, SEED, CHUNKS},
    "forget": {SESSION},
    "contract": {CONTRACT},
}
LONGEST = {"reset": 1024, "forget": 1024, "contract": 16 * 1024}
"""Longest message of a kind of request [bytes]; of the others what the server allows."""
_MOST_FIELDS = 1000
"""Values of a contract, those in its parts included."""
_LONGEST_NAME = 128


@dataclass(frozen=True)
class Terms:
    """What requests are read for."""

    policy: ChunkPolicy
    names: Names
    max_batch: int
    """Chunks that one request may ask for."""


@dataclass(frozen=True)
class Query:
    """One chunk that is wanted."""

    rows: np.ndarray
    """float32 (k, observation_dim): with a session what it has not seen yet, without one 1 or To observations."""
    session: str | None
    seed: int | None
    frames: np.ndarray | None
    """uint8 (cameras, height, width, 3), the newest pictures; None for a policy without cameras."""
    noise: np.ndarray | None
    """float32 of the policy's noise_shape; None: the session's, or that of `seed`, or fresh."""
    ignored: tuple[str, ...] = ()
    """Entries of the message that the policy does not observe."""


@dataclass(frozen=True)
class Infer:
    """Predict one chunk for each query."""

    queries: tuple[Query, ...]
    batched: bool
    """The client sent a list, and gets one."""
    alone: bool
    """The queries are a policy call of their own: the same bits whoever else is connected."""


@dataclass(frozen=True)
class Reset:
    """Begin an episode in a session."""

    session: str
    seed: int | None
    chunks: int
    """Chunks of the episode that were predicted before, elsewhere."""


@dataclass(frozen=True)
class Forget:
    """End a session."""

    session: str


@dataclass(frozen=True)
class Match:
    """Compare contracts."""

    contract: Contract


Request = Infer | Reset | Forget | Match


def parse(message: bytes, terms: Terms) -> Request:
    """Read one message.

    Raises:
        ServingError: it is not a request, or asks for more than `terms` allow.
        ContractError: its observations do not fit the policy's contract.
    """
    values = wire.unpack(message)
    if not isinstance(values, dict):
        raise ServingError(f"expected a map from observation names to arrays, found {type(values).__name__}")
    kind = values.get(REQUEST, "infer")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise ServingError(f"unknown request {shown(kind)}: {nearest(str(kind)[:80], _KEYS)}")
    if len(message) > LONGEST.get(kind, len(message)):
        raise ServingError(f"a request '{kind}' has at most {LONGEST[kind]} bytes, found {len(message)}")
    _require_known(values, kind)
    match kind:
        case "reset":
            return Reset(_session(values), _integer(values, SEED), _integer(values, CHUNKS) or 0)
        case "forget":
            return Forget(_session(values))
        case "contract":
            return Match(_contract(values.get(CONTRACT)))
        case _:
            return _infer(values, terms)


def _require_known(message: Mapping[Any, Any], kind: str) -> None:
    for key in message:
        if not isinstance(key, str):
            raise ServingError(f"expected names as keys, found {shown(key)}")
        if key.startswith("__") and key not in _KEYS[kind] | {REQUEST}:
            raise ServingError(f"{shown(key)} does not belong to a request '{kind}': {nearest(key[:80], _KEYS[kind])}")


def _infer(message: dict[str, Any], terms: Terms) -> Infer:
    alone = message.get(ALONE, False)
    if not isinstance(alone, bool):
        raise ServingError(f"{ALONE} must be true or false, found {shown(alone)}")
    if BATCH not in message:
        return Infer((_query(message, terms),), batched=False, alone=alone)
    items = message[BATCH]
    if extra := sorted(set(message) - {REQUEST, BATCH, ALONE}):
        raise ServingError(f"a batch holds its observations in its items: found {shown(extra, 200)} beside {BATCH}")
    if not isinstance(items, list) or not 1 <= len(items) <= terms.max_batch:
        found = f"{len(items)} items" if isinstance(items, list) else type(items).__name__
        raise ServingError(f"{BATCH} must be a list of 1 to {terms.max_batch} observations, found {found}")
    queries = tuple(_item(number, item, terms) for number, item in enumerate(items))
    names = [query.session for query in queries if query.session is not None]
    if len(set(names)) < len(names):
        raise ServingError(f"each session may occur once in a batch, found {shown(sorted(names), 200)}")
    return Infer(queries, batched=True, alone=alone)


def _item(number: int, item: Any, terms: Terms) -> Query:
    if not isinstance(item, dict):
        raise ServingError(f"item {number} of {BATCH}: expected a map, found {type(item).__name__}")
    try:
        _require_known(item, "infer")
        if nested := sorted({REQUEST, BATCH, ALONE} & set(item)):
            raise ServingError(f"{nested[0]} belongs beside {BATCH}, not into its items")
        return _query(item, terms)
    except (ServingError, ContractError) as error:
        raise type(error)(f"item {number} of {BATCH}: {error}") from None


def _query(message: Mapping[str, Any], terms: Terms) -> Query:
    policy = terms.policy
    session = _session(message) if SESSION in message else None
    observed = observe(message, terms.names)
    rows = observed.rows
    if session is None and len(rows) not in (1, policy.observation_steps):
        raise ContractError(
            f"expected one observation or a history of {policy.observation_steps}, found {len(rows)} rows: "
            f"other numbers need a session ({SESSION})"
        )
    noise, seed = None, _integer(message, SEED)
    if NOISE in message:
        noise = as_array(message[NOISE], NOISE)
        if noise.shape != tuple(policy.noise_shape):
            raise ServingError(f"{NOISE}: expected shape {tuple(policy.noise_shape)}, found {noise.shape}")
        noise = as_floats(noise, NOISE)
    return Query(rows, session, seed, observed.frames, noise, observed.ignored)


def _session(message: Mapping[str, Any]) -> str:
    name = message.get(SESSION)
    if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_NAME:
        raise ServingError(f"{SESSION} must be a name of 1 to {_LONGEST_NAME} characters, found {shown(name)}")
    return name


def _integer(message: Mapping[str, Any], key: str) -> int | None:
    value = message.get(key)
    if isinstance(value, np.integer):
        value = int(value)
    if value is not None and (type(value) is not int or not 0 <= value < 2**63):
        raise ServingError(f"{key} must be an integer >= 0, found {shown(value)}")
    return value


def _contract(value: Any) -> Contract:
    if _count(value, _MOST_FIELDS) > _MOST_FIELDS:  # pydantic makes an error of each
        raise ServingError(f"{CONTRACT} is not a contract: it holds more than {_MOST_FIELDS} values")
    try:
        return Contract.model_validate(value)
    except ValidationError as error:
        row = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in row["loc"]) or "the whole"
        raise ServingError(f"{CONTRACT} is not a contract: {shown(where)[1:-1]}: {row['msg']:.500}") from None


def _count(value: Any, enough: int) -> int:
    """Count the values within a value, itself included; counting stops above `enough`."""
    count, parts = 0, [value]
    while parts and count <= enough:
        part = parts.pop()
        count += 1
        if isinstance(part, dict):
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)
    return count
