"""The part of a policy that sees: pictures of all cameras to one vector of features, with which the chain works."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lfm_policy import networks
from lfm_policy.contract import Contract
from lfm_policy.data.normalizers.affine import Spread
from lfm_policy.errors import ConfigError

Frames = UInt8[Tensor, "b k h w 3"]
"""Pictures of K cameras: bytes, RGB, the first row on top."""
Parts = UInt8[Tensor, "b k part_h part_w 3"]
"""The parts of them that encoders see."""
BATCH = 256
"""Pictures that are encoded at once where there are many."""


class Sight(nn.Module):
    """An encoder per camera; what they say side by side, scaled to unit variance.

    Args:
        encoder: `_target_` and arguments of a torch module from (B, 3, h, w) in [-1, 1] to (B, F).
        contract: its cameras.
        crop: height and width of what is seen of each picture: anywhere in training, the middle afterwards.
        trust_code: allow an encoder from outside this package.

    Raises:
        ConfigError: the encoder cannot be built, or the crop is larger than the pictures.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self, encoder: Mapping[str, Any], contract: Contract, crop: int | None, *, trust_code: bool = True
    ) -> None:
        super().__init__()
        if contract.frames_shape is None:
            raise ConfigError("an encoder of pictures needs a contract with cameras, found none")
        cameras, height, width, _ = contract.frames_shape
        if crop is not None and crop > min(height, width):
            raise ConfigError(f"crop={crop} does not fit into pictures of {height} x {width} pixels: use a smaller one")
        self.whole = (height, width)
        self.size = self.whole if crop is None else (crop, crop)
        self.encoders = nn.ModuleList(networks.build(encoder, own_only=not trust_code) for _ in range(cameras))
        with torch.no_grad():
            (one,) = {encoder(torch.zeros(1, 3, *self.size)).shape[1] for encoder in self.encoders}
        self.features = cameras * one
        """Numbers that the chain gets."""
        self.register_buffer("scale", torch.ones(self.features))
        self.register_buffer("offset", torch.zeros(self.features))

    def forward(self, frames: Frames) -> Float[Tensor, "b f"]:
        """Return the features of whole pictures, by their middle."""
        return self.scale * self.encode(self.middle(frames)) + self.offset

    def encode(self, frames: Parts) -> Float[Tensor, "b f"]:
        """Return the features of cropped pictures, as the encoders give them."""
        pictures = frames.permute(0, 1, 4, 2, 3).to(self.scale.dtype) * (2 / 255) - 1
        return torch.cat([encoder(pictures[:, k]) for k, encoder in enumerate(self.encoders)], dim=1)

    def middle(self, frames: Frames) -> Parts:
        """Return the middle of each picture."""
        height, width = self.size
        top, left = (frames.shape[2] - height) // 2, (frames.shape[3] - width) // 2
        return frames[:, :, top : top + height, left : left + width]

    def crop(self, frames: Frames, generator: torch.Generator) -> Parts:
        """Return a part of each picture, anywhere in it, as the generator decides."""
        count, cameras, *whole = frames.shape[:4]
        rows, columns = (
            torch.randint(side - part + 1, (count * cameras, 1), generator=generator, device=generator.device)
            .to(frames.device)
            .add(torch.arange(part, device=frames.device))
            for side, part in zip(whole, self.size, strict=True)
        )
        every = torch.arange(count * cameras, device=frames.device)[:, None, None]
        return frames.flatten(0, 1)[every, rows[:, :, None], columns[:, None, :]].unflatten(0, (count, cameras))

    @torch.no_grad()
    def fit_scale(self, frames: Frames) -> None:
        """Scale the features to mean 0 and variance 1 over these pictures."""
        self.scale.fill_(1.0)
        self.offset.zero_()
        spread = Spread.of(self(part.to(self.scale.device)).cpu() for part in frames.split(BATCH))
        scale = 1 / spread.std.clamp(min=1e-4)
        self.scale.copy_(scale)
        self.offset.copy_(-spread.mean * scale)

    @torch.no_grad()
    def table(self, frames: Frames, crops: int, seed: int = 0) -> Float[Tensor, "v s f"]:
        """Return the features of many pictures: by their middle, then by `crops` random parts of each."""
        device = self.scale.device
        generator = torch.Generator(device).manual_seed(seed)
        variants = [[self(part.to(device)) for part in frames.split(BATCH)]]
        for _ in range(crops):
            seen = (self.encode(self.crop(part.to(device), generator)) for part in frames.split(BATCH))
            variants.append([self.scale * features + self.offset for features in seen])
        return torch.stack([torch.cat(parts) for parts in variants])
