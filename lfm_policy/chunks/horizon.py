"""Receding horizon: a wrapper that turns any chunk policy into one that acts step by step through an episode."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from lfm_policy.errors import RolloutError
from lfm_policy.protocols import ChunkPolicy


@dataclass(frozen=True)
class Executed:
    """What the robot does until the next chunk is asked for."""

    actions: np.ndarray
    """(k, action_dim)."""
    seam: int | None
    """Index of the first action of the new chunk, `len(actions)` where it begins later; None without a new chunk."""


class EpisodeInputs:
    """What a policy is asked with in one episode: the history of observations, and the noise of the next chunk.

    The history holds the last To observations and repeats the first one at the start. The noise of chunk k in the
    episode of seed s comes from a generator seeded with (s, k) and nothing else.

    Args:
        policy: knows the shapes; it is not called.
        seed: of the episode (>= 0).
        chunks: chunks of this episode that were predicted before, elsewhere.
    """

    def __init__(self, policy: ChunkPolicy, seed: int, chunks: int = 0) -> None:
        self._policy = policy
        self.reset(seed, chunks)

    def reset(self, seed: int, chunks: int = 0) -> None:
        """Forget the episode and begin, or continue, the one of `seed`."""
        self._seed, self._chunks = seed, chunks
        self._rows: deque[np.ndarray] = deque(maxlen=self._policy.observation_steps)
        self._frames: np.ndarray | None = None

    @property
    def chunks(self) -> int:
        """Chunks that have been answered: the index of the next one."""
        return self._chunks

    def observe(self, observations: np.ndarray, frames: np.ndarray | None = None) -> None:
        """Append observations (k, observation_dim), oldest first, and what cameras saw at the latest of them.

        Args:
            observations: flattened.
            frames: uint8 (cameras, height, width, 3); None keeps those before.
        """
        self._rows.extend(observations)
        self._frames = self._frames if frames is None else frames

    def answered(self) -> None:
        """Take note that the chunk asked for has come: the next one is made from other noise."""
        self._chunks += 1

    @property
    def history(self) -> np.ndarray:
        """The policy's input, float32 (To, observation_dim), the latest last.

        Raises:
            RolloutError: nothing has been observed.
        """
        if not self._rows:
            raise RolloutError("no observation yet: call observe() before asking for the history")
        missing = self._policy.observation_steps - len(self._rows)
        return np.stack([self._rows[0]] * missing + list(self._rows)).astype(np.float32)

    @property
    def frames(self) -> np.ndarray | None:
        """What the cameras saw last, uint8 (cameras, height, width, 3); None for a policy without cameras.

        Raises:
            RolloutError: the policy has cameras, and there is no picture yet.
        """
        if not self._policy.contract.cameras:
            return None
        if self._frames is None:
            raise RolloutError("no pictures yet: observe() with frames before asking for a policy that sees")
        return self._frames

    @property
    def inputs(self) -> tuple[np.ndarray, ...]:
        """What the policy's `predict` is called with for this episode alone: a batch of one."""
        frames = self.frames
        return (self.history[None], self.noise[None], *(() if frames is None else (frames[None],)))

    @property
    def noise(self) -> np.ndarray:
        """The noise of the chunk to predict next, float32 of the policy's noise_shape."""
        generator = np.random.default_rng((self._seed, self._chunks))
        return generator.standard_normal(self._policy.noise_shape).astype(np.float32)


class RecedingHorizon(EpisodeInputs):
    """One episode's history, noise and chunks; the policy itself keeps no state.

    Of a predicted chunk the actions with indices To-1 ... To-2+Ta are executed: index 0 belongs to the oldest
    observation of the history.

    Example:
        horizon = RecedingHorizon(policy, seed=100000)
        action = horizon.act(contract.flatten(observation))
    """

    def reset(self, seed: int, chunks: int = 0) -> None:
        """Forget the episode and begin, or continue, the one of `seed`."""
        super().reset(seed, chunks)
        self._queue: deque[np.ndarray] = deque()

    @property
    def running(self) -> np.ndarray | None:
        """The chunk (T, action_dim) that the next one is to continue; None where it begins from noise."""
        return None

    @property
    def lost(self) -> bool:
        """Whether the chunk wanted now will not come, so that nobody needs to compute it."""
        return False

    def advance(self, chunk: np.ndarray | None) -> Executed:
        """Accept the chunk (T, action_dim) predicted from the latest observation, or None where it was lost.

        Raises:
            RolloutError: the chunk is too short, holds a number that is not finite, or is missing where there is
                nothing to go on with.
        """
        actions = self._executable(chunk)
        self.answered()
        return Executed(actions, seam=0)

    def act(self, observation: np.ndarray, frames: np.ndarray | None = None) -> np.ndarray:
        """Take one observation (observation_dim,), give one action (action_dim,); predict when the last chunk is over.

        Of a policy with cameras, what they see now too: uint8 (cameras, height, width, 3).
        """
        self.observe(observation[None], frames)
        if not self._queue:
            batch = self._policy.predict(*self.inputs)
            self._queue.extend(self.advance(batch.actions[0]).actions)
        return self._queue.popleft()

    def _executable(self, chunk: np.ndarray | None) -> np.ndarray:
        """Return the actions (Ta, action_dim) of a chunk that are executed."""
        if chunk is None:
            raise RolloutError(
                "there is no chunk, and no earlier one to go on with: give advance() the policy's first one"
            )
        first, count = self._policy.observation_steps - 1, self._policy.action_steps
        if len(chunk) < first + count:
            raise RolloutError(
                f"a chunk of {len(chunk)} actions is too short: {count} actions from index {first} on are executed"
            )
        actions = np.asarray(chunk[first : first + count])
        if not np.isfinite(actions).all():
            raise RolloutError(
                f"the policy's chunk {self.chunks} of seed {self._seed} holds NaN or infinity: "
                "the checkpoint's weights or its normaliser are damaged, or training diverged"
            )
        return actions
