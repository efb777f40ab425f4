"""Ways in which a task can be done: who takes one of them by chance, and how one tells which an episode took."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lfm_envs.experts.base import Expert
from lfm_envs.lookup import load_object
from lfm_envs.tasks import Task
from lfm_policy.contract import Contract
from lfm_policy.errors import ConfigError

BETWEEN = "between"
"""The mode of an episode in which the choice was made, and for none of the ways."""


@dataclass(frozen=True)
class Modes:
    """The ways in which one task can be done."""

    names: tuple[str, ...]
    expert: Expert
    """Takes each of them equally often, whatever the start; the episode's own generator decides."""
    told: Callable[[Contract, np.ndarray], str | None]
    """Tells by an episode's observations (L, observation_dim), in the contract's order, which way was taken: one of
    `names`, `BETWEEN`, or None before there was a choice."""


def modes_of(task: Task, expected: int | Sequence[str]) -> Modes:
    """Find the ways in which a task can be done.

    Args:
        task: which one.
        expected: how many there should be, or their names.

    Raises:
        ConfigError: others are known.
    """
    if task.modes is None:
        raise ConfigError(f"one way is known to do task '{task.name}': expected modes=1, found {expected}")
    modes: Modes = load_object(task.modes)
    names = modes.names
    if expected != len(names) and expected != names:
        raise ConfigError(f"ways to do task '{task.name}': expected {len(names)}, {names}, or one, found {expected}")
    return modes
