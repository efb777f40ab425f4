"""Encoders: what one camera's picture says, as a short vector. Each ends where things are, not what the pixels show.

Spatial softmax (Finn et al. 2016, arXiv 1509.06113) turns maps into points: the mean place under each map's softmax.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class SpatialSoftmax(nn.Module):
    """Mean place (x, y) in [-1, 1] under the softmax of each map.

    Args:
        sharpness: factor on the maps before the softmax, learned from there on.
    """

    def __init__(self, sharpness: float = 1.0) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(float(sharpness)))

    def forward(self, maps: Float[Tensor, "b k h w"]) -> Float[Tensor, "b points"]:
        height, width = maps.shape[-2:]
        weights = torch.softmax((self.sharpness * maps).flatten(2), dim=-1)
        y = torch.linspace(-1, 1, height, device=maps.device).repeat_interleave(width)
        x = torch.linspace(-1, 1, width, device=maps.device).repeat(height)
        return torch.cat([weights @ x, weights @ y], dim=1)


class SmallEncoder(nn.Module):
    """Three convolutions and a spatial softmax, for CPUs: some 20,000 parameters.

    Args:
        features: numbers that come out.
        stride: of the first convolution, with 5 x 5 pixels.
        channels: of the convolutions.
        keypoints: maps of the spatial softmax.
    """

    def __init__(
        self, features: int = 64, stride: int = 2, channels: Sequence[int] = (16, 32, 32), keypoints: int = 32
    ) -> None:
        super().__init__()
        first, second, third = channels
        self.layers = nn.Sequential(
            nn.Conv2d(3, first, 5, stride, padding=2),
            nn.GroupNorm(first // 8, first),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, 2, padding=1),
            nn.GroupNorm(second // 8, second),
            nn.ReLU(),
            nn.Conv2d(second, third, 3, padding=1),
            nn.GroupNorm(third // 8, third),
            nn.ReLU(),
            nn.Conv2d(third, keypoints, 1),
            SpatialSoftmax(sharpness=3.0),
            nn.Linear(2 * keypoints, features),
        )

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        return self.layers(pictures)


class ResNet18(nn.Module):
    """ResNet-18 with GroupNorm (channels / 16 groups) and a spatial softmax: Diffusion Policy's image encoder.

    Its weights have torchvision's names, so that pretrained ones of another's GroupNorm network load.

    Args:
        features: numbers that come out.
        keypoints: maps of the spatial softmax.
    """

    def __init__(self, features: int = 64, keypoints: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.GroupNorm(4, 64)
        self.layer1, self.layer2 = _stage(64, 64, 1), _stage(64, 128, 2)
        self.layer3, self.layer4 = _stage(128, 256, 2), _stage(256, 512, 2)
        self.points = nn.Sequential(nn.Conv2d(512, keypoints, 1), SpatialSoftmax())
        self.fc = nn.Linear(2 * keypoints, features)

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        x = functional.relu(self.bn1(self.conv1(pictures)))
        x = functional.max_pool2d(x, 3, 2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.points(x))


class _Residual(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016, arXiv 1512.03385), normalised in groups."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        self.bn1 = nn.GroupNorm(outer // 16, outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.bn2 = nn.GroupNorm(outer // 16, outer)
        self.downsample = nn.Identity()
        if stride > 1 or inner != outer:
            self.downsample = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.GroupNorm(outer // 16, outer)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.downsample(x))


def _stage(inner: int, outer: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Residual(inner, outer, stride), _Residual(outer, outer, 1))
