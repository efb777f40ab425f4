"""Malformed requests: each gets its own error and close code, and a client beside it notices nothing."""

from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.sync.client import ClientConnection

from lfm_policy.server import wire
from lfm_policy.server.requests import ALONE, BATCH, CHUNKS, NOISE, REQUEST, SEED, SESSION
from lfm_policy.server.requests import CONTRACT as CONTRACT_KEY
from lfm_policy.server.requests import STATE as STATE_KEY
from lfm_policy.server.server import PolicyServer
from tests.server.served import CONTRACT, OBSERVATION, STATE, ask, close_code, connected

NAN = np.array([0.1, np.nan], np.float32)


def with_(**more: Any) -> dict[str, Any]:
    """A good request with some entries added or replaced."""
    return OBSERVATION | more


def ndarray(**parts: Any) -> bytes:
    """A good request whose position is an array made by hand."""
    array = {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "<f4", b"shape": [2]}
    array |= {name.encode(): value for name, value in parts.items()}
    return msgpack.packb({"position": array, "goal": {**array, b"data": b"\0" * 8, b"dtype": "<f4", b"shape": [2]}})


MALFORMED: dict[str, tuple[Any, str]] = {
    # frames
    "text": ("hello", "expected a binary frame of msgpack, found text"),
    "empty frame": (b"", "expected one msgpack map, found 0 bytes"),
    "not msgpack": (b"\xc1\xff", "expected one msgpack map"),
    "json": (b'{"position": [0, 0]}', "expected one msgpack map"),
    "pickle": (b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.", "expected one msgpack map"),
    "cut short": (wire.pack(OBSERVATION)[:-3], "expected one msgpack map"),
    "two messages in a frame": (wire.pack(OBSERVATION) * 2, "ExtraData"),
    "too deep": (b"\x91" * 2000, "maps and lists at most 12 deep"),
    "claims 4 billion entries": (b"\xdf\xff\xff\xff\xff", "maps of at most 256 keys, found one of 4294967295"),
    # messages
    "a list": (wire.pack([OBSERVATION]), "expected a map from observation names to arrays, found list"),
    "nothing": (wire.pack(None), "found NoneType"),
    "a bare array": (wire.pack(STATE), "found ndarray"),
    "bytes as keys": (msgpack.packb({b"position": 1}), "expected names as keys, found b'position'"),
    "numbers as keys": (msgpack.packb({1: 2}), "strict_map_key"),
    "an empty map": ({}, "observation 'position' is missing: expected ['position', 'goal'], found []"),
    # observations
    "a key is missing": ({"position": STATE[:2]}, "observation 'goal' is missing"),
    "a misspelt name": ({"position": STATE[:2], "gaol": STATE[2:]}, "found ['gaol', 'position']"),
    "too wide": (with_(goal=STATE), "observation 'goal': expected width 2, found shape (4,)"),
    "no dimension": (with_(goal=np.array(1.0)), "observation 'goal': expected width 2, found shape ()"),
    "a ragged list": (with_(goal=[[0.0, 1.0], [0.0]]), "'goal': expected a list of numbers, or lists of equal length"),
    "a list of words": (with_(goal=["a", "b"]), "'goal': expected numbers, found dtype <U1"),
    "a list of nothing": (with_(goal=[None, None]), "'goal': expected numbers, found something else"),
    "a word": (with_(goal="there"), "'goal': expected an array or a list of numbers, found str"),
    "the same under two names": (with_(**{"observation/goal": STATE[2:]}), "'goal' comes twice: as 'goal' and as 'obs"),
    "larger than any sensor reads": (
        with_(position=np.full(2, 3.3e38, np.float32)),
        "'position': expected numbers up to 1e+10, found 3.3e+38: check its unit",
    ),
    "too many rows": ({STATE_KEY: np.zeros((5000, 4), np.uint8)}, "1 to 4096 rows of observations, found shape (5000"),
    "strings": (with_(goal=np.array(["a", "b"])), "'goal': expected numbers, found dtype <U1"),
    "not a number": (with_(position=NAN), "'position': expected finite float32 numbers"),
    "infinite": (with_(position=np.array([np.inf, 0])), "'position': expected finite float32 numbers"),
    "beyond float32": (with_(position=np.array([1e300, 0])), "'position': expected finite float32 numbers"),
    "no rows": ({name: np.zeros((0, 2)) for name in OBSERVATION}, "found shape (0, 2)"),
    "rows that differ": (with_(goal=np.zeros((2, 2))), "expected the same number of rows in every observation"),
    "a history of the wrong length": ({STATE_KEY: np.zeros((3, 4))}, "a history of 2, found 3 rows"),
    "a cube of rows": ({STATE_KEY: np.zeros((2, 2, 4))}, "found shape (2, 2, 4)"),
    "a vector of the wrong width": ({STATE_KEY: np.zeros(5)}, "'observation.state': expected width 4"),
    # arrays that contradict themselves
    "shape against bytes": (ndarray(shape=[3]), "has 12 bytes, found 8"),
    "a huge shape": (ndarray(shape=[2**40, 2**40]), "each from 0 to 2147483647, found [1099511627776"),
    "a negative size": (ndarray(shape=[-2]), "must be a list of sizes"),
    "objects": (ndarray(dtype="O"), "arrays of dtype 'O' are not accepted"),
    "complex numbers": (ndarray(dtype="<c8", shape=[1]), "arrays of dtype '<c8' are not accepted"),
    "records": (ndarray(dtype="V4"), "arrays of dtype 'V4' are not accepted"),
    "an unknown dtype": (ndarray(dtype="float31"), "unknown dtype 'float31'"),
    "no bytes": (ndarray(data="text"), "an array's 'data' must be bytes, found str"),
    # our own keys
    "an unknown request": (with_(**{REQUEST: "rest"}), "unknown request 'rest': did you mean 'reset'?"),
    "a request that is no name": (with_(**{REQUEST: ["reset"]}), "unknown request ['reset']"),
    "a misspelt key": (with_(__sesion__="a"), "'__sesion__' does not belong to a request 'infer': did you mean '__ses"),
    "a key of another request": (with_(**{CHUNKS: 3}), "'__chunks__' does not belong to a request 'infer'"),
    "a session without a name": (with_(**{SESSION: ""}), "__session__ must be a name of 1 to 128 characters"),
    "a session that is a number": (with_(**{SESSION: 3}), "__session__ must be a name of 1 to 128 characters"),
    "a session with a long name": (with_(**{SESSION: "a" * 129}), "__session__ must be a name of 1 to 128"),
    "a negative seed": (with_(**{SEED: -1}), "__seed__ must be an integer >= 0, found -1"),
    "a seed that is a fraction": (with_(**{SEED: 1.5}), "__seed__ must be an integer >= 0, found 1.5"),
    "a seed that is huge": (with_(**{SEED: 2**63}), "__seed__ must be an integer >= 0"),
    "a flag that is a number": (with_(**{ALONE: 1}), "__alone__ must be true or false, found 1"),
    "noise of another shape": (with_(**{NOISE: np.zeros((8, 3))}), "__noise__: expected shape (8, 2), found (8, 3)"),
    "noise that is not finite": (with_(**{NOISE: np.full((8, 2), np.nan)}), "'__noise__': expected finite"),
    "a reset of nothing": ({REQUEST: "reset"}, "__session__ must be a name"),
    "a reset with observations": ({REQUEST: "reset", SESSION: "a", NOISE: 1}, "'__noise__' does not belong"),
    "forgetting nothing": ({REQUEST: "forget"}, "__session__ must be a name"),
    # batches
    "a batch that is no list": ({BATCH: OBSERVATION}, "must be a list of 1 to 32 observations, found dict"),
    "an empty batch": ({BATCH: []}, "must be a list of 1 to 32 observations, found 0 items"),
    "a batch that is too large": ({BATCH: [OBSERVATION] * 33}, "found 33 items"),
    "a batch of numbers": ({BATCH: [OBSERVATION, 3]}, "item 1 of __batch__: expected a map, found int"),
    "one bad item": ({BATCH: [OBSERVATION, {}]}, "item 1 of __batch__: observation 'position' is missing"),
    "a batch in a batch": ({BATCH: [{BATCH: []}]}, "item 0 of __batch__: __batch__ belongs beside __batch__"),
    "a session twice in a batch": ({BATCH: [with_(**{SESSION: "a"})] * 2}, "each session may occur once in a batch"),
    "observations beside a batch": (with_(**{BATCH: [OBSERVATION]}), "found ['goal', 'position'] beside __batch__"),
    # contracts
    "no contract": ({REQUEST: "contract"}, "__contract__ is not a contract"),
    "half a contract": ({REQUEST: "contract", CONTRACT_KEY: {"suite": "robosuite"}}, "suite_version: Field required"),
    "a contract of many parts": (
        {REQUEST: "contract", CONTRACT_KEY: {"observations": [[]] * 2000}},
        "it holds more than 1000 values",
    ),
    "a long contract": (
        {REQUEST: "contract", CONTRACT_KEY: {f"a{number}": "a" * 4000 for number in range(5)}},
        "a request 'contract' has at most 16384 bytes",
    ),
    "a long reset": ({REQUEST: "reset", SESSION: "a", "x": "a" * 1000}, "a request 'reset' has at most 1024 bytes"),
    "another contract": (
        {REQUEST: "contract", CONTRACT_KEY: CONTRACT.model_dump(mode="json") | {"action_form": "delta"}},
        "action_form: policy straight has 'absolute', the client has 'delta'",
    ),
}


@pytest.fixture(scope="module")
def bystander(server: PolicyServer) -> Iterator[ClientConnection]:
    """A client that stays connected all along."""
    with connected(server) as robot:
        yield robot


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_gets_its_error_and_costs_nobody_else(
    server: PolicyServer, bystander: ClientConnection, name: str
) -> None:
    message, expected = MALFORMED[name]
    with connected(server) as robot:
        reply = ask(robot, message)
        assert isinstance(reply, str), f"expected an error, found {reply}"
        assert expected in reply
        assert len(reply) <= 2000
        assert close_code(robot) == 1011
    assert "actions" in ask(bystander, OBSERVATION)


def test_a_seed_for_an_episode_under_way_is_refused(server: PolicyServer) -> None:
    with connected(server) as robot:
        assert ask(robot, with_(**{SESSION: "a", SEED: 1}))["seed"] == 1
        assert "the seed of session 'a' is set when it begins" in ask(robot, with_(**{SESSION: "a", SEED: 1}))
        assert close_code(robot) == 1011
