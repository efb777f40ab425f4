"""`ConditionalUnet1d` written plainly, with torch's own layers on features (B, C, T): what it is compared with.

The same function of the same weights under the same names, as Diffusion Policy writes it (Chi et al. 2023).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lfm_policy.networks.embeddings import SinusoidalEmbedding


class ConvBlock(nn.Sequential):
    """Convolution along time, group normalisation, Mish."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int) -> None:
        super().__init__(
            nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2), nn.GroupNorm(groups, outputs), nn.Mish()
        )


class ResidualBlock(nn.Module):
    """Two convolution blocks; the condition scales and shifts the features between them (FiLM, Perez et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, condition: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.first = ConvBlock(inputs, outputs, kernel, groups)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition, 2 * outputs))
        self.second = ConvBlock(outputs, outputs, kernel, groups)
        self.skip = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Float[Tensor, "b i t"], condition: Float[Tensor, "b c"]) -> Float[Tensor, "b o t"]:
        scale, shift = self.film(condition)[:, :, None].chunk(2, dim=1)
        return self.second(torch.addcmul(shift, scale, self.first(x))) + self.skip(x)


class Level(nn.ModuleList):
    """Residual blocks in a row, under the same condition."""

    def forward(self, x: Float[Tensor, "b i t"], condition: Float[Tensor, "b c"]) -> Float[Tensor, "b o t"]:
        for block in self:
            x = block(x, condition)
        return x


class PlainUnet1d(nn.Module):
    """`ConditionalUnet1d`, with its arguments."""

    def __init__(
        self,
        action_dim: int,
        cond_dim: int,
        dims: Sequence[int] = (128, 256, 512),
        kernel: int = 5,
        groups: int = 8,
        time_dim: int = 128,
    ) -> None:
        super().__init__()
        self.time = nn.Sequential(
            SinusoidalEmbedding(time_dim),
            nn.Linear(time_dim, 4 * time_dim),
            nn.Mish(),
            nn.Linear(4 * time_dim, time_dim),
        )

        def residual(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, time_dim + cond_dim, kernel, groups)

        levels = list(zip([action_dim, *dims[:-1]], dims, strict=True))
        self.down = nn.ModuleList(Level([residual(i, o), residual(o, o)]) for i, o in levels)
        self.shrink = nn.ModuleList(nn.Conv1d(o, o, 3, stride=2, padding=1) for o in dims[:-1])
        self.middle = Level([residual(dims[-1], dims[-1]), residual(dims[-1], dims[-1])])
        self.up = nn.ModuleList(Level([residual(2 * o, i), residual(i, i)]) for i, o in reversed(levels[1:]))
        self.grow = nn.ModuleList(nn.ConvTranspose1d(i, i, 4, stride=2, padding=1) for i, _ in reversed(levels[1:]))
        self.out = nn.Sequential(ConvBlock(dims[0], dims[0], kernel, groups), nn.Conv1d(dims[0], action_dim, 1))

    def forward(
        self, x: Float[Tensor, "b t a"], t: Float[Tensor, " b"], cond: Float[Tensor, "b c"]
    ) -> Float[Tensor, "b t a"]:
        condition = torch.cat([self.time(t), cond], dim=-1)
        x = x.mT
        skips = []
        for number, level in enumerate(self.down):
            x = level(x, condition)
            skips.append(x)
            if number < len(self.shrink):
                x = self.shrink[number](x)
        x = self.middle(x, condition)
        for level, grow in zip(self.up, self.grow, strict=True):
            x = grow(level(torch.cat([x, skips.pop()], dim=1), condition))
        return self.out(x).mT
