"""An HTML page that needs nothing from elsewhere: what came out, what it looks like, and what was run."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from lfm_policy.files import keeping, write_text

Cell = str | int | float | bool | None
PAGE = "report.html"
"""Name of the page in a result's folder."""
LARGEST_FILM = 1_500_000
"""Bytes of a picture or film that is put into a page; a larger one is left beside it."""


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    title: str
    rows: Sequence[tuple[str, Cell]]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Rate:
    """A share with its interval."""

    name: str
    value: float
    low: float
    high: float
    note: str = ""
    """For example "96 of 100"."""


@dataclass(frozen=True)
class Rates:
    """Shares on one scale from 0 to 1."""

    title: str
    rates: Sequence[Rate]
    note: str = ""
    kind: ClassVar[str] = "rates"


@dataclass(frozen=True)
class Sheet:
    """A table; a click on a column's name sorts by it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    kind: ClassVar[str] = "sheet"


@dataclass(frozen=True)
class Picture:
    """A picture or a film, as it stands in its file."""

    content: bytes
    media: str
    """Its type: "image/png", "image/jpeg", "video/mp4"."""
    caption: str = ""

    @property
    def address(self) -> str:
        """The content as an address of its own."""
        return f"data:{self.media};base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True)
class Pictures:
    """Pictures and films, one below the other."""

    title: str
    pictures: Sequence[Picture]
    note: str = ""
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class Lines:
    """Text as it is typed: commands."""

    title: str
    lines: Sequence[str]
    kind: ClassVar[str] = "lines"


Part = Facts | Rates | Sheet | Pictures | Lines
Origin = Mapping[str, str]
"""What made the result, by name: "command", "commit"."""


def write_page(path: str | Path, title: str, parts: Sequence[Part], answer: str = "") -> str | None:
    """Write a page, atomically; parts without content are left out.

    Args:
        path: of the HTML file.
        title: of the page.
        parts: in the order in which they are shown.
        answer: the result in one sentence.

    Returns:
        Why there is no page, or None.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ModuleNotFoundError:
        return "jinja2 is not installed (pip install 'lfm-policy[media]')"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["plain"] = plain
    environment.tests["number"] = lambda value: isinstance(value, int | float) and not isinstance(value, bool)
    template = environment.from_string(files("lfm_policy.reports").joinpath("page.html").read_text(encoding="utf-8"))
    shown = [part for part in parts if _has_content(part)]
    with keeping(path):
        write_text(path, template.render(title=title, parts=shown, answer=answer))
    return None


def plain(value: Cell) -> str:
    """Write a cell as one reads it: numbers to four digits, a dash for what is unknown."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)


def flat(values: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """List the values of a record, and those of records inside, by dotted names."""
    rows: list[tuple[str, Cell]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += [(f"{name}.{inner}", cell) for inner, cell in flat(value)]
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(plain(item) for item in value)))
        elif value is not None:
            rows.append((name, value))
    return rows


def rate_in(name: str, summary: Mapping[str, Any]) -> Rate:
    """Return a success rate as summaries hold it: "success", "interval", "episodes"."""
    low, high = summary["interval"]
    succeeded = round(summary["success"] * summary["episodes"])
    return Rate(name, summary["success"], low, high, f"{succeeded} of {summary['episodes']}")


def pictures_in(*paths: Path, caption: str = "") -> list[Picture]:
    """Read those of these picture files and films that there are and that are small enough for a page."""
    media = {".png": "image/png", ".jpg": "image/jpeg", ".mp4": "video/mp4"}
    found = [path for path in paths if path.exists() and path.stat().st_size <= LARGEST_FILM]
    return [Picture(path.read_bytes(), media[path.suffix], caption) for path in found]


def _has_content(part: Part) -> bool:
    match part:
        case Facts() | Sheet():
            return bool(part.rows)
        case Rates():
            return bool(part.rates)
        case Pictures():
            return bool(part.pictures)
        case Lines():
            return bool(part.lines)
