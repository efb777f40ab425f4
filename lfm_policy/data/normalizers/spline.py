"""Increasing maps of numbers by rational-quadratic splines (Durkan et al. 2019), with derivative and exact inverse."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Spline:
    """A smooth increasing map of the real line through knots (x_k, y_k) with slopes d_k, all (K,); straight outside."""

    x: Tensor
    y: Tensor
    slope: Tensor

    @classmethod
    def through(cls, x: np.ndarray, y: np.ndarray) -> "Spline":
        """Fit strictly increasing points; Fritsch-Carlson slopes (1980), at the ends the outermost interval's mean.

        Raises:
            ValueError: there are fewer than three points, or they do not increase strictly.
        """
        from scipy.interpolate import PchipInterpolator  # not for what is fitted already

        points = np.stack([x, y])
        if len(x) < 3 or not np.isfinite(points).all() or (np.diff(points) <= 0).any():
            raise ValueError(f"expected at least three finite points that increase strictly, found {len(x)} points")
        slope = PchipInterpolator(x, y).derivative()(x)
        slope[[0, -1]] = (y[1] - y[0]) / (x[1] - x[0]), (y[-1] - y[-2]) / (x[-1] - x[-2])
        return cls(*(torch.from_numpy(values.copy()) for values in (x, y, slope)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map's value and its derivative at x, any shape (equations 4 and 5 of Durkan et al.)."""
        k = self._interval(self.x, x)
        width, mean, low, high = self._shape(k)
        xi = ((x - self.x[k]) / width).clamp(0, 1)
        bend = low + high - 2 * mean
        below = mean + bend * xi * (1 - xi)
        y = self.y[k] + width * mean * xi * (mean * xi + low * (1 - xi)) / below
        derivative = mean.square() * (high * xi.square() + 2 * mean * xi * (1 - xi) + low * (1 - xi).square())
        return y + self._beyond(self.x, x) * self._end(k), derivative / below.square()

    def inverse(self, y: Tensor) -> Tensor:
        """Return where the map takes the value y (equations 6 to 8 of Durkan et al.)."""
        k = self._interval(self.y, y)
        width, mean, low, high = self._shape(k)
        rise = ((y - self.y[k]) / width).clamp(torch.zeros_like(mean), mean)
        bend = low + high - 2 * mean
        a, b, c = mean * (mean - low) + rise * bend, mean * low - rise * bend, -mean * rise
        xi = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())
        return self.x[k] + width * xi + self._beyond(self.y, y) / self._end(k)

    @staticmethod
    def _interval(knots: Tensor, at: Tensor) -> Tensor:
        return (torch.searchsorted(knots, at.contiguous(), right=True) - 1).clamp(0, len(knots) - 2)

    def _shape(self, k: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the intervals' width, their mean slope, and the slopes at both ends."""
        width = self.x[k + 1] - self.x[k]
        return width, (self.y[k + 1] - self.y[k]) / width, self.slope[k], self.slope[k + 1]

    @staticmethod
    def _beyond(knots: Tensor, at: Tensor) -> Tensor:
        """Return how far x is outside the knots, with its sign."""
        return at - at.clamp(knots[0], knots[-1])

    def _end(self, k: Tensor) -> Tensor:
        """Return the slope outside, next to interval k."""
        return torch.where(k == 0, self.slope[0], self.slope[-1])
