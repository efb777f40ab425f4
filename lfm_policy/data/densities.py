"""Densities in the plane that can be sampled and evaluated: the darkness of an image, and five analytic ones.

The entropy of a density is the floor of any model's negative log-likelihood on it. Nats throughout; log-densities are
computed in double precision, and log 0 is -inf.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lfm_policy.choices import AnalyticDensity
from lfm_policy.errors import DataError

HALF_WIDTH = 4.0
"""Images and the checkerboard fill [-4, 4]²."""


@runtime_checkable
class Density(Protocol):
    """A density on the plane."""

    def entropy(self) -> float:
        """Return -E log p [nats]."""
        ...

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 2"]:
        """Draw single-precision samples, on the CPU as the generator."""
        ...

    def log_prob(self, x: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
        """Return log p(x) [nats]."""
        ...


class MaskDensity:
    """A mixture of one Gaussian per pixel, weighted by the pixel's darkness.

    The centres of the outermost pixels lie on the border of [-4, 4]²; the standard deviations (4/w, 4/h) are half a
    pixel, as in the public code of arXiv 2410.02548.

    Args:
        weights: darkness (h, w), the bottom row first; any scale.

    Raises:
        DataError: nothing is dark.
    """

    def __init__(self, weights: Float[Tensor, "h w"]) -> None:
        if min(weights.shape) < 2 or not weights.sum() > 0 or weights.min() < 0:
            raise DataError(
                f"a mask needs 2 x 2 pixels or more with something dark, found shape {tuple(weights.shape)}"
            )
        self.weights = weights.double() / weights.sum()
        height, width = weights.shape
        self._std = torch.tensor([HALF_WIDTH / width, HALF_WIDTH / height], dtype=torch.float64)
        self._pitch = 2 * HALF_WIDTH / torch.tensor([width - 1, height - 1], dtype=torch.float64)

    @classmethod
    def from_image(cls, path: str | Path) -> "MaskDensity":
        """Read any image; what is transparent counts as white.

        Raises:
            DataError: there is no such image, or it is white.
        """
        try:
            from PIL import Image, UnidentifiedImageError
        except ModuleNotFoundError:
            raise DataError("reading an image mask needs Pillow: pip install 'lfm-policy[media]'") from None
        try:
            with Image.open(path) as file:
                image = file.convert("RGBA")
        except (FileNotFoundError, IsADirectoryError, UnidentifiedImageError) as error:
            raise DataError(f"data.mask must name an image (dark where the density is high): {error}") from None
        page = Image.new("RGBA", image.size, "white")
        grey = Image.alpha_composite(page, image).convert("L")
        rows = torch.frombuffer(bytearray(grey.tobytes()), dtype=torch.uint8).view(grey.height, grey.width)
        try:
            return cls(255.0 - rows.flip(0))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def entropy(self) -> float:
        """Integrate by quadrature with four points per pixel: two per standard deviation."""
        reach, parts = 5, 4
        places = torch.arange(-reach, reach + 1, dtype=torch.float64)
        padded = functional.pad(self.weights, (2 * reach,) * 4)[None, None]
        total = 0.0
        for column in range(parts):
            for row in range(parts):
                x, y = (self._kernel(places + part / parts, axis) for axis, part in enumerate((column, row)))
                density = functional.conv2d(functional.conv2d(padded, x[None, None, None]), y[None, None, :, None])
                total -= torch.special.xlogy(density, density).sum().item()
        return total * self._pitch.prod().item() / parts**2

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 2"]:
        """Draw pixels by their weight, then the jitter."""
        cumulated = self.weights.flatten().cumsum(0)
        places = torch.rand(count, generator=generator, dtype=torch.float64) * cumulated[-1]
        pixels = torch.searchsorted(cumulated, places, right=True).clamp(max=len(cumulated) - 1)
        width = self.weights.shape[1]
        centres = torch.stack([pixels % width, pixels // width], dim=1) * self._pitch - HALF_WIDTH
        return (centres + self._std * torch.randn(count, 2, generator=generator, dtype=torch.float64)).float()

    def log_prob(self, x: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
        """Sum over the pixels within five of x: ten standard deviations."""
        return torch.cat([self._log_prob(part) for part in x.double().split(16384)])

    def _log_prob(self, x: Tensor) -> Tensor:
        reach = 5
        offsets = torch.arange(-reach, reach + 1)
        place = (x + HALF_WIDTH) / self._pitch
        limits = torch.tensor(self.weights.shape[::-1]) - 1
        nearest = place.round().clamp(min=torch.zeros(2), max=limits.double()).long()
        columns, rows = (nearest[:, axis, None] + offsets for axis in (0, 1))
        padded = functional.pad(self.weights, (reach,) * 4)
        patches = padded[(rows + reach)[:, :, None], (columns + reach)[:, None, :]]
        kernels = [self._kernel(index - place[:, axis, None], axis) for axis, index in enumerate((columns, rows))]
        return torch.einsum("brc,bc,br->b", patches, *kernels).log()

    def _kernel(self, pixels: Tensor, axis: int) -> Tensor:
        """Return the jitter's density on one axis, `pixels` away from a centre."""
        z = pixels * self._pitch[axis] / self._std[axis]
        return torch.exp(-0.5 * z.square()) / (self._std[axis] * math.sqrt(2 * math.pi))


class Checkerboard:
    """Uniform on every second of the 2 x 2 squares of [-4, 4]²."""

    def entropy(self) -> float:
        """Return the logarithm of the half of the area that is used."""
        return math.log(32)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 2"]:
        """Draw a column, then one of its two squares."""
        column = torch.randint(4, (count,), generator=generator)
        row = 2 * torch.randint(2, (count,), generator=generator) + column % 2
        corner = 2.0 * torch.stack([column, row], dim=1) - HALF_WIDTH
        return corner + 2 * torch.rand(count, 2, generator=generator)

    def log_prob(self, x: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
        """Return -log 32 on the squares."""
        column, row = torch.floor((x.double() + HALF_WIDTH) / 2).T
        inside = (x.abs() <= HALF_WIDTH).all(dim=1) & ((column + row) % 2 == 0)
        return torch.where(inside, x.new_tensor(-self.entropy(), dtype=torch.float64), -torch.inf)


class _Analytic(ABC):
    """A density whose entropy comes from quadrature of its own log_prob on [-8, 8]²."""

    def entropy(self) -> float:
        """Integrate by the midpoint rule."""
        edge, cells = 8.0, 320
        axis = (torch.arange(cells, dtype=torch.float64) + 0.5) * (2 * edge / cells) - edge
        log_p = torch.cat([self.log_prob(part) for part in torch.cartesian_prod(axis, axis).split(16384)])
        return -torch.special.xlogy(log_p.exp(), log_p.exp()).sum().item() * (2 * edge / cells) ** 2

    @abstractmethod
    def log_prob(self, x: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
        """Return the log-density [nats] of points (B, 2)."""


class Gaussian:
    """One Gaussian with correlated coordinates, for checks against closed forms."""

    mean = torch.tensor([1.0, -0.5], dtype=torch.float64)
    root = torch.tensor([[0.5, 0.0], [0.6, 0.4]], dtype=torch.float64)
    """Lower triangular; the covariance is root rootᵀ."""

    def entropy(self) -> float:
        """Return log(2πe) + log det root."""
        return math.log(2 * math.pi * math.e) + self.root.diagonal().log().sum().item()

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 2"]:
        """Draw an affine map of normal noise."""
        noise = torch.randn(count, 2, generator=generator, dtype=torch.float64)
        return (self.mean + noise @ self.root.T).float()

    def log_prob(self, x: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
        """Evaluate the closed form."""
        return torch.distributions.MultivariateNormal(self.mean, scale_tril=self.root).log_prob(x.double())


class EightGaussians(_Analytic):
    """Eight Gaussians on a circle of radius 4/√2, standard deviation 0.5/√2."""

    radius, std = 4 / math.sqrt(2), 0.5 / math.sqrt(2)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 2"]:
        """Draw a centre, then noise."""
        centre = self._centres()[torch.randint(8, (count,), generator=generator)]
        return centre.float() + self.std * torch.randn(count, 2, generator=generator)

    def log_prob(self, x: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
        """Evaluate a mixture in closed form."""
        return _gaussians(x, self._centres(), self.std)

    def _centres(self) -> Tensor:
        angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
        return self.radius * torch.stack([angle.cos(), angle.sin()], dim=1)


class TwoMoons(_Analytic):
    """Two half circles of radius 2, interlocked, with Gaussian noise of standard deviation 0.2."""

    std = 0.2

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 2"]:
        """Draw a place on one of the arcs, then noise."""
        angle = math.pi * torch.rand(count, generator=generator)
        upper = torch.randint(2, (count, 1), generator=generator).bool()
        centre = torch.where(upper, *self._arcs(angle))
        return centre + self.std * torch.randn(count, 2, generator=generator)

    def log_prob(self, x: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
        """Take the arcs as 64 Gaussians each, half the noise apart."""
        angle = (torch.arange(64, dtype=torch.float64) + 0.5) * (math.pi / 64)
        return _gaussians(x, torch.cat(self._arcs(angle)), self.std)

    @staticmethod
    def _arcs(angle: Tensor) -> tuple[Tensor, Tensor]:
        upper = torch.stack([2 * angle.cos() - 1, 2 * angle.sin() - 0.2], dim=1)
        lower = torch.stack([1 - 2 * angle.cos(), 0.8 - 2 * angle.sin()], dim=1)
        return upper, lower


class Pinwheel(_Analytic):
    """Five elongated Gaussians around the origin, each point then turned by 0.25 e^ρ, ρ half its distance from there.

    Turning by a function of the distance keeps areas, so that the density has a closed form.
    """

    rate, arms = 0.25, 5
    std = (0.3, 0.1)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 2"]:
        """Draw an arm, a point along it, the turn."""
        point = torch.randn(count, 2, generator=generator) * torch.tensor(self.std) + torch.tensor([1.0, 0.0])
        arm = torch.randint(self.arms, (count,), generator=generator) * (2 * math.pi / self.arms)
        return 2 * _turn(point, arm + self.rate * point.norm(dim=1).exp())

    def log_prob(self, x: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
        """Turn back, then a mixture of Gaussians in closed form."""
        point, std = x.double() / 2, torch.tensor(self.std, dtype=torch.float64)
        straight = _turn(point, -self.rate * point.norm(dim=1).exp())
        arms = torch.arange(self.arms) * (2 * math.pi / self.arms)
        parts = [_turn(straight, -arm.expand(len(x))) - torch.tensor([1.0, 0.0]) for arm in arms]
        logs = torch.stack([-0.5 * (part / std).square().sum(1) for part in parts])
        return logs.logsumexp(0) - math.log(self.arms * 2 * math.pi * 4 * std.prod().item())


ANALYTIC: Mapping[AnalyticDensity, Density] = {
    "checkerboard": Checkerboard(),
    "eight_gaussians": EightGaussians(),
    "gaussian": Gaussian(),
    "pinwheel": Pinwheel(),
    "two_moons": TwoMoons(),
}


def _gaussians(x: Tensor, centres: Tensor, std: float) -> Tensor:
    """Return the log-density of an equal mixture of round Gaussians."""
    squares = torch.cdist(x.double(), centres, compute_mode="donot_use_mm_for_euclid_dist").square()
    return (-0.5 / std**2 * squares).logsumexp(1) - math.log(len(centres) * 2 * math.pi * std**2)


def _turn(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate points (b, 2) by angles (b,) [rad]."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], dim=1)
