"""Errors that a user can act on. Each message says what was expected, what was found and what to do."""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any


class LFMError(Exception):
    """Base of every error this package raises on purpose; scripts print it without a traceback."""


class ConfigError(LFMError):
    """A setting is missing, misspelt or out of range."""


class DataError(LFMError):
    """A demonstration file or a prepared data set cannot be used as it is."""


class ContractError(LFMError):
    """Two sides (data, checkpoint, environment, client) disagree about what actions and observations mean."""


class CheckpointError(LFMError):
    """A checkpoint is incomplete, damaged or belongs to another run."""


class BusyError(LFMError):
    """Another command writes to the same output folder."""


class RolloutError(LFMError):
    """An evaluation cannot go on, for example because a worker keeps crashing."""


class ServingError(LFMError):
    """A policy server refuses a request, or cannot be reached."""


class HubError(LFMError):
    """The Hugging Face hub refuses a request, or cannot be reached."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which of the `known` names was probably meant, or list them all."""
    known = sorted(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean '{match[0]}'?" if match else f"known: {', '.join(known)}"


def shown(value: object, limit: int = 80) -> str:
    """Write a value that may come from a stranger: one printable line of `limit` characters, cut before it is built."""
    text = _Brief(limit).repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def printable(text: str) -> str:
    """Escape colour codes and all else that is not printable, but for line breaks: names may come from strangers."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str, limit: int = 300) -> str:
    """Cut a text to `limit` characters, and escape line breaks, colour codes and all else that is not printable."""
    line = printable(text[:limit]).replace("\n", "\\n")
    return line if len(line) == len(text) else line[:limit] + "…"


class _Brief(reprlib.Repr):
    """Cuts what is long at every level, so that the time it takes does not depend on the value."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.maxstring = self.maxother = limit
        self.maxlevel = 3
        self.repr_bytes: Any = self.repr_str

    def repr_ndarray(self, value: Any, level: int) -> str:
        return f"array of dtype {value.dtype} and shape {reprlib.repr(value.shape)}"
