"""A velocity network of one's own: a small transformer over the actions of a chunk."""

import math

import torch
from torch import Tensor, nn


class ChunkTransformer(nn.Module):
    """Velocity v(x, t, cond) of chunks x (B, T, action_dim), for any T.

    Args:
        action_dim, cond_dim: widths that the data decide; every policy's network is given them.
        dims: width of each layer; here the first one's is that of all.
        time_dim: width of the embedding of t.
    """

    def __init__(self, action_dim: int, cond_dim: int, dims: list[int], time_dim: int = 32) -> None:
        super().__init__()
        width = dims[0]
        self.action, self.out = nn.Linear(action_dim, width), nn.Linear(width, action_dim)
        self.condition = nn.Linear(cond_dim + time_dim, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, len(dims), enable_nested_tensor=False)
        self.width, self.time_dim = width, time_dim

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Map states x, times t (B,) in [0, 1] with 0 at the data, conditions (B, cond_dim) to velocities like x."""
        places = waves(torch.arange(x.shape[1], device=x.device, dtype=x.dtype), self.width)
        known = self.condition(torch.cat([cond, waves(1000 * t, self.time_dim)], dim=-1))
        return self.out(self.layers(self.action(x) + places + known[:, None]))


def waves(values: Tensor, width: int) -> Tensor:
    """Return sines and cosines of values (N,) at `width` / 2 frequencies: (N, width)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=values.device) / (width // 2))
    angles = values[:, None] * frequencies.to(values.dtype)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
