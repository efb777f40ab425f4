"""Pages hold all that they show: looked at as text, and in a real browser."""

import base64
import re

import pytest

from lfm_policy.reports.charts import Curve, chart
from lfm_policy.reports.page import Facts, Lines, Picture, Pictures, Rate, Rates, Sheet, flat, pictures_in, write_page
from tests import browser

pytest.importorskip("jinja2", reason="pages are written by jinja2 (extra media)")
pytest.importorskip("matplotlib", reason="charts are drawn by matplotlib (extra media)")

PARTS = [
    Rates("Success", [Rate("lift", 0.96, 0.9, 0.98, "96 of 100"), Rate("long " * 20, 0.5, 0.4, 0.6, "50 of 100")]),
    Facts("Numbers", [("steps", 38.123456), ("nothing", None)]),
    Pictures("Curve", chart({"loss": Curve([1, 2, 3], [3.0, 2.0, 1.0], [2, 1, 0.5], [4, 3, 2])}, "update", "loss")),
    Sheet("Episodes", ("seed", "success", "steps"), [(9, True, 40.5), (10, False, 400.0), (100, True, 7.25)]),
    Lines("Command", ["lfm evaluate policy=<b>x</b> out='a b'"]),
]


def test_what_is_given_is_text_and_never_markup(tmp_path) -> None:
    assert write_page(tmp_path / "page.html", "<script>alert(1)</script>", PARTS, "better & faster") is None
    text = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert "better &amp; faster" in text
    assert "38.12" in text


def test_a_page_names_no_address_of_the_network(tmp_path) -> None:
    write_page(tmp_path / "page.html", "page", PARTS)
    assert re.findall(r'(?:src|href)="(?!data:)', (tmp_path / "page.html").read_text()) == []


def test_parts_without_content_are_left_out(tmp_path) -> None:
    write_page(
        tmp_path / "page.html", "page", [Facts("F", []), Sheet("S", ("a",), []), Pictures("P", []), Lines("L", [])]
    )
    assert "<section>" not in (tmp_path / "page.html").read_text()


def test_records_become_rows_with_dotted_names() -> None:
    values = {"a": 1, "b": {"c": "x", "d": None}, "e": [1.0, True]}
    assert flat(values) == [("a", 1), ("b.c", "x"), ("e", "1, yes")]


def test_only_files_that_are_there_and_small_are_shown(tmp_path) -> None:
    (tmp_path / "small.png").write_bytes(b"abc")
    (tmp_path / "large.mp4").write_bytes(bytes(2_000_000))
    (found,) = pictures_in(tmp_path / "small.png", tmp_path / "large.mp4", tmp_path / "none.jpg", caption="c")
    assert found == Picture(b"abc", "image/png", "c")
    assert base64.b64decode(found.address.removeprefix("data:image/png;base64,")) == b"abc"


@pytest.mark.skipif(browser.BROWSER is None, reason=browser.NEEDED)
def test_in_a_browser_it_is_complete_sorts_and_loads_nothing(tmp_path) -> None:
    write_page(tmp_path / "page.html", "A page", PARTS)
    with browser.page() as page:
        page.open((tmp_path / "page.html").as_uri())
        page.wait_for("document.title === 'A page' && document.images[0]?.complete")
        assert page.value("document.images[0].naturalWidth") > 500
        first = "[...document.querySelectorAll('.sortable tbody tr')].map((row) => row.cells[0].textContent).join()"
        click = "document.querySelectorAll('.sortable button')[{}].click()"
        assert page.value(first) == "9,10,100"
        page.value(click.format(0))
        assert page.value(first) == "9,10,100"  # as numbers, not as text
        page.value(click.format(0))
        assert page.value(first) == "100,10,9"
        page.value(click.format(2))
        assert page.value(first) == "100,9,10"
        left = page.value("document.querySelector('.point').getBoundingClientRect().left")
        bar = "document.querySelector('.bar').getBoundingClientRect()"
        share = (left - page.value(f"{bar}.left")) / page.value(f"{bar}.width")
        assert share == pytest.approx(0.96, abs=0.02)
        heights = (
            "[...document.querySelectorAll('.rates strong')].map((number) => number.getClientRects().length).join()"
        )
        assert page.value(heights) == "1,1", "numbers are not broken into lines"
        assert [url for url in page.urls if not url.startswith(("file:", "data:"))] == []
        assert page.complaints == []
