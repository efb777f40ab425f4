"""The committed figures are those that docs/assets/draw.py draws."""

import runpy

import pytest

from tests.docs.pages import ROOT


@pytest.mark.parametrize("name", ["chain", "timeline"])
def test_figures_are_what_the_script_draws(name: str) -> None:
    draw = runpy.run_path(str(ROOT / "docs/assets/draw.py"))
    assert (ROOT / f"docs/assets/{name}.svg").read_text() == draw[name]()
