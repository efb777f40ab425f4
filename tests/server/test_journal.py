"""The log of refusals: nobody fills it, forges a line of it, or hides others' lines."""

import asyncio
import logging

import pytest

from lfm_policy.errors import one_line, shown
from lfm_policy.server.journal import Journal
from tests.server.test_limits import Clock

LOG = logging.getLogger("tests.journal")


def test_lines_are_few_and_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()

    async def attack() -> None:
        journal = Journal(LOG, clock)
        for number in range(1000):
            journal.note(f"10.0.0.9:{number}", "refused: nonsense")
        journal.note("10.0.0.7:1", "refused: an honest mistake")
        clock.now += 61
        journal.note("10.0.0.9:5", "refused: more")
        journal.flush()

    with caplog.at_level(logging.INFO, LOG.name):
        asyncio.run(attack())
    assert len(caplog.messages) == 13
    assert caplog.messages[10] == "10.0.0.7:1 refused: an honest mistake"
    assert caplog.messages[11] == "990 more lines in 61 s were not written: 10.0.0.9 (990)"


def test_many_addresses_do_not_make_many_lines(caplog: pytest.LogCaptureFixture) -> None:
    async def attack() -> None:
        journal = Journal(LOG, Clock())
        for number in range(5000):
            journal.note(f"10.{number % 3000}.0.9:1", "refused")
        journal.flush()

    with caplog.at_level(logging.INFO, LOG.name):
        asyncio.run(attack())
    assert len(caplog.messages) == 31
    assert caplog.messages[-1].startswith("4970 more lines")


def test_a_line_is_one_line_of_bounded_length(caplog: pytest.LogCaptureFixture) -> None:
    async def attack() -> None:
        Journal(LOG).note("10.0.0.9:1", "refused: '__x\n13:00:00 10.0.0.8:1 forged \x1b[31m\u202e" + "x" * 10**6)

    with caplog.at_level(logging.INFO, LOG.name):
        asyncio.run(attack())
    assert len(caplog.messages) == 1
    assert caplog.messages[0].isprintable()
    assert "\\n13:00:00" in caplog.messages[0]
    assert len(caplog.messages[0]) < 330


@pytest.mark.parametrize("value", ["a" * 10**6, b"\n" * 10**6, [[0] * 1000] * 1000, {"\n": {"x" * 1000: 1}}, 2**900])
def test_what_strangers_send_is_shown_on_one_short_line(value: object) -> None:
    assert shown(value).isprintable()
    assert len(shown(value)) <= 80


def test_short_texts_stay_as_they_are() -> None:
    assert one_line("übung 机 'a'") == "übung 机 'a'"
    assert shown("a") == "'a'"
    assert shown([1, "b"]) == "[1, 'b']"
