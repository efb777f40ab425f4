"""Two estimators of how far two laws are apart, on laws that are known."""

import pytest
import torch

from lfm_policy.measure.energy import energy_coefficient, energy_distance


def test_energy_distance_of_normals() -> None:
    """E|X - Y| of N(0, 1) and N(m, 1) is that of a folded normal; for m = 1: 0.5404 against 2 / sqrt(π)."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 400, 1, generator=generator), torch.randn(20, 300, 1, generator=generator) + 1
    m, root = torch.tensor(1.0), 2**0.5
    cross = root * (2 / torch.pi) ** 0.5 * (-(m**2) / 4).exp() + m * torch.erf(m / 2)
    exact = 2 * cross - 2 * (2 / torch.pi**0.5)
    found = energy_distance(x, y)
    assert found.mean().item() == pytest.approx(exact.item(), abs=0.03)
    assert energy_distance(x, y - 1).mean().item() == pytest.approx(0, abs=0.005)


def test_the_coefficient_of_far_samples_is_one_and_of_equal_ones_small() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 400, 2, generator=generator)
    far, _ = energy_coefficient(x, x + 1000, generator)
    assert far == pytest.approx(1, abs=0.01)
    same, percentile = energy_coefficient(x, y, generator)
    assert 0 < same < percentile < 0.02


def test_the_two_agree_up_to_bias_and_unit() -> None:
    """With n draws of each, the V-statistic counts each draw's distance 0 to itself; the coefficient has no unit."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 500, 3, generator=generator, dtype=torch.float64)
    y += 2
    coefficient, scaled = (energy_coefficient(k * x, k * y, generator)[0] for k in (1, 10))
    assert coefficient == pytest.approx(scaled)
    between = 2 * torch.cdist(x, y).mean()
    within = (torch.cdist(x, x).sum() + torch.cdist(y, y).sum()) / 500
    distance = energy_distance(x[None], y[None]).item()
    assert coefficient * between == pytest.approx(distance + (1 / 499 - 1 / 500) * within.item())
