"""Affine normalisers, x_normalised = x * scale + offset per dimension; the statistics travel with the weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lfm_policy.errors import ContractError, DataError

CONSTANT = 1e-4
"""A dimension that varies by less is only centred; dividing by its spread would blow up noise."""


@dataclass(frozen=True)
class Spread:
    """How samples of width D lie: in double precision, (D,) each."""

    count: int
    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, blocks: Iterable[Tensor | np.ndarray]) -> "Spread":
        """Measure the samples in all blocks (S_i, D) together, one block in memory at a time.

        Raises:
            DataError: no sample, or one that is not finite.
        """
        found = None
        for block in blocks:
            if len(block):
                x = _samples(block)
                part = cls(len(x), x.mean(dim=0), x.std(dim=0, correction=0), x.amin(dim=0), x.amax(dim=0))
                found = part if found is None else found._joined(part)
        if found is None:
            raise DataError(
                "a normaliser is fitted on samples, found none: the data have no rows in the training split"
            )
        return found

    def _joined(self, other: "Spread") -> "Spread":
        """Join the moments of two parts (Chan, Golub and LeVeque, 1983)."""
        count, share = self.count + other.count, other.count / (self.count + other.count)
        apart = other.mean - self.mean
        variance = torch.lerp(self.std.square(), other.std.square(), share) + share * (1 - share) * apart.square()
        low, high = torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)
        return Spread(count, self.mean + share * apart, variance.sqrt(), low, high)


class AffineNormalizer(nn.Module):
    """A fixed affine map per dimension, kept in the module's state. Until it is fitted or loaded, using it is an error.

    Args:
        shape: of what it maps: (D,), or (T, D) where each step has statistics of its own.
    """

    scale: Tensor
    offset: Tensor
    fitted: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("offset", torch.zeros(shape))
        self.register_buffer("fitted", torch.tensor(False))
        self._ready = False  # mirrors `fitted` so that no call waits for a GPU
        self.register_load_state_dict_post_hook(_read_fitted)

    @classmethod
    def standard(cls, x: Tensor | Spread, columns: Sequence[int] | None = None) -> "AffineNormalizer":
        """Map to zero mean, unit standard deviation per dimension of x (S, D); nearly constant ones are only centred.

        `columns` other than None leaves all others as they are.
        """
        spread = _spread(x)
        scale = torch.where(spread.std < CONSTANT, 1.0, 1 / spread.std)
        return cls._of(scale, -spread.mean * scale, columns)

    @classmethod
    def scalar(cls, x: Tensor | Spread, columns: Sequence[int] | None = None) -> "AffineNormalizer":
        """Scale all `columns` of x (S, D) by one factor 1 / max|x|, Diffusion Policy's choice for observations."""
        spread = _spread(x)
        sizes = torch.maximum(spread.low.abs(), spread.high.abs())
        largest = (sizes if columns is None else sizes[list(columns)]).max()
        scale = torch.ones_like(spread.low) if largest < CONSTANT else torch.full_like(spread.low, 1 / largest.item())
        return cls._of(scale, torch.zeros_like(scale), columns)

    @classmethod
    def min_max(cls, x: Tensor | Spread, columns: Sequence[int] | None = None) -> "AffineNormalizer":
        """Map the range of x (S, D) to [-1, 1] on `columns` (all when None); leave the others as they are."""
        spread = _spread(x)
        low, high = spread.low, spread.high
        varies = high - low >= CONSTANT
        scale = torch.where(varies, 2 / (high - low), 1.0)
        return cls._of(scale, -(high + low) / 2 * scale, columns)

    @classmethod
    def identity(cls, dim: int) -> "AffineNormalizer":
        """Leave vectors of width `dim` as they are, on purpose."""
        return cls._of(torch.ones(dim), torch.zeros(dim))

    @classmethod
    def _of(cls, scale: Tensor, offset: Tensor, columns: Sequence[int] | None = None) -> "AffineNormalizer":
        if columns is not None:
            others = torch.ones(len(scale), dtype=torch.bool)
            others[list(columns)] = False
            scale, offset = scale.masked_fill(others, 1.0), offset.masked_fill(others, 0.0)
        normalizer = cls(*scale.shape)
        normalizer.scale.copy_(scale)
        normalizer.offset.copy_(offset)
        normalizer.fitted.fill_(True)
        normalizer._ready = True
        return normalizer

    def unflatten(self, *shape: int) -> "AffineNormalizer":
        """Return this map for vectors that are laid out as `shape`."""
        return self._of(self.scale.view(shape), self.offset.view(shape))

    def scaled(self, factor: float) -> "AffineNormalizer":
        """Return this map, followed by multiplication by `factor`."""
        return self._of(self.scale * factor, self.offset * factor)

    def normalize(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Turn raw units into normalised ones. Raises ContractError when unfitted or the width is wrong."""
        self._require(x)
        return x * self.scale + self.offset

    def denormalize(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Turn normalised units back into raw ones. Raises ContractError when unfitted or the width is wrong."""
        self._require(x)
        return (x - self.offset) / self.scale

    def log_det(self, x: Float[Tensor, "... D"]) -> Tensor:
        """Return the log of the factor by which `normalize` changes volumes at each of the raw x."""
        self._require(x)
        return self.scale.log().sum().expand(x.shape[: x.ndim - self.scale.ndim])

    def _require(self, x: Tensor) -> None:
        if not self._ready:
            raise ContractError(
                "the normaliser was never fitted or its statistics were lost: a policy run like this hardly moves. "
                "Fit it on the training data, or load a checkpoint that contains it"
            )
        if x.shape[-self.scale.ndim :] != self.scale.shape:
            raise ContractError(
                f"the normaliser maps samples of shape {tuple(self.scale.shape)}, found {tuple(x.shape)}"
            )

    def extra_repr(self) -> str:
        return f"shape={tuple(self.scale.shape)}, fitted={self._ready}"


def _read_fitted(module: nn.Module, _: Any) -> None:
    assert isinstance(module, AffineNormalizer)
    module._ready = bool(module.fitted)


def _spread(x: Tensor | Spread) -> Spread:
    return x if isinstance(x, Spread) else Spread.of([_samples(x)])


def _samples(x: Tensor | np.ndarray) -> Tensor:
    """Validate (S, D) samples; double precision, on the CPU, so that statistics do not lose digits."""
    x = torch.as_tensor(x).detach().to("cpu", torch.float64)
    if x.ndim != 2 or x.shape[0] == 0:
        raise DataError(f"a normaliser is fitted on samples of shape (S, D) with S > 0, found {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        bad = (~torch.isfinite(x)).any(dim=0).nonzero().flatten().tolist()
        raise DataError(f"a normaliser is fitted on finite samples, found NaN or infinity in columns {bad}")
    return x
