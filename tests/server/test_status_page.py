"""The status page in a real browser: live, complete, and with nothing from outside."""

import numpy as np
import pytest

from tests import browser, seeing
from tests.control.test_seeing import Looking
from tests.rollout.scripted import HORIZON
from tests.server.served import OBSERVATION, ask, connected, served

pytestmark = pytest.mark.skipif(browser.BROWSER is None, reason=browser.NEEDED)

BROKEN_WORDS = r"""[...document.querySelectorAll("#contract th, #contract td")].flatMap((cell) =>
  [...cell.firstChild.data.matchAll(/[\w.]+/g)].filter((word) => {
    const range = document.createRange();
    range.setStart(cell.firstChild, word.index);
    range.setEnd(cell.firstChild, word.index + word[0].length);
    return range.getClientRects().length > 1;
  }).map((word) => word[0]))"""
"""Words of the contract's table that stand on more than one line."""


def test_the_page_shows_the_server_live_and_loads_nothing_from_elsewhere() -> None:
    with served() as server, connected(server) as robot, browser.page() as page:
        for _ in range(5):
            assert "actions" in ask(robot, OBSERVATION)
        page.open(f"http://127.0.0.1:{server.port}/")
        page.wait_for("document.getElementById('state')?.textContent === 'live'")
        assert page.value("document.title") == "straight – lfm serve"
        assert "PointMass" in page.value("document.getElementById('policy').textContent")
        contract = page.value("document.getElementById('contract').innerText")
        for words in ("control_hz", "20", "absolute", "position (2); goal (2)"):
            assert words in contract
        assert page.value(BROKEN_WORDS) == []
        bars = "[...document.querySelectorAll('#latency rect')].filter(bar => bar.getAttribute('height') > 0).length"
        assert page.value(bars) >= 1
        lines = page.value("[...document.querySelectorAll('#chunk polyline')].map(p => p.getAttribute('points'))")
        assert [len(points.split()) for points in lines] == [HORIZON, HORIZON]
        assert page.value("document.querySelectorAll('#which option').length") == 5
        assert page.value("document.querySelectorAll('#clients tr').length") == 2
        for _ in range(3):
            assert "actions" in ask(robot, OBSERVATION)
        page.wait_for("[...document.querySelectorAll('dd')].some(dd => dd.textContent === '8')")
        assert all(url.startswith(f"http://127.0.0.1:{server.port}/") for url in page.urls if "data:" not in url)
        assert len(page.urls) >= 3
        assert page.complaints == []


def test_the_page_says_when_the_server_is_gone() -> None:
    with browser.page() as page:
        with served() as server:
            page.open(f"http://127.0.0.1:{server.port}/")
            page.wait_for("document.getElementById('state')?.textContent === 'live'")
        page.wait_for("document.getElementById('state')?.textContent !== 'live'")
        assert page.value("document.getElementById('state').textContent").startswith("no answer")


def test_the_page_shows_the_last_pictures_of_a_policy_with_cameras() -> None:
    environment = seeing.SeeingPointMass()
    observation = environment.reset(3) | environment.look()
    with served(Looking()) as server, connected(server) as robot, browser.page() as page:
        page.open(f"http://127.0.0.1:{server.port}/")
        page.wait_for("document.getElementById('seen').textContent === 'none yet'")
        assert "actions" in ask(robot, observation)
        page.wait_for("document.querySelectorAll('#pictures canvas').length === 1")
        pixels = "[...document.querySelector('#pictures canvas').getContext('2d').getImageData(0, 0, 32, 32).data]"
        shown = np.array(page.value(pixels), np.uint8).reshape(seeing.SIDE, seeing.SIDE, 4)
        assert np.array_equal(shown[..., :3], observation["above_image"])
        assert page.value("document.querySelector('#pictures figcaption').textContent") == "above"
        assert page.complaints == []
