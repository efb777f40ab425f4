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
from lfm_policy.errors import ContractError, ServingError, nearest
from lfm_policy.protocols import ChunkPolicy

STATE = "observation.state"
"""Name of an observation that is already flattened in the contract's order, as LeRobot calls it."""
REQUEST, SESSION, SEED, NOISE = "__request__", "__session__", "__seed__", "__noise__"
BATCH, ALONE, CHUNKS, CONTRACT = "__batch__", "__alone__", "__chunks__", "__contract__"

_KEYS = {
    "infer": {SESSION, SEED, NOISE, BATCH, ALONE},
    "reset": {SESSION, SEED, CHUNKS},
    "forget": {SESSION},
    "contract": {CONTRACT},
}
_LONGEST_NAME = 128


@dataclass(frozen=True)
class Query:
    """One chunk that is wanted."""

    rows: np.ndarray
    """float32 (k, observation_dim): with a session what it has not seen yet, without one 1 or To observations."""
    session: str | None
    seed: int | None
    noise: np.ndarray | None
    """float32 of the policy's noise_shape; None: the session's, or that of `seed`, or fresh."""


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


def parse(message: Any, policy: ChunkPolicy, max_batch: int) -> Request:
    """Read one decoded message.

    Raises:
        ServingError: it is not a request, or asks for more than `max_batch` chunks.
        ContractError: its observations do not fit the policy's contract.
    """
    if not isinstance(message, dict):
        raise ServingError(f"expected a map from observation names to arrays, found {type(message).__name__}")
    kind = message.get(REQUEST, "infer")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise ServingError(f"unknown request {kind!r:.80}: {nearest(str(kind)[:80], _KEYS)}")
    _require_known(message, kind)
    match kind:
        case "reset":
            return Reset(_session(message), _integer(message, SEED), _integer(message, CHUNKS) or 0)
        case "forget":
            return Forget(_session(message))
        case "contract":
            return Match(_contract(message.get(CONTRACT)))
        case _:
            return _infer(message, policy, max_batch)


def _require_known(message: Mapping[Any, Any], kind: str) -> None:
    for key in message:
        if not isinstance(key, str):
            raise ServingError(f"expected names as keys, found {key!r:.80}")
        if key.startswith("__") and key not in _KEYS[kind] | {REQUEST}:
            raise ServingError(f"'{key:.80}' does not belong to a request '{kind}': {nearest(key[:80], _KEYS[kind])}")


def _infer(message: dict[str, Any], policy: ChunkPolicy, max_batch: int) -> Infer:
    alone = message.get(ALONE, False)
    if not isinstance(alone, bool):
        raise ServingError(f"{ALONE} must be true or false, found {alone!r:.80}")
    if BATCH not in message:
        return Infer((_query(message, policy),), batched=False, alone=alone)
    items = message[BATCH]
    if extra := sorted(set(message) - {REQUEST, BATCH, ALONE}):
        raise ServingError(f"a batch holds its observations in its items: found {extra!s:.200} beside {BATCH}")
    if not isinstance(items, list) or not 1 <= len(items) <= max_batch:
        found = f"{len(items)} items" if isinstance(items, list) else type(items).__name__
        raise ServingError(f"{BATCH} must be a list of 1 to {max_batch} observations, found {found}")
    queries = tuple(_item(number, item, policy) for number, item in enumerate(items))
    names = [query.session for query in queries if query.session is not None]
    if len(set(names)) < len(names):
        raise ServingError(f"each session may occur once in a batch, found {sorted(names)!s:.200}")
    return Infer(queries, batched=True, alone=alone)


def _item(number: int, item: Any, policy: ChunkPolicy) -> Query:
    if not isinstance(item, dict):
        raise ServingError(f"item {number} of {BATCH}: expected a map, found {type(item).__name__}")
    try:
        _require_known(item, "infer")
        if nested := sorted({REQUEST, BATCH, ALONE} & set(item)):
            raise ServingError(f"{nested[0]} belongs beside {BATCH}, not into its items")
        return _query(item, policy)
    except (ServingError, ContractError) as error:
        raise type(error)(f"item {number} of {BATCH}: {error}") from None


def _query(message: Mapping[str, Any], policy: ChunkPolicy) -> Query:
    session = _session(message) if SESSION in message else None
    rows = _rows(message, policy.contract)
    if session is None and len(rows) not in (1, policy.observation_steps):
        raise ContractError(
            f"expected one observation or a history of {policy.observation_steps}, found {len(rows)} rows: "
            f"other numbers need a session ({SESSION})"
        )
    noise, seed = None, _integer(message, SEED)
    if NOISE in message:
        noise = _floats(message[NOISE], NOISE)
        if noise.shape != tuple(policy.noise_shape):
            raise ServingError(f"{NOISE}: expected shape {tuple(policy.noise_shape)}, found {noise.shape}")
    return Query(rows, session, seed, noise)


def _rows(message: Mapping[str, Any], contract: Contract) -> np.ndarray:
    """The message's observations, float32 (k, observation_dim) with k >= 1, oldest first."""
    if STATE in message:
        rows = _floats(message[STATE], STATE)
        if rows.shape[-1:] != (contract.observation_dim,):
            raise ContractError(f"'{STATE}': expected width {contract.observation_dim}, found shape {rows.shape}")
    else:
        named = {key.name: _floats(message[key.name], key.name) for key in contract.observations if key.name in message}
        if len({array.shape[:-1] for array in named.values()}) > 1:
            shapes = {name: array.shape for name, array in named.items()}
            raise ContractError(f"expected the same number of rows in every observation, found {shapes}")
        arrays = {name: value for name, value in message.items() if isinstance(value, np.ndarray)}
        rows = contract.flatten(arrays | named)
    if rows.ndim > 2 or not rows.size:
        raise ContractError(f"expected one observation or rows of observations, found shape {rows.shape}")
    return np.atleast_2d(rows)


def _floats(value: Any, name: str) -> np.ndarray:
    """A finite float32 array."""
    if not isinstance(value, np.ndarray):
        raise ServingError(f"'{name}': expected a numpy array, found {type(value).__name__}")
    if value.dtype.kind not in "biuf":
        raise ServingError(f"'{name}': expected numbers, found dtype {value.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        array = value.astype(np.float32)
    if not np.isfinite(array).all():
        raise ServingError(f"'{name}': expected finite float32 numbers, found NaN, infinity or a number out of range")
    return array


def _session(message: Mapping[str, Any]) -> str:
    name = message.get(SESSION)
    if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_NAME:
        raise ServingError(f"{SESSION} must be a name of 1 to {_LONGEST_NAME} characters, found {name!r:.80}")
    return name


def _integer(message: Mapping[str, Any], key: str) -> int | None:
    value = message.get(key)
    if isinstance(value, np.integer):
        value = int(value)
    if value is not None and (type(value) is not int or not 0 <= value < 2**63):
        raise ServingError(f"{key} must be an integer >= 0, found {value!r:.80}")
    return value


def _contract(value: Any) -> Contract:
    try:
        return Contract.model_validate(value)
    except ValidationError as error:
        row = error.errors()[0]
        where = ".".join(str(part) for part in row["loc"]) or "the whole"
        raise ServingError(f"{CONTRACT} is not a contract: {where}: {row['msg']}") from None
