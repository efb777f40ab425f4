"""The line between a robot and its policy, simulated in control steps: delay, loss, and who waits for whom.

All of it is a function of the episode's seed and takes no time, so success can be measured against delay.
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from lfm_policy.actions.motion import hold
from lfm_policy.chunks.horizon import Executed, RecedingHorizon
from lfm_policy.chunks.timeline import Seam, Timeline
from lfm_policy.protocols import ChunkPolicy
from lfm_policy.settings import Frozen

Inference = Literal["sync", "async"]
"""The robot stands still while a chunk is computed; or it executes the chunk before, and drops what comes too late."""


class Link(Frozen):
    """How observations become chunks, and chunks motion. The default is the plain receding horizon."""

    inference: Inference = Field(
        default="sync", description="sync: the robot waits for a chunk; async: it executes the one before meanwhile"
    )
    seam: Seam = Field(
        default="switch",
        description="from chunk to chunk: switch to the newest, ensemble (average), warm (begin at the running one)",
    )
    latency_steps: int = Field(
        default=0, ge=0, description="simulated delay between an observation and its chunk [control steps]"
    )
    packet_loss: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="simulated probability that a chunk never comes; the robot asks again when it should have come",
    )

    @property
    def identity(self) -> dict[str, Any]:
        """What of it decides an episode, as plain values; nothing for the default."""
        return {} if self == Link() else self.model_dump(mode="json")

    def horizon(self, policy: ChunkPolicy, seed: int) -> RecedingHorizon:
        """Return the episode of `seed` under this link."""
        return RecedingHorizon(policy, seed) if self == Link() else LinkedHorizon(policy, seed, self)


class LinkedHorizon(RecedingHorizon):
    """A receding horizon whose chunks arrive late, or not at all. The robot starts to move with its first chunk."""

    def __init__(self, policy: ChunkPolicy, seed: int, link: Link) -> None:
        self._link = link
        super().__init__(policy, seed)

    def reset(self, seed: int, chunks: int = 0) -> None:
        """Forget the episode and begin, or continue, the one of `seed` (>= 0)."""
        super().reset(seed, chunks)
        self._timeline = Timeline(self._policy.observation_steps, self._link.seam)
        self._step = self._tries = 0
        self._last: np.ndarray | None = None

    @property
    def running(self) -> np.ndarray | None:
        """The running chunk, where the next one is to continue it."""
        return self._timeline.running(self._step) if self._link.seam == "warm" else None

    @property
    def lost(self) -> bool:
        """Whether this try will be lost; the first chunk never is, as there is nothing to go on with."""
        draw = np.random.default_rng((self._seed, self._tries + 1, 1)).random()
        return draw < self._link.packet_loss and self._last is not None

    def advance(self, chunk: np.ndarray | None) -> Executed:
        """Accept the chunk predicted from the latest observation; None: go on without until the next try."""
        waits, latency = self._link.inference == "sync", self._link.latency_steps
        if chunk is None and self._last is not None:
            self._tries += 1
            return Executed(self._go_on(max(1, latency), still=waits), seam=None)
        count, late = len(self._executable(chunk)), 0 if self._last is None else latency
        assert chunk is not None  # _executable raises
        self.answered()
        self._tries += 1
        if waits:
            waiting = self._go_on(late, still=True)
            self._timeline.add(chunk, self._step)
            return Executed(np.concatenate([waiting, self._go_on(count)]), seam=late)
        self._timeline.add(chunk, self._step, arrival=self._step + late)
        return Executed(self._go_on(max(count, late)), seam=late)

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
