"""The pages that readers see: their text, links, headings and code blocks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "examples")
PAGES = sorted(
    [*ROOT.glob("*.md"), ROOT / "data/README.md", *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
)
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
RUN = "<!-- run -->"
"""Before a Python block: execute it, do not only compile it."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    run: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> Iterator[Block]:
    """Yield the blocks of all pages in these languages."""
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            if match["language"] in languages:
                before = text[: match.start()]
                run = before.rstrip().endswith(RUN)
                yield Block(page, before.count("\n") + 2, match["language"], match["text"], run)


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", page.read_text())


def links(page: Path) -> Iterator[str]:
    """Yield the targets of a page's links and pictures that lead into this repository."""
    for match in LINK.finditer(re.sub(r"`[^`\n]*`", "", prose(page))):
        if not re.match(r"[a-z]+:", match["target"]):
            yield match["target"]


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as both the site and Git hosts make them."""
    titles = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
