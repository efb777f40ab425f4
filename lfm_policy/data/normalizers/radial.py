"""Radial Gaussianisation (Lyu and Simoncelli 2008): lengths of whitened data to those of Gaussian vectors.

Patches of photographs are nearly Gaussian in direction, with heavy tails in contrast. One increasing map of the length
takes these tails away, so that a chain only has to learn what else there is.
"""

from copy import deepcopy

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lfm_policy.data.normalizers.spline import Spline
from lfm_policy.data.normalizers.whitening import WhiteningNormalizer
from lfm_policy.errors import DataError

KNOTS = 33
"""Number of knots of the map of log lengths."""


class RadialNormalizer(WhiteningNormalizer):
    """Whitening, then w -> w g(r) / r, with r the length of w and log g an increasing spline of log r.

    Args:
        dim: width D of the vectors it maps.
    """

    knots: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("knots", torch.zeros(3, KNOTS, dtype=torch.float64))

    @classmethod
    def fit(cls, x: Tensor) -> "RadialNormalizer":
        """Map x (S, D) to zero mean and unit covariance, then lengths to the quantiles of the chi distribution.

        Raises:
            DataError: the samples are not finite, there is none, or too many have the same length.
        """
        from scipy.special import gammaincinv, ndtr, ndtri  # not for what is fitted already

        normalizer = super().fit(x)
        assert isinstance(normalizer, cls)
        white = WhiteningNormalizer.normalize(normalizer, x.detach().cpu().to(normalizer.scale))
        lengths = white.double().norm(dim=-1).numpy()
        widest = -ndtri(1 / (len(lengths) + 1))  # as far out as samples lie
        levels = ndtr(np.linspace(-widest, widest, KNOTS))
        chi = np.sqrt(2 * gammaincinv(x.shape[-1] / 2, levels))
        quantiles = np.quantile(lengths, levels)
        if quantiles[0] <= 0 or (np.diff(quantiles) <= 0).any():
            raise DataError(
                f"normalizer=radial maps {KNOTS} quantiles of the samples' lengths, which must be above 0 and differ; "
                f"found {len(np.unique(quantiles))} different ones in {len(lengths)} samples, from {quantiles[0]:g} to "
                f"{quantiles[-1]:g} deviations: use normalizer=whiten"
            )
        spline = Spline.through(np.log(quantiles), np.log(chi))
        normalizer.knots.copy_(torch.stack([spline.x, spline.y, spline.slope]))
        return normalizer

    def scaled(self, factor: float) -> "RadialNormalizer":
        """Return this map, followed by multiplication by `factor`."""
        normalizer = deepcopy(self)
        normalizer.knots[1] += np.log(factor)
        return normalizer

    def normalize(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Turn raw units into normalised ones. Raises ContractError when unfitted or the width is wrong."""
        white = super().normalize(x)
        before = self._log_length(white)
        after, _ = self._spline().forward(before)
        return white * (after - before).exp().to(white.dtype)

    def denormalize(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Turn normalised units back into raw ones. Raises ContractError when unfitted or the width is wrong."""
        after = self._log_length(x)
        before = self._spline().inverse(after)
        return super().denormalize(x * (before - after).exp().to(x.dtype))

    def log_det(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
        """Return the log of the map's change of volume at raw x: D log (g / r) + log (d log g / d log r) more."""
        before = self._log_length(WhiteningNormalizer.normalize(self, x))
        after, slope = self._spline().forward(before)
        return super().log_det(x) + (x.shape[-1] * (after - before) + slope.log()).squeeze(-1).to(x.dtype)

    def _spline(self) -> Spline:
        return Spline(*self.knots.double())

    @staticmethod
    def _log_length(x: Tensor) -> Tensor:
        return x.double().norm(dim=-1, keepdim=True).clamp(min=1e-12).log()
