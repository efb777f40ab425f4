"""What a robot run trains: a policy and the pool of its windows."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lfm_policy.data.normalize import AffineNormalizer, position_columns
from lfm_policy.data.store import Split, Store, open_store
from lfm_policy.data.windows import Windows
from lfm_policy.flow import Pool, Sample
from lfm_policy.policy import LFMPolicy, PolicySpec
from lfm_policy.training.experiment import Experiment, evaluation_loss, shrunk, with_diffusion
from lfm_policy.training.settings import TrainSettings, WindowData


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


def robot_experiment(settings: TrainSettings, data: WindowData, device: torch.device) -> Experiment[LFMPolicy]:
    """A policy with fresh weights, on the windows of a prepared data set.

    Raises:
        DataError: the data set is missing or damaged.
    """
    store = open_store(Path(data.path))
    policy = new_policy(settings, data, store).to(device)

    def report(trained: LFMPolicy) -> dict[str, Any]:
        if not len(store.valid):
            return {}
        return {"valid_loss": evaluation_loss(trained.chain, window_pool(data, store, trained, "valid"))}

    load = partial(LFMPolicy.from_pretrained, device=device, trust_code=True)
    return Experiment(policy, window_pool(data, store, policy), load, report, dict(store.source))


def new_policy(settings: TrainSettings, data: WindowData, store: Store) -> LFMPolicy:
    """A policy with fresh weights for the data in `store`, its normalisers fitted on the training split."""
    torch.manual_seed(settings.seed)
    flow = settings.flow
    spec = PolicySpec(
        horizon=data.horizon,
        observation_steps=data.observation_steps,
        action_steps=data.action_steps,
        gammas=flow.schedule().gammas,
        interpolant=flow.interpolant,
        solver=flow.solver,
        network=settings.block_network,
        share=flow.share,
        initial_diffusion=flow.initial_diffusion,
        diffusion=flow.diffusion,
    )
    policy = LFMPolicy(spec, store.contract)
    observation, action, _ = (torch.from_numpy(array) for array in store.read("train"))
    fit = AffineNormalizer.standard if data.observation_normalizer == "standard" else AffineNormalizer.scalar
    policy.observation_normalizer = fit(observation)
    columns = None if store.contract.rotation == "none" else position_columns(store.contract.action_dim)
    policy.action_normalizer = shrunk(AffineNormalizer.min_max(action, columns), flow.initial_diffusion)
    return policy


def window_pool(data: WindowData, store: Store, policy: LFMPolicy, split: Split = "train") -> Pool:
    """The windows of one split, normalised and diffused as `policy` wants them, on its device."""
    windows = Windows.from_store(store, split, data.horizon, data.observation_steps, data.action_steps)
    windows = windows.to(policy.device)
    pool = WindowPool(
        Windows(
            policy.observation_normalizer.normalize(windows.observation),
            policy.action_normalizer.normalize(windows.action),
            windows.rows,
            windows.observation_steps,
        )
    )
    return with_diffusion(pool, policy.spec.initial_diffusion, seed=0)
