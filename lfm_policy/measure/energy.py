"""How far two laws are apart, from samples of both: E|X - Y| against E|X - X'| and E|Y - Y'| (Székely and Rizzo 2013).

Two estimators. `energy_distance` has no bias and the data's unit, and may come out below 0. `energy_coefficient` is
between 0 (equal laws only) and 1 (as far apart as can be), is never below 0, and says what chance alone would give.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def energy_distance(x: Float[Tensor, "o k *event"], y: Float[Tensor, "o m *event"]) -> Float[Tensor, " o"]:
    """Estimate without bias 2 E|X - Y| - E|X - X'| - E|Y - Y'| of independent draws, for each of o pairs of laws."""
    return 2 * torch.cdist(x.flatten(2), y.flatten(2)).mean((1, 2)) - mean_distance(x) - mean_distance(y)


def mean_distance(x: Tensor) -> Tensor:
    """Return E|X - X'| over distinct draws (o, k, *event): (o,)."""
    k = x.shape[1]
    return torch.cdist(x.flatten(2), x.flatten(2)).sum((1, 2)) / (k * (k - 1))


def energy_coefficient(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], generator: torch.Generator, permutations: int = 200
) -> tuple[float, float]:
    """Give (2 E|x - y| - E|x - x'| - E|y - y'|) / 2 E|x - y| as a V-statistic; its 95th percentile if both had one law.

    Between 0 and 1, without a unit. The percentile comes from random relabelling.
    """
    distances = torch.cdist(both := torch.cat([x, y]), both)
    signs = torch.cat([x.new_full((len(x),), 1 / len(x)), x.new_full((len(y),), -1 / len(y))])
    orders = [torch.randperm(len(both), generator=generator, device=x.device) for _ in range(permutations)]
    rows = torch.stack([signs, *(signs[order] for order in orders)])
    found = -((rows @ distances) * rows).sum(1)
    between = 2 * distances[: len(x), len(x) :].mean()
    return (found[0] / between).item(), (found[1:].quantile(0.95) / between).item()
