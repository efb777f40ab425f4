"""Places for clients: who gives way to whom, by the clock and over real connections."""

import socket
import time
from contextlib import ExitStack

import pytest
from websockets.exceptions import InvalidStatus

from lfm_policy.server import admission as module
from lfm_policy.server.admission import Admission, address_of
from lfm_policy.server.limits import LimitError
from lfm_policy.server.requests import SESSION
from tests.server.served import OBSERVATION, Clock, ask, close_code, connected, eventually, served


def test_strangers_go_before_silent_robots_and_busy_ones_never() -> None:
    clock, gone = Clock(), []
    admission = Admission(places=4, per_address=4, idle_s=600.0, clock=clock)
    places = {}
    for name in ("quiet", "busy", "first stranger", "second stranger"):
        places[name] = admission.enter(name)
        places[name].give_up = lambda reason, name=name: gone.append((name, reason))
        clock.now += 1
    for name in ("quiet", "busy"):
        admission.asked(places[name])
    places["busy"].busy = True
    admission.enter("newcomer")
    assert gone == [("first stranger", "your place was given to another client after 2 s without a request")]
    with pytest.raises(LimitError, match="has its 4 clients: try again later"):
        admission.enter("too early")
    clock.now += 2
    admission.asked(admission.enter("robot"))
    clock.now += 2
    admission.asked(admission.enter("robot"))
    assert [name for name, _ in gone] == ["first stranger", "second stranger"]
    clock.now += 599
    admission.enter("after ten minutes")
    assert [name for name, _ in gone][2:] == ["quiet"]


def test_an_address_makes_room_among_its_own() -> None:
    clock, gone = Clock(), []
    admission = Admission(places=10, per_address=2, idle_s=600.0, clock=clock)
    admission.enter("10.0.0.1").give_up = lambda reason: gone.append("other")
    for number in range(2):
        admission.enter("10.0.0.2").give_up = lambda reason, number=number: gone.append(number)
    with pytest.raises(LimitError, match="has 2 clients from your address"):
        admission.enter("10.0.0.2")
    clock.now += 3
    admission.enter("10.0.0.2")
    assert gone == [0]


def test_a_place_is_given_back_once() -> None:
    admission = Admission(places=1, per_address=1, idle_s=600.0)
    place = admission.enter("a")
    admission.leave(place)
    admission.leave(place)
    admission.enter("a")
    with pytest.raises(LimitError):  # given back twice it would be free twice
        admission.enter("a")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.0.0.9", "10.0.0.9"),
        ("::1", "::1"),
        ("::ffff:10.0.0.9", "10.0.0.9"),
        ("2001:db8:1:2:3::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("gone", "gone"),
    ],
)
def test_addresses(host: str, address: str) -> None:
    assert address_of(host) == address


def test_clients_and_sessions_are_limited() -> None:
    with served(max_clients=2, max_sessions=3) as server, connected(server) as robot:
        with connected(server) as other:
            assert "actions" in ask(robot, OBSERVATION | {SESSION: "a"})
            assert "actions" in ask(robot, OBSERVATION | {SESSION: "b"})
            assert "actions" in ask(other, OBSERVATION | {SESSION: "a"})
            with pytest.raises(InvalidStatus, match="503"), connected(server):
                pass
            assert "holds 3 sessions at most" in ask(other, OBSERVATION | {SESSION: "b"})
            assert close_code(other) == 1013
        assert eventually(lambda: len(server.metrics.clients) == 1)
        with connected(server) as third:
            assert "actions" in ask(third, OBSERVATION | {SESSION: "a"})


def test_idle_strangers_give_way_and_quiet_robots_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STRANGER_S", 0.1)
    with served(max_clients=3, idle_s=1000) as server, connected(server) as robot:
        assert "actions" in ask(robot, OBSERVATION)
        with connected(server) as stranger, connected(server) as later:
            time.sleep(0.15)
            with connected(server) as newcomer:
                assert "your place was given to another client" in stranger.recv(5)
                assert close_code(stranger) == 1013
                assert "actions" in ask(newcomer, OBSERVATION)
                assert "actions" in ask(later, OBSERVATION)
                with pytest.raises(InvalidStatus, match="503"), connected(server):
                    pass
        assert "actions" in ask(robot, OBSERVATION)


def test_an_address_has_its_share_only() -> None:
    with served(max_clients=3, max_clients_per_address=2) as server, connected(server), connected(server):
        with pytest.raises(InvalidStatus) as refused, connected(server):
            pass
        assert refused.value.response.status_code == 503
        assert b"has 2 clients from your address" in refused.value.response.body


def test_slow_handshakes_keep_nobody_out_and_do_not_delay_the_end() -> None:
    with served() as server, connected(server) as robot, ExitStack() as closing:
        for _ in range(300):
            slow = closing.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            slow.sendall(b"GET / HTTP/1.1\r\n")
        assert eventually(lambda: len(server._admission._pending) == module.MOST_PENDING)
        with connected(server) as newcomer:
            assert "actions" in ask(newcomer, OBSERVATION)
        assert "actions" in ask(robot, OBSERVATION)
        assert module.MOST_PENDING - 2 < len(server._admission._pending) <= module.MOST_PENDING
        server.stop()  # pyright: ignore[reportAttributeAccessIssue]
        started = time.monotonic()
        assert close_code(robot) == 1001
        assert eventually(lambda: not server._admission._pending)
        assert time.monotonic() - started < 5


def test_connections_that_say_nothing_are_no_handshakes_and_keep_nobody_out() -> None:
    with served() as server, connected(server) as robot, ExitStack() as closing:
        for _ in range(600):
            closing.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        with connected(server) as newcomer:
            assert "actions" in ask(newcomer, OBSERVATION)
        assert "actions" in ask(robot, OBSERVATION)
        assert not len(server._admission._pending)
