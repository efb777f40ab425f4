"""The line between a robot and its policy, simulated in control steps: delay, loss, and who waits for whom.

All of it is a function of the episode's seed and takes no time, so success can be measured against delay.
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from lfm_policy.actions.motion import hold
from lfm_policy.chunks.horizon import RecedingHorizon
from lfm_policy.chunks.timeline import Seam, Timeline
from lfm_policy.errors import ConfigError
from lfm_policy.protocols import ChunkPolicy, WarmChunkPolicy
from lfm_policy.settings import Frozen

Inference = Literal["sync", "async"]
"""The robot stands still while a chunk is computed; or it executes the chunk before, and drops what comes too late."""


class Link(Frozen):
    """How observations become chunks, and chunks motion. The default is the plain receding horizon."""

    inference: Inference = "sync"
    seam: Seam = "switch"
    latency_steps: int = Field(default=0, ge=0)
    """Control steps between an observation and the chunk predicted from it."""
    loss: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a chunk is asked for and never comes; the robot asks again when it should have come."""

    @property
    def identity(self) -> dict[str, Any]:
        """What of it decides an episode, as plain values; nothing for the default."""
        return {} if self == Link() else self.model_dump(mode="json")

    def horizon(self, policy: ChunkPolicy, seed: int) -> RecedingHorizon:
        """The episode of `seed` under this link."""
        return RecedingHorizon(policy, seed) if self == Link() else LinkedHorizon(policy, seed, self)


class LinkedHorizon(RecedingHorizon):
    """A receding horizon whose chunks arrive late, or not at all. The robot starts to move with its first chunk."""

    def __init__(self, policy: ChunkPolicy, seed: int, link: Link) -> None:
        self._link = link
        super().__init__(policy, seed)

    def reset(self, seed: int) -> None:
        """Forget the episode and begin the one of `seed` (>= 0)."""
        super().reset(seed)
        self._timeline = Timeline(self._policy.observation_steps, self._link.seam)
        self._step = self._asked = 0
        self._last: np.ndarray | None = None

    @property
    def running(self) -> np.ndarray | None:
        """The running chunk, where the next one is to continue it."""
        return self._timeline.running(self._step) if self._link.seam == "warm" else None

    def unanswered(self) -> np.ndarray | None:
        """The actions until the next try, where the exchange is lost."""
        self._asked += 1
        lost = np.random.default_rng((self._seed, self._asked, 1)).random() < self._link.loss
        if not lost or self._last is None:
            return None
        still = self._link.inference == "sync"
        return self._go_on(max(1, self._link.latency_steps), still=still)

    def executed(self, chunk: np.ndarray) -> np.ndarray:
        """Accept the chunk predicted from the latest observation; return the actions until the next is asked for."""
        count = len(super().executed(chunk))
        step, late = self._step, 0 if self._last is None else self._link.latency_steps
        self.seam = late
        if self._link.inference == "sync":
            waiting = self._go_on(late, still=True)
            self._timeline.add(chunk, step + late)
            return np.concatenate([waiting, self._go_on(count)])
        self._timeline.add(chunk, step, arrival=step + late)
        return self._go_on(max(count, late))

    def _go_on(self, steps: int, still: bool = False) -> np.ndarray:
        actions = [self._next(still) for _ in range(steps)]
        return np.stack(actions) if actions else np.zeros((0, self._policy.contract.action_dim), np.float32)

    def _next(self, still: bool) -> np.ndarray:
        action = None if still else self._timeline.at(self._step)
        if action is None:
            assert self._last is not None  # nothing is asked of the robot before its first chunk
            action = hold(self._policy.contract, self._last)
        self._last, self._step = action, self._step + 1
        return action


def require_seam(policy: ChunkPolicy, seam: Seam) -> None:
    """Raise ConfigError where a policy that cannot continue chunks is asked to."""
    if seam == "warm" and not isinstance(policy, WarmChunkPolicy):
        raise ConfigError(
            f"seam=warm needs a policy that can enter its chain at the running chunk (WarmStart of a torch policy), "
            f"found {type(policy).__name__}: use seam=ensemble or seam=switch"
        )
