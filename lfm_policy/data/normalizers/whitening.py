"""Whitening: a normaliser in the data's principal axes, for densities whose likelihood small directions decide."""

import torch
from jaxtyping import Float
from torch import Tensor

from lfm_policy.data.normalizers.affine import AffineNormalizer


class WhiteningNormalizer(AffineNormalizer):
    """The same map in the principal axes of the data: x_normalised = (x rotation) * scale + offset.

    Args:
        dim: width D of the vectors it maps.
    """

    rotation: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("rotation", torch.eye(dim))

    @classmethod
    def fit(cls, x: Tensor) -> "WhiteningNormalizer":
        """Map x (S, D) to zero mean and unit covariance."""
        x = x.detach().to("cpu", torch.float64)
        rotation = torch.linalg.eigh(torch.cov(x.T)).eigenvectors
        normalizer = cls.standard(x @ rotation)
        assert isinstance(normalizer, cls)
        normalizer.rotation.copy_(rotation)
        return normalizer

    def scaled(self, factor: float) -> "WhiteningNormalizer":
        """Return this map, followed by multiplication by `factor`."""
        normalizer = super().scaled(factor)
        assert isinstance(normalizer, WhiteningNormalizer)
        normalizer.rotation.copy_(self.rotation)
        return normalizer

    def normalize(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Turn raw units into normalised ones. Raises ContractError when unfitted or the width is wrong."""
        self._require(x)
        return super().normalize(x @ self.rotation)

    def denormalize(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Turn normalised units back into raw ones. Raises ContractError when unfitted or the width is wrong."""
        return super().denormalize(x) @ self.rotation.T
