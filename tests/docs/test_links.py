"""Links inside the documentation lead to files and headings that exist; the build checks those between pages too."""

from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, links

GENERATED = ("reference/commands.md", "reference/errors.md", "reference/api/")
"""Below docs/, made when the site is built, whose strict build checks the links to them."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = [target for target in links(page) if not _leads_somewhere(page, target)]
    assert broken == []


def _leads_somewhere(page: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    file = (page.parent / name).resolve() if name else page
    if file.is_relative_to(ROOT / "docs") and str(file.relative_to(ROOT / "docs")).startswith(GENERATED):
        return True
    return file.exists() and file.is_relative_to(ROOT) and (not anchor or anchor in anchors(file))


def test_a_broken_link_is_found() -> None:
    page = ROOT / "README.md"
    assert _leads_somewhere(page, "docs/concepts/glossary.md#glossary")
    assert not _leads_somewhere(page, "docs/concepts/glossary.md#nothing")
    assert not _leads_somewhere(page, "docs/nothing.md")
    assert not _leads_somewhere(page, "../outside.md")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
