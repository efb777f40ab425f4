"""What a terminal can show: one that knows ASCII alone gets the nearest ASCII, and no command dies of a letter."""

import codecs
import sys
import unicodedata
from io import TextIOWrapper

_SIGNS = {"±": "+-", "°": " deg", "γ": "gamma", "·": "*", "×": "x", "→": "->", "≥": ">=", "≤": "<=", "–": "-", "—": "-"}


def _nearest(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_SIGNS.get(letter) or _plain(letter) for letter in text), error.end


def _plain(letter: str) -> str:
    return unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() or "?"


def speak_plainly() -> None:
    """Let standard output and error replace what their encoding lacks."""
    codecs.register_error("lfm-nearest", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="lfm-nearest")
