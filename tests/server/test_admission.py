"""Places by the clock: who gives way to whom."""

import pytest

from lfm_policy.server.admission import Admission, address_of
from lfm_policy.server.limits import LimitError
from tests.server.test_limits import Clock


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
