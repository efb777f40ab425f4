"""A velocity network for the plane that reads learned features from grids, fine enough for pictures."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lfm_policy.networks.mlp import perceptron


class VelocityGrid(nn.Module):
    """Velocity v(x, t, cond) of points x (B, 2): layers over [t, x, cond] and features interpolated from square grids.

    A pass touches four nodes of each grid, so that a fine grid costs memory and no time (Müller et al. 2022, without
    the hashing). Outside of the grids the features stay as on their border.

    Args:
        dim: must be 2.
        cond_dim: width of the condition, 0 for none.
        width: of each hidden layer.
        layers: hidden layers.
        activation: see `mlp.activation_layer`.
        time_features: frequencies k π, k = 1 …, whose sines and cosines of t join the input.
        levels: nodes along a side, one entry a grid.
        features: of each node.
        half_width: the grids cover [-half_width, half_width]².

    Raises:
        ValueError: the points are not in the plane, the activation is unknown, or a size is out of range.
    """

    time_frequencies: Tensor

    def __init__(
        self,
        dim: int,
        cond_dim: int = 0,
        width: int = 64,
        layers: int = 2,
        activation: str = "silu",
        time_features: int = 2,
        levels: Sequence[int] = (16, 32, 64, 128, 256),
        features: int = 2,
        half_width: float = 4.5,
    ) -> None:
        super().__init__()
        if dim != 2:
            raise ValueError(f"a grid network is for points in the plane, found dim {dim}")
        if min(width, layers, features, *levels) < 1 or min(levels) < 2 or min(cond_dim, time_features) < 0:
            raise ValueError(
                "width, layers and features must be positive, levels at least 2, the other sizes at least 0"
            )
        self.half_width = half_width
        self.register_buffer("time_frequencies", math.pi * torch.arange(1, time_features + 1), persistent=False)
        self.grids = nn.ParameterList(0.01 * torch.randn(nodes, nodes, features) for nodes in levels)
        inputs = 1 + dim + cond_dim + 2 * time_features + features * len(levels)
        self.layers = perceptron(inputs, dim, width, layers, activation)

    def forward(
        self, x: Float[Tensor, "b 2"], t: Float[Tensor, " b"], cond: Float[Tensor, "b c"] | None = None
    ) -> Float[Tensor, "b 2"]:
        t = t[:, None].to(x.dtype)
        angles = t * self.time_frequencies
        place = 0.5 + x / (2 * self.half_width)
        parts = [t, x, angles.sin(), angles.cos(), *(interpolated(grid, place) for grid in self.grids)]
        return self.layers(torch.cat(parts if cond is None else [*parts, cond], dim=1))


def interpolated(grid: Float[Tensor, "n n f"], place: Float[Tensor, "b 2"]) -> Float[Tensor, "b f"]:
    """Interpolate a grid over [0, 1]² bilinearly; outside, take the border's values."""
    nodes = grid.shape[0]
    position = place * (nodes - 1)
    corner = position.detach().floor().clamp(0, nodes - 2)
    x, y = (position - corner).clamp(0, 1).unbind(1)
    first = corner[:, 1].long() * nodes + corner[:, 0].long()
    index = torch.stack([first, first + 1, first + nodes, first + nodes + 1], dim=1)
    weights = torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], dim=1)
    return (functional.embedding(index, grid.flatten(0, 1)) * weights[..., None]).sum(1)
