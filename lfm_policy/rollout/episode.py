"""One episode under way: what the robot saw and did so far, and the result at its end."""

import hashlib
import time

import numpy as np

from lfm_policy.actions.motion import seam_jerk
from lfm_policy.chunks.horizon import RecedingHorizon
from lfm_policy.contract import Contract
from lfm_policy.rollout.records import EpisodeResult, Segment


class Episode:
    """The episode of one seed, wherever it is played: the same observations and actions give the same result.

    Args:
        seed: decides the start and the noise.
        horizon: turns observations and chunks into actions.
        contract: what actions mean.
        limit: steps after which it is over.
    """

    def __init__(self, seed: int, horizon: RecedingHorizon, contract: Contract, limit: int) -> None:
        self.seed, self.horizon, self._contract, self._limit = seed, horizon, contract, limit
        self._hash = hashlib.sha256()
        self._started = time.perf_counter()
        self._seconds: list[float] = []
        self._commands: list[np.ndarray] = []
        self._seams: list[int] = []
        self._steps = self._nfe = 0
        self._rewards: list[np.ndarray] = []
        self._success = False
        self._mode: str | None = None

    @property
    def over(self) -> bool:
        """Whether it has succeeded, or run out of steps."""
        return self._success or self._steps >= self._limit

    def absorb(self, segment: Segment) -> None:
        """Take in what the environment did."""
        self._hash.update(segment.observations.tobytes())
        self._hash.update(b"" if segment.seen is None else segment.seen.tobytes())
        self.horizon.observe(segment.observations, segment.seen)
        self._steps += len(segment.rewards)
        self._rewards.append(segment.rewards)
        self._success = segment.success
        self._mode = segment.mode

    def plan(self, chunk: np.ndarray, nfe: int, seconds: float) -> np.ndarray:
        """Accept a chunk; return the actions to execute now, (k, action_dim), fewer where the episode ends before.

        Args:
            chunk: (T, action_dim).
            nfe: network evaluations that it took.
            seconds: time that it took [s].
        """
        self._nfe += nfe
        self._seconds.append(seconds)
        return self._advance(chunk)

    def go_on(self) -> np.ndarray:
        """Do without the chunk, which was lost; return the actions to execute now, (k, action_dim)."""
        return self._advance(None)

    def _advance(self, chunk: np.ndarray | None) -> np.ndarray:
        executed = self.horizon.advance(chunk)
        if executed.seam is not None:
            self._seams.append(self._steps + executed.seam)
        actions = executed.actions[: self._limit - self._steps]
        self._hash.update(actions.tobytes())
        self._commands.append(actions)
        return actions

    def result(self, workers: int = 1, attempts: int = 1) -> EpisodeResult:
        """Return the result of an episode that is over."""
        commands = np.concatenate(self._commands)[: self._steps]
        rewards = np.concatenate(self._rewards)
        seam, inner = (jerk and round(jerk, 3) for jerk in seam_jerk(self._contract, commands, self._seams))
        return EpisodeResult(
            seed=self.seed,
            success=self._success,
            steps=self._steps,
            steps_to_success=self._steps if self._success else None,
            chunks=self.horizon.chunks,
            nfe=self._nfe,
            final_reward=float(rewards[-1]) if len(rewards) else 0.0,
            largest_reward=float(rewards.max()) if len(rewards) else None,
            mean_reward=float(rewards.mean()) if len(rewards) else None,
            digest=self._hash.hexdigest()[:16],
            chunk_ms=tuple(round(1000 * seconds, 3) for seconds in self._seconds),
            policy_seconds=round(sum(self._seconds), 6),
            wall_seconds=round(time.perf_counter() - self._started, 6),
            workers=workers,
            attempts=attempts,
            seam_jerk=seam,
            inner_jerk=inner,
            mode=self._mode,
        )
