"""Policies for the point mass that need no training: their field is exact, and goes to the goal, told or seen."""

from typing import Any

import torch
from torch import nn

from lfm_envs.point_mass import CONTRACT
from lfm_policy.models.policy import LFMPolicy
from tests import seeing
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


class Goal(nn.Module):
    """Finds the goal, the only green in a picture: (B, 3, h, w) to (B, 2); where nothing is green, the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        green = (pictures[:, 1] - pictures[:, 0] > 0.15).float()
        across, up = torch.linspace(-1.1, 1.1, green.shape[2]), torch.linspace(1.1, -1.1, green.shape[1])
        total = green.sum((1, 2)).clamp(min=1)
        return torch.stack([green.sum(1) @ across / total, green.sum(2) @ up / total], dim=1)


def looking() -> LFMPolicy:
    """Build one that sees the goal in its camera's picture."""
    network, vision = ({"_target_": f"tests.envs.going.{name}"} for name in ("Towards", "Goal"))
    solver = {"method": "midpoint", "steps": 8}
    return plain(seeing.CONTRACT, network, chain={"solver": solver}, vision=vision)


def going(**solver: Any) -> LFMPolicy:
    """Build it."""
    network = {"_target_": "tests.envs.going.Towards"}
    return plain(CONTRACT, network, chain={"solver": solver or {"method": "midpoint", "steps": 8}})
