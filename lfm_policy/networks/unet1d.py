"""The observation-conditioned 1D-convolutional UNet over action chunks of Diffusion Policy (Chi et al. 2023)."""

import re
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lfm_policy.networks.cpu.activation import Film, activate
from lfm_policy.networks.cpu.convolution import Convolution, Growth
from lfm_policy.networks.cpu.fused import Fused, applies
from lfm_policy.networks.embeddings import SinusoidalEmbedding


class ConvBlock(nn.Sequential):
    """Convolution along time, group normalisation, Mish; then scale and shift of the features, where they are given."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int) -> None:
        super().__init__(Convolution(inputs, outputs, kernel, padding=kernel // 2), nn.GroupNorm(groups, outputs))

    def forward(self, x: Float[Tensor, "t b i"], film: Film | None = None) -> Float[Tensor, "t b o"]:
        convolution, norm = self
        assert isinstance(norm, nn.GroupNorm)
        return activate(convolution(x), norm, film)


class ResidualBlock(nn.Module):
    """Two convolution blocks; the condition scales and shifts the features between them (FiLM, Perez et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, condition: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.first = ConvBlock(inputs, outputs, kernel, groups)
        # The Identity keeps Diffusion Policy's names of weights, where an activation stands before the linear layer.
        self.film = nn.Sequential(nn.Identity(), nn.Linear(condition, 2 * outputs))
        self.second = ConvBlock(outputs, outputs, kernel, groups)
        self.skip = Convolution(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self._fused = Fused(self.first, self.film[1], self.second, self.skip)

    def forward(self, x: Float[Tensor, "t b i"], condition: Float[Tensor, "b c"]) -> Float[Tensor, "t b o"]:
        """Return the block's output; `condition` has been through Mish, once for all blocks."""
        if applies(x, self.training) and isinstance(self.film[1], nn.Linear):
            return self._fused(x, condition)
        scale, shift = self.film(condition).chunk(2, dim=1)
        return self.second(self.first(x, (scale, shift))) + self.skip(x)


class Level(nn.ModuleList):
    """Residual blocks in a row, under the same condition."""

    def forward(self, x: Float[Tensor, "t b i"], condition: Float[Tensor, "b c"]) -> Float[Tensor, "t b o"]:
        for block in self:
            x = block(x, condition)
        return x


class ConditionalUnet1d(nn.Module):
    """Velocity v(x, t, cond) of action chunks x (B, T, action_dim); T must be divisible by 2^(levels - 1).

    Args:
        action_dim: width of one action.
        cond_dim: width of the condition, the flattened observation history.
        dims: channels of each level.
        kernel: width of the convolutions, odd.
        groups: groups of the normalisation; must divide every level's channels.
        time_dim: width of the time embedding.

    Raises:
        ValueError: a level's channels are not divisible by `groups`.
    """

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
        if not dims or any(dim < 1 or dim % groups for dim in dims):
            raise ValueError(f"every level, one at least, must be divisible by groups = {groups}, found {list(dims)}")
        self.factor = 2 ** (len(dims) - 1)
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
        self.shrink = nn.ModuleList(Convolution(o, o, 3, stride=2, padding=1) for o in dims[:-1])
        self.middle = Level([residual(dims[-1], dims[-1]), residual(dims[-1], dims[-1])])
        self.up = nn.ModuleList(Level([residual(2 * o, i), residual(i, i)]) for i, o in reversed(levels[1:]))
        self.grow = nn.ModuleList(Growth(i, i, 4, stride=2, padding=1) for i, _ in reversed(levels[1:]))
        self.out = nn.Sequential(ConvBlock(dims[0], dims[0], kernel, groups), Convolution(dims[0], action_dim, 1))

    def forward(
        self, x: Float[Tensor, "b t a"], t: Float[Tensor, " b"], cond: Float[Tensor, "b c"]
    ) -> Float[Tensor, "b t a"]:
        if x.shape[1] % self.factor:
            raise ValueError(
                f"chunks of {x.shape[1]} actions cannot be halved at each level: use a multiple of {self.factor}"
            )
        condition = functional.mish(torch.cat([self.time(t), cond], dim=-1))
        x = x.transpose(0, 1)
        skips = []
        for number, level in enumerate(self.down):
            x = level(x, condition)
            skips.append(x)
            if number < len(self.shrink):
                x = self.shrink[number](x)
        x = self.middle(x, condition)
        for level, grow in zip(self.up, self.grow, strict=True):
            x = grow(level(torch.cat([x, skips.pop()], dim=2), condition))
        return self.out(x).transpose(0, 1)


_RENAMES = [
    (r"^diffusion_step_encoder\.", "time."),
    (r"^down_modules\.(\d+)\.2\.conv\.", r"shrink.\1."),
    (r"^down_modules\.", "down."),
    (r"^mid_modules\.", "middle."),
    (r"^up_modules\.(\d+)\.2\.conv\.", r"grow.\1."),
    (r"^up_modules\.", "up."),
    (r"^final_conv\.0\.block\.", "out.0."),
    (r"^final_conv\.1\.", "out.1."),
    (r"\.blocks\.0\.block\.", ".first."),
    (r"\.blocks\.1\.block\.", ".second."),
    (r"\.cond_encoder\.", ".film."),
    (r"\.residual_conv\.", ".skip."),
]


def from_diffusion_policy(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of Diffusion Policy's ConditionalUnet1D, so that `ConditionalUnet1d` takes them as they are.

    Its integer step k corresponds to t = k / 100.
    """
    renamed = {}
    for name, value in weights.items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed
