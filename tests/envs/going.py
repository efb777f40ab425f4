"""A policy for the point mass that needs no training: its field is exact, and goes to the goal."""

from typing import Any

import torch
from torch import nn

from lfm_envs.point_mass import CONTRACT
from lfm_policy.models.policy import LFMPolicy
from tests.bundles.policies import plain

STD = 0.02


class Towards(nn.Module):
    """The velocity of one block from N(goal, STD²) to N(0, 1), for every action of a chunk."""

    def __init__(self, action_dim: int, cond_dim: int) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        t = t.view(-1, 1, 1)
        mean = cond[:, None, -x.shape[-1] :].expand_as(x)
        variance = (1 - t) ** 2 * STD**2 + t**2
        return (t - (1 - t) * STD**2) / variance * (x - (1 - t) * mean) - mean


def going(**solver: Any) -> LFMPolicy:
    """Build it."""
    network = {"_target_": "tests.envs.going.Towards"}
    return plain(CONTRACT, network, chain={"solver": solver or {"method": "midpoint", "steps": 8}})
