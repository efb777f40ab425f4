"""A hundred damages of each kind: refused in our words or without effect; see `flips` for thousands."""

import pytest

from tests.slow.flips import KINDS, run


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_damaged_is_read_as_something_else(kind: str) -> None:
    outcomes, wrong = run(kind, 100)
    assert sum(outcomes.values()) == 100
    assert wrong == []
