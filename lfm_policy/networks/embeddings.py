"""Embeddings of the time inside a block."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SinusoidalEmbedding(nn.Module):
    """Sines and cosines of t at frequencies from 1 down to 1/10000 (Vaswani et al. 2017, as in Diffusion Policy).

    Args:
        width: even number of features.
        scale: t in [0, 1] is multiplied by this; the frequencies were made for integer steps 0 … 99, and without the
            factor the features hardly change over a block.
    """

    frequencies: Tensor

    def __init__(self, width: int, scale: float = 100.0) -> None:
        super().__init__()
        half = width // 2
        ratio, frequencies = -math.log(10000) / (half - 1), torch.empty(half)
        if not frequencies.is_meta:  # to say what `arange` has there, torch would import its compiler
            frequencies = scale * torch.exp(torch.arange(half) * ratio)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b width"]:
        angles = t[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
