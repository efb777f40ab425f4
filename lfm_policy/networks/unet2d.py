"""diffusers' UNet2DModel as a velocity network for images, which are vectors to all the rest."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

try:
    from diffusers.models.unets.unet_2d import UNet2DModel
except ModuleNotFoundError as error:
    raise ImportError(f"{error}; networks for images are diffusers': pip install 'lfm-policy[diffusion]'") from error


class LearnedSinusoidal(nn.Module):
    """Sines and cosines of t at learned frequencies (Table A.2's time embedding).

    Args:
        width: even number of features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(width // 2))

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b width"]:
        angles = 2 * math.pi * t[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class VelocityUnet2d(nn.Module):
    """Velocity v(x, t, cond) of square images x (B, channels * side * side), channel by channel, row by row.

    Args:
        dim: width of x.
        cond_dim: width of the condition, 0 for none.
        width: channels of the first level, even.
        multipliers: of the width, one per level; each level halves the side.
        layers: residual blocks of a level.
        attention: sides of the levels that attend to themselves.
        channels: of the images.
        groups: of the normalisation; must divide the width.
        dropout: in the residual blocks.
        checkpointing: compute activations again in the backward pass, to save memory.

    Raises:
        ValueError: the images are not square, or a size does not divide another.
    """

    def __init__(
        self,
        dim: int,
        cond_dim: int = 0,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        layers: int = 2,
        attention: Sequence[int] = (16,),
        channels: int = 3,
        groups: int = 32,
        dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        side, factor = math.isqrt(dim // channels), 2 ** (len(multipliers) - 1)
        if channels * side * side != dim or side % factor:
            raise ValueError(
                f"expected square images with sides divisible by {factor}, found {dim} / {channels} pixels"
            )
        if width % groups or width % 2:
            raise ValueError(f"the width must be even and divisible by groups = {groups}, found {width}")
        self.event = (channels, side, side)
        attends = [side // 2**level in attention for level in range(len(multipliers))]
        self.unet = UNet2DModel(
            sample_size=side,
            in_channels=channels,
            out_channels=channels,
            down_block_types=tuple("AttnDownBlock2D" if yes else "DownBlock2D" for yes in attends),
            up_block_types=tuple("AttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)),
            block_out_channels=tuple(width * multiplier for multiplier in multipliers),
            layers_per_block=layers,
            attention_head_dim=None,
            norm_num_groups=groups,
            dropout=dropout,
            class_embed_type="identity" if cond_dim else None,
        )
        self.unet.time_proj = LearnedSinusoidal(width)  # pyright: ignore[reportAttributeAccessIssue]
        self.cond = nn.Linear(cond_dim, 4 * width) if cond_dim else None
        if checkpointing:
            self.unet.enable_gradient_checkpointing()

    def forward(
        self, x: Float[Tensor, "b dim"], t: Float[Tensor, " b"], cond: Float[Tensor, "b c"] | None = None
    ) -> Float[Tensor, "b dim"]:
        labels = None if self.cond is None or cond is None else self.cond(cond)
        (velocity,) = self.unet(x.unflatten(1, self.event), t, class_labels=labels, return_dict=False)
        return velocity.flatten(1)
