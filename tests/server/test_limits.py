"""Limits and keys: by the clock, by the letter, and over a connection."""

import base64
from pathlib import Path

import pytest

from lfm_envs.point_mass import CONTRACT
from lfm_policy.contract import Camera, ObservationKey
from lfm_policy.errors import ConfigError
from lfm_policy.server.limits import ApiKeys, LimitError, Rate, message_limit
from lfm_policy.server.requests import BATCH, NOISE
from lfm_policy.server.wire import pack
from tests.rollout.scripted import Straight
from tests.server.served import OBSERVATION, Clock, ask, close_code, connected, served

KEY = "correct horse battery"


def test_a_rate_allows_a_second_at_once_and_then_its_average() -> None:
    clock = Clock()
    rate = Rate(10.0, burst=1, clock=clock)
    rate.take(10)
    with pytest.raises(LimitError):
        rate.take(1)
    taken = 0
    for _ in range(1000):
        clock.now += 0.01
        try:
            rate.take(1)
            taken += 1
        except LimitError:
            continue
    assert taken == pytest.approx(100, abs=1)


def test_a_burst_may_be_larger_than_the_rate() -> None:
    rate = Rate(0.5, burst=32, clock=Clock())
    rate.take(32)
    with pytest.raises(LimitError):
        rate.take(1)


def test_the_message_limit_follows_the_contract() -> None:
    policy = Straight()
    assert message_limit(policy, 32) == 2**16

    class Wide(Straight):
        contract = CONTRACT.model_copy(update={"observations": (ObservationKey(name="scan", dim=2000),)})

    class Sees(Straight):
        contract = CONTRACT.model_copy(update={"cameras": (Camera(name="wrist", height=84, width=84),) * 3})

    assert 3 * 640 * 480 * 3 < message_limit(Sees(), 32) < 3_000_000
    as_list = pack({BATCH: [{"scan": [[0.5] * 2000] * 2, NOISE: [[0.5] * 2] * 8}] * 32})
    assert len(as_list) < message_limit(Wide(), 32) < 1.1 * len(as_list)


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (f"Api-Key {KEY}", True),
        (f"api-key  {KEY} ", True),
        (f"Bearer {KEY}", True),
        ("Basic " + base64.b64encode(f"anyone:{KEY}".encode()).decode(), True),
        ("Basic " + base64.b64encode(KEY.encode()).decode(), False),
        ("Basic not-base64!", False),
        (f"Api-Key {KEY[:-1]}", False),
        (f"Digest {KEY}", False),
        (KEY, False),
        ("Api-Key", False),
        ("Api-Key \udcff", False),
        ("", False),
        (None, False),
    ],
)
def test_only_a_known_key_opens(header: str | None, allowed: bool) -> None:
    assert ApiKeys(["another key, which is long", KEY]).allow(header) is allowed
    assert ApiKeys().allow(header)


def test_key_files(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"# robots\n\n{KEY}\n")
    keys = ApiKeys.read(file)
    assert keys
    assert keys.allow(f"Api-Key {KEY}")
    assert not keys.allow("Api-Key # robots")
    assert not ApiKeys.read(None)
    for content, message in (("", "found 0 keys"), ("# only a comment", "found 0 keys"), ("short", "shortest with 5")):
        file.write_text(content)
        with pytest.raises(ConfigError, match=message):
            ApiKeys.read(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        ApiKeys.read(tmp_path / "missing")


def test_a_client_that_asks_too_often_is_refused_and_others_are_not() -> None:
    with served(rate_hz=5, max_batch=5) as server, connected(server) as other:
        with connected(server) as robot:
            replies = [ask(robot, OBSERVATION) for _ in range(6)]
            assert all("actions" in reply for reply in replies[:5])
            assert replies[5] == "more than 5 chunks per second from one client: ask less often"
            assert close_code(robot) == 1013
        assert "actions" in ask(other, OBSERVATION)
