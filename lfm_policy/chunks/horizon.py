"""Receding horizon: a wrapper that turns any chunk policy into one that acts step by step through an episode."""

from collections import deque

import numpy as np

from lfm_policy.errors import RolloutError
from lfm_policy.protocols import ChunkPolicy


class RecedingHorizon:
    """One episode's history, noise and chunks; the policy itself keeps no state.

    The history holds the last To observations and repeats the first one at the start. Of a predicted chunk the actions
    with indices To-1 ... To-2+Ta are executed: index 0 belongs to the oldest observation of the history. The noise of
    chunk k in the episode of seed s comes from a generator seeded with (s, k) and nothing else.

    Example:
        horizon = RecedingHorizon(policy, seed=100000)
        action = horizon.act(contract.flatten(observation))
    """

    seam = 0
    """Actions that the latest `executed` returned before the first one of its chunk."""

    def __init__(self, policy: ChunkPolicy, seed: int) -> None:
        self._policy = policy
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Forget the episode and begin the one of `seed` (>= 0)."""
        self._seed = seed
        self.chunks = 0
        self._rows: deque[np.ndarray] = deque(maxlen=self._policy.observation_steps)
        self._queue: deque[np.ndarray] = deque()

    def observe(self, observations: np.ndarray) -> None:
        """Append observations (k, observation_dim), oldest first."""
        self._rows.extend(observations)

    @property
    def history(self) -> np.ndarray:
        """The policy's input, float32 (To, observation_dim), the latest last."""
        if not self._rows:
            raise RolloutError("no observation yet: call observe() before asking for the history")
        missing = self._policy.observation_steps - len(self._rows)
        return np.stack([self._rows[0]] * missing + list(self._rows)).astype(np.float32)

    @property
    def noise(self) -> np.ndarray:
        """The noise of the chunk to predict next, float32 of the policy's noise_shape."""
        generator = np.random.default_rng((self._seed, self.chunks))
        return generator.standard_normal(self._policy.noise_shape).astype(np.float32)

    @property
    def running(self) -> np.ndarray | None:
        """The chunk (T, action_dim) that the next one is to continue; None where it begins from noise."""
        return None

    def unanswered(self) -> np.ndarray | None:
        """Actions (k, action_dim) to go on with if the chunk wanted now will not come; None if it will."""
        return None

    def executed(self, chunk: np.ndarray) -> np.ndarray:
        """Accept the predicted chunk (T, action_dim) and return the part to execute, (Ta, action_dim).

        Raises:
            RolloutError: the chunk is too short, or holds a number that is not finite.
        """
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
        self.chunks += 1
        return actions

    def act(self, observation: np.ndarray) -> np.ndarray:
        """One observation (observation_dim,) in, one action (action_dim,) out; predicts when the last chunk is over."""
        self.observe(observation[None])
        if not self._queue:
            batch = self._policy.predict(self.history[None], self.noise[None])
            self._queue.extend(self.executed(batch.actions[0]))
        return self._queue.popleft()
