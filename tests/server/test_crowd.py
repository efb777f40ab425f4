"""Who gives way in a crowd, and whose turn it is."""

import numpy as np
import pytest

from lfm_policy.server.crowd import Crowd


def test_the_oldest_of_the_address_that_has_the_most_gives_way() -> None:
    crowd: Crowd[str] = Crowd(4)
    assert [crowd.add(one, one[0]) for one in ("a1", "b1", "b2", "c1")] == [None] * 4
    assert crowd.add("c2", "c") == "b1"
    assert crowd.add("d1", "d") == "c1"
    assert list(crowd) == ["a1", "b2", "c2", "d1"]


def test_the_addresses_come_in_turn() -> None:
    crowd: Crowd[str] = Crowd(100)
    for one in ("a1", "a2", "a3", "b1", "c1", "c2"):
        crowd.add(one, one[0])
    crowd.remove("a2")
    assert [crowd.next() for _ in range(len(crowd))] == ["a1", "b1", "c1", "a3", "c2"]
    with pytest.raises(StopIteration):
        crowd.next()


def test_one_of_few_waits_behind_no_crowd() -> None:
    """Of 100 addresses, one makes all but every hundredth connection; none of the others ever gives way."""
    random, crowd, gone = np.random.default_rng(0), Crowd[tuple[int, int]](128), []
    for number in range(4_000):
        address = int(random.integers(1, 100)) if random.random() < 0.01 else 0
        gone.append(crowd.add((address, number), str(address)))
        assert len(crowd) <= 128
        if number % 50 == 0:
            others = {str(one[0]) for one in crowd if one[0]}
            turns = [crowd.next()[0] for _ in range(min(2, len(others) + 1))]
            assert len(set(turns)) == len(turns)
    assert {one[0] for one in gone if one is not None} == {0}


def test_who_has_left_is_forgotten() -> None:
    crowd: Crowd[str] = Crowd(2)
    crowd.add("a1", "a")
    assert crowd.remove("a1")
    assert not crowd.remove("a1")
    assert crowd.add("b1", "b") is crowd.add("b2", "b") is None
    assert len(crowd) == 2
