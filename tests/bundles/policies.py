"""Small random policies of every task's shapes."""

import torch

from lfm_envs.tasks import TASKS
from lfm_policy.actions.poses import position_columns
from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.flow import Solver
from lfm_policy.models.policy import LFMPolicy, PolicySpec
from lfm_policy.models.rotations import other_columns

NETWORK = {"_target_": "lfm_policy.networks.ConditionalUnet1d", "dims": [16, 32], "time_dim": 16}
GAMMAS = {1: (), 2: (0.5,), 4: (0.15, 0.1875, 0.234375)}


def policy(
    task: str = "lift",
    blocks: int = 2,
    solver: Solver | None = None,
    network: dict | None = None,
    **spec: bool | tuple[int, ...],
) -> LFMPolicy:
    """A policy with random weights and fitted normalisers, in evaluation mode."""
    torch.manual_seed(0)
    contract = TASKS[task].contract
    made = LFMPolicy(PolicySpec(gammas=GAMMAS[blocks], network=network or NETWORK, **spec), contract)
    made.chain.solver = solver or Solver()
    observations = torch.randn(50, contract.observation_dim) * 0.3 + 1
    others = other_columns(contract.observation_dim, made.spec.quaternions)
    made.observation_normalizer = AffineNormalizer.standard(observations, others)
    if made.spec.anchored:
        chunks = torch.randn(50, made.spec.horizon * contract.action_dim) * 0.4
        made.action_normalizer = AffineNormalizer.standard(chunks).unflatten(*made.noise_shape)
    else:
        actions = torch.randn(50, contract.action_dim) * 0.4
        made.action_normalizer = AffineNormalizer.min_max(actions, position_columns(contract))
    return made.eval()
