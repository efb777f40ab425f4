"""The HTML report of an evaluation and of a comparison, from episodes that were played, in a real browser."""

import io

import numpy as np
import pytest
from rich.console import Console

from lfm_envs.point_mass import PointMass
from lfm_policy.rollout.compare import AGAINST, compare, sentence
from lfm_policy.rollout.episode_log import read_episodes
from lfm_policy.rollout.evaluation import Evaluation
from lfm_policy.rollout.pages import write_comparison, write_evaluation
from lfm_policy.rollout.records import Segment
from lfm_policy.rollout.report import write_report
from lfm_policy.rollout.runner import RunnerOptions
from lfm_policy.rollout.strips import GAP, MOMENTS, SIDE, StripWriter
from lfm_policy.rollout.video import film
from tests import browser
from tests.rollout.scripted import Straight
from tests.rollout.test_report import episode

pytest.importorskip("jinja2", reason="pages are written by jinja2 (extra media)")
pytest.importorskip("imageio_ffmpeg", reason="films need imageio-ffmpeg (extra media)")

ORIGIN = {"command": "lfm evaluate policy=straight episodes=20", "commit": "abc"}
SEEDS = range(100, 120)


def evaluation(name: str, gain: float) -> Evaluation:
    """A policy that is too slow for some starts where `gain` is small."""
    identity = {"environment": "point_mass", "checkpoint": f"digest-of-{name}"}
    return Evaluation(Straight(gain=gain), PointMass, identity, name, RunnerOptions(workers=1))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """The folder of a comparison, with its page, and the page of the first policy alone beside."""
    out, console = tmp_path_factory.mktemp("comparison"), Console(file=io.StringIO())
    first, second = evaluation("quick", 1.0), evaluation("slow", 0.4)
    found = compare(first, second, SEEDS, out, look_every=5, console=console)
    ours, theirs = (sorted(read_episodes(f / "episodes.jsonl"), key=lambda r: r.seed) for f in (out, out / AGAINST))
    sides = (("quick", first, ours), ("slow", second, theirs))
    assert write_comparison(sides, found, sentence(found, "quick", "slow"), 5, out, ORIGIN) is None
    alone = out / AGAINST
    write_report(second, theirs, alone, console)
    film(second, theirs, alone, 1, console)
    assert write_evaluation(second, theirs, alone, ORIGIN) is None
    return out


def test_an_evaluation_says_all_that_was_run(comparison) -> None:
    text = (comparison / AGAINST / "report.html").read_text()
    for words in (
        "lfm evaluate policy=straight",
        "abc",
        "digest-of-slow",
        "Wilson",
        "Failures",
        "image/jpeg",
        "video/mp4",
    ):
        assert words in text, words
    for result in read_episodes(comparison / AGAINST / "episodes.jsonl"):
        assert result.digest in text


def test_a_comparison_shows_pairs_looks_and_answer(comparison) -> None:
    text = (comparison / "report.html").read_text()
    for words in ("success differs by +", "quick succeeds", "digest-of-quick", "digest-of-slow", "image/png"):
        assert words in text, words


@pytest.mark.skipif(browser.BROWSER is None, reason=browser.NEEDED)
def test_in_a_browser_films_play_and_pictures_are_shown(comparison) -> None:
    with browser.page() as page:
        page.open((comparison / AGAINST / "report.html").as_uri())
        page.wait_for("document.images.length >= 2 && [...document.images].every((image) => image.complete)")
        widths = page.value("[...document.images].map((image) => image.naturalWidth)")
        assert MOMENTS * SIDE + (MOMENTS - 1) * GAP in widths
        page.wait_for("[...document.querySelectorAll('video')].every((film) => film.videoWidth === 256)")
        assert page.value("document.documentElement.scrollWidth <= window.innerWidth")
        page.open((comparison / "report.html").as_uri())
        page.wait_for("document.querySelectorAll('.rates .point').length === 2")
        assert [url for url in page.urls if not url.startswith(("file:", "data:"))] == []
        assert page.complaints == []


def test_a_strip_shows_beginning_and_end_and_what_the_cameras_saw(tmp_path) -> None:
    from PIL import Image

    writer = StripWriter(tmp_path)
    for number in range(101):
        frame = np.full((1, 64, 64, 3), 2 * number, np.uint8)
        seen = np.full((1, 32, 32, 3), 250 - 2 * number, np.uint8) if number < 100 else None
        writer.on_segment(7, Segment(np.zeros((1, 1), np.float32), np.zeros(1), False, frame, seen))
    writer.on_end(episode(7, True))
    strip = np.asarray(Image.open(tmp_path / "success_7.jpg")).astype(int)
    assert strip.shape == (2 * SIDE, MOMENTS * SIDE + (MOMENTS - 1) * GAP, 3)
    moments = strip[SIDE // 2, SIDE // 2 :: SIDE + GAP, 0]
    assert (moments[0], moments[-1]) == (pytest.approx(0, abs=4), pytest.approx(200, abs=4))
    assert np.diff(moments) == pytest.approx(np.full(MOMENTS - 1, 200 / (MOMENTS - 1)), abs=16)
    seen = strip[SIDE + SIDE // 2, SIDE // 2 :: SIDE + GAP, 0]
    assert (seen[0], seen[-1]) == (pytest.approx(250, abs=4), pytest.approx(52, abs=4))
