"""The best of several chunks: draw K, keep the one that the policy itself finds most likely."""

import numpy as np

from lfm_policy.chunks.monitor import Monitor
from lfm_policy.contract import Contract
from lfm_policy.errors import ConfigError
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.protocols import ChunkBatch


class BestOf:
    """A `ChunkPolicy` that draws K chunks at each step and keeps the one with the highest density.

    Args:
        policy: where the chunks come from.
        count: K.
        probes: of Hutchinson's estimator.

    Raises:
        ConfigError: there is nothing to choose from.
    """

    def __init__(self, policy: LFMPolicy, count: int, probes: int = 2) -> None:
        if count < 2:
            raise ConfigError(f"the best of {count} chunks is no choice: expected at least 2")
        self.policy, self.count = policy, count
        self._monitor = Monitor(policy, "density", probes)
        self.contract: Contract = policy.contract
        self.observation_steps, self.action_steps = policy.observation_steps, policy.action_steps
        self.noise_shape = (count, *policy.noise_shape)

    @property
    def portable(self) -> bool:
        """`PortablePolicy`, as the policy inside."""
        return self.policy.portable

    def predict(self, histories: np.ndarray, noise: np.ndarray, frames: np.ndarray | None = None) -> ChunkBatch:
        """Predict as a `ChunkPolicy`; the densities' network evaluations count, vector-Jacobian products do not."""
        rows, repeated = len(histories), np.repeat(histories, self.count, axis=0)
        seen = None if frames is None else np.repeat(frames, self.count, axis=0)
        batch = self.policy.predict(repeated, noise.reshape(-1, *self.policy.noise_shape), seen)
        scores = self._monitor.scores(repeated, batch.actions, seen).reshape(rows, self.count)
        best = np.arange(rows) * self.count + scores.argmin(axis=1)
        return ChunkBatch(batch.actions[best], 2 * batch.nfe * self.count)

    def digest(self) -> str:
        """Hash of all that decides what the policy does."""
        return f"{self.policy.digest()}-best{self.count}"
