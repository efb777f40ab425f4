"""Errors that a user can act on. Each message says what was expected, what was found and what to do."""

import difflib
from collections.abc import Iterable


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


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which of the `known` names was probably meant, or list them all."""
    known = sorted(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean '{match[0]}'?" if match else f"known: {', '.join(known)}"
