"""Warm start: continue the running chunk instead of beginning from noise, which a chain of local flows does cheaply.

Block n - 1 begins where the Ornstein-Uhlenbeck process has carried data at time t_n. So what remains of the running
chunk, noised to t_n, enters the chain there, and only the n blocks towards the data are evaluated.
"""

import numpy as np
import torch

from lfm_policy.contract import Contract
from lfm_policy.errors import ConfigError
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.protocols import ChunkBatch


class WarmStart:
    """A `WarmChunkPolicy` made of a policy: `predict` is the policy's own, `resume` begins at the running chunk.

    Args:
        policy: a chain of at least two blocks.
        blocks: n, evaluated by `resume`; fewer cost less and hold more tightly to the running chunk. None: half.

    Raises:
        ConfigError: the chain has no such place to enter.
    """

    def __init__(self, policy: LFMPolicy, blocks: int | None = None) -> None:
        total = policy.chain.schedule.blocks
        self.blocks = total // 2 if blocks is None else blocks
        if not 1 <= self.blocks < total:
            raise ConfigError(
                f"a warm start runs 1 to {total - 1} of this policy's {total} blocks, found {self.blocks}: "
                "use seam=ensemble or seam=switch for a chain with one block"
            )
        self.policy = policy
        self.contract: Contract = policy.contract
        self.observation_steps, self.action_steps = policy.observation_steps, policy.action_steps
        self.noise_shape = policy.noise_shape

    @property
    def portable(self) -> bool:
        """`PortablePolicy`, as the policy inside."""
        return self.policy.portable

    def predict(self, histories: np.ndarray, noise: np.ndarray, frames: np.ndarray | None = None) -> ChunkBatch:
        """Predict as a `ChunkPolicy`: the whole chain, from noise."""
        return self.policy.predict(histories, noise, frames)

    def resume(
        self, histories: np.ndarray, noise: np.ndarray, running: np.ndarray, frames: np.ndarray | None = None
    ) -> ChunkBatch:
        """Resume as a `WarmChunkPolicy`: the last `blocks` blocks, from running chunks (B, T, action_dim), noised."""
        policy, device = self.policy, self.policy.device
        with policy.computing():
            history = torch.from_numpy(histories).to(device)
            features = policy.see(None if frames is None else torch.from_numpy(frames))
            condition = policy.condition(history, features)
            chunks = policy.encoding.encode(torch.from_numpy(running).to(device), history)
            fresh = policy.latent(torch.from_numpy(noise).to(device))
            noised = policy.chain.schedule.marginal(self.blocks, chunks, fresh)
            passage = policy.chain.to_data(noised, condition, start=self.blocks)
            actions = policy.encoding.decode(passage.x, history).cpu().numpy()
        return ChunkBatch(actions, passage.nfe)

    def digest(self) -> str:
        """Hash of all that decides what the policy does."""
        return f"{self.policy.digest()}-warm{self.blocks}"
