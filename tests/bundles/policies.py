"""Small random policies of every task's shapes."""

from typing import Any

import torch

from lfm_envs.tasks import TASKS
from lfm_policy.actions.poses import position_columns
from lfm_policy.contract import Contract
from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.flow import Solver
from lfm_policy.models.encoding import Encoding
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.rotations import other_columns
from lfm_policy.models.spec import ChainSpec, PolicySpec

NETWORK = {"_target_": "lfm_policy.networks.ConditionalUnet1d", "dims": [16, 32], "time_dim": 16}
GAMMAS = {1: (), 2: (0.5,), 4: (0.15, 0.1875, 0.234375)}


def policy(
    task: str = "lift",
    blocks: int = 2,
    solver: Solver | None = None,
    network: dict | None = None,
    **spec: bool | str | tuple[int, ...],
) -> LFMPolicy:
    """A policy with random weights and fitted normalisers, in evaluation mode."""
    torch.manual_seed(0)
    contract = TASKS[task].contract
    shared = {name: spec.pop(name) for name in ("precondition", "share", "objective") if name in spec}
    if solver is not None:
        shared["solver"] = solver
    chain = ChainSpec(gammas=GAMMAS[blocks], network=network or NETWORK, **shared)
    described = PolicySpec(chain=chain, **spec)
    others = other_columns(contract.observation_dim, described.quaternions)
    observation = AffineNormalizer.standard(torch.randn(50, contract.observation_dim) * 0.3 + 1, others)
    if described.anchored:
        chunks = torch.randn(50, described.horizon * contract.action_dim) * 0.4
        action = AffineNormalizer.standard(chunks).unflatten(described.horizon, contract.action_dim)
    else:
        action = AffineNormalizer.min_max(torch.randn(50, contract.action_dim) * 0.4, position_columns(contract))
    own = {"anchored": described.anchored, "quaternions": described.quaternions}
    made = LFMPolicy(described, Encoding(contract, observation, action, **own))
    made.chain.solver = solver or Solver()
    return made.eval()


def plain(
    contract: Contract,
    network: dict = NETWORK,
    gammas: tuple[float, ...] = (),
    normalizers: tuple[AffineNormalizer, AffineNormalizer] | None = None,
    chain: dict | None = None,
    **spec: Any,
) -> LFMPolicy:
    """A policy with random weights and the normalisers given, or none that do anything, in evaluation mode."""
    torch.manual_seed(0)
    described = PolicySpec(chain=ChainSpec(gammas=gammas, network=network, **(chain or {})), **spec)
    pair = normalizers or tuple(
        AffineNormalizer.identity(dim) for dim in (contract.observation_dim, contract.action_dim)
    )
    own = {"anchored": described.anchored, "quaternions": described.quaternions}
    return LFMPolicy(described, Encoding(contract, *pair, **own)).eval()
