"""What travels between workers, runner, subscribers and report: small frozen records."""

from dataclasses import dataclass

import numpy as np

from lfm_policy.contract import Contract
from lfm_policy.settings import Frozen

FrameSize = tuple[int, int] | None
"""Width and height of the frames to render [pixels]."""


@dataclass(frozen=True)
class Ready:
    """A worker holds its environment."""

    contract: Contract
    horizon: int


@dataclass(frozen=True)
class Segment:
    """What happened between two messages to a worker: a reset, or up to Ta executed actions."""

    observations: np.ndarray
    """float32 (k, observation_dim), flattened in the contract's order; k = 1 after a reset."""
    rewards: np.ndarray
    """float64 (k,); empty after a reset."""
    success: bool
    frames: np.ndarray | None
    """uint8 (k, height, width, 3) where rendering was asked for."""
    seen: np.ndarray | None = None
    """uint8 (cameras, height, width, 3): what the contract's cameras see after the last of these steps."""
    seconds: float = 0.0
    """How long the environment took [s]."""
    actions: np.ndarray | None = None
    """(k, action_dim): what was executed; None after a reset."""
    mode: str | None = None
    """Which of the contract's modes the episode has taken by now."""


@dataclass(frozen=True)
class Failure:
    """A worker raised, died or did not answer in time."""

    reason: str
    """The child's own traceback, and the end of what it printed."""
    final: bool
    """The child raised one of our own errors: the same would happen again."""


class EpisodeResult(Frozen):
    """One line of episodes.jsonl."""

    seed: int
    success: bool
    steps: int
    steps_to_success: int | None
    chunks: int
    nfe: int
    """Network evaluations of the whole episode."""
    final_reward: float
    largest_reward: float | None = None
    """Largest reward of any step; None in logs of older versions, as `mean_reward`."""
    mean_reward: float | None = None
    digest: str
    """Hash of every observation and action: equal digests mean the same episode, bit for bit."""
    chunk_ms: tuple[float, ...]
    """Milliseconds that each policy call took."""
    policy_seconds: float
    wall_seconds: float
    workers: int
    """Workers that ran beside each other, this one included."""
    attempts: int = 1
    """1, and one more for every time that its worker failed."""
    seam_jerk: float | None = None
    """Root mean square jerk of the commands where one chunk follows another [unit/s³]; see Contract.unit."""
    inner_jerk: float | None = None
    """The same elsewhere."""
    mode: str | None = None
    """Which of the contract's modes it took; None where there are none, or there was no choice."""
