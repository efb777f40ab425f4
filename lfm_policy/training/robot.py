"""What a robot run trains: a policy and the pool of its windows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lfm_policy.data.normalize import AffineNormalizer, position_columns
from lfm_policy.data.store import Store
from lfm_policy.data.windows import Windows
from lfm_policy.flow import FlowChain, Pool, Sample, TimeLaw
from lfm_policy.flow.fit import block_loss
from lfm_policy.policy import LFMPolicy, PolicySpec
from lfm_policy.training.settings import TrainSettings


@dataclass(frozen=True)
class WindowPool:
    """`flow.Pool` over normalised windows: x is the action chunk, cond the flattened observation history."""

    windows: Windows

    def __len__(self) -> int:
        return len(self.windows)

    def take(self, index: Tensor) -> Sample:
        """The windows at `index` (B,): x (B, T, A), cond (B, To * D)."""
        batch = self.windows.gather(index)
        return Sample(batch.action, batch.observation.flatten(1))


def new_policy(settings: TrainSettings, store: Store) -> LFMPolicy:
    """A policy with fresh weights for the data in `store`, its normalisers fitted on the training split."""
    torch.manual_seed(settings.seed)
    data, flow = settings.data, settings.flow
    spec = PolicySpec(
        horizon=data.horizon,
        observation_steps=data.observation_steps,
        action_steps=data.action_steps,
        gammas=flow.schedule().gammas,
        interpolant=flow.interpolant,
        solver=flow.solver,
        network=settings.block_network,
    )
    policy = LFMPolicy(spec, store.contract)
    observation, action, _ = (torch.from_numpy(array) for array in store.read("train"))
    fit = AffineNormalizer.standard if data.observation_normalizer == "standard" else AffineNormalizer.scalar
    policy.observation_normalizer = fit(observation)
    columns = None if store.contract.rotation == "none" else position_columns(store.contract.action_dim)
    policy.action_normalizer = AffineNormalizer.min_max(action, columns)
    return policy


def window_pool(settings: TrainSettings, store: Store, policy: LFMPolicy, split: str = "train") -> WindowPool:
    """The windows of one split, normalised as `policy` does it, on its device."""
    data = settings.data
    windows = Windows.from_store(store, split, data.horizon, data.observation_steps, data.action_steps)
    windows = windows.to(policy.device)
    return WindowPool(
        Windows(
            policy.observation_normalizer.normalize(windows.observation),
            policy.action_normalizer.normalize(windows.action),
            windows.rows,
            windows.observation_steps,
        )
    )


@torch.no_grad()
def evaluation_loss(chain: FlowChain, pool: Pool, batches: int = 8, batch: int = 256) -> dict[str, float]:
    """Matching loss of each block on OU marginals, with the same samples, noise and times at every call."""
    totals = [0.0] * len(chain.blocks)
    for number in range(batches):
        generator = torch.Generator(next(chain.parameters()).device).manual_seed(number)
        sample = pool.take(torch.randint(len(pool), (batch,), generator=generator, device=generator.device))
        for n in range(len(chain.blocks)):
            totals[n] += block_loss(chain, n, sample, "marginal", TimeLaw(), generator).item() / batches
    return {f"block{n}": total for n, total in enumerate(totals)}
