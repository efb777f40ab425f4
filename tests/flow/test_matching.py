"""The time law and the matching loss against known answers."""

import pytest
import torch

from lfm_policy.flow import TimeLaw
from lfm_policy.flow.matching import matching_loss
from lfm_policy.flow.schedule import ou_step
from tests.flow.gaussian import ExactBlock, Gaussian


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (1.0, 0.5), (2.0, 3.0)])
def test_times_have_the_moments_of_beta(alpha: float, beta: float) -> None:
    t = TimeLaw(alpha, beta).sample(200_000, torch.Generator().manual_seed(0))
    assert t.min() >= 0
    assert t.max() <= 1
    total = alpha + beta
    assert t.mean().item() == pytest.approx(alpha / total, abs=0.005)
    assert t.var().item() == pytest.approx(alpha * beta / (total**2 * (total + 1)), abs=0.003)


def test_the_exact_field_leaves_only_the_conditional_variance() -> None:
    """Its loss is below any other field's, and adding a constant c to it adds exactly c² in expectation."""
    data, gamma = Gaussian(1.0, 0.5), 0.4
    left = data.sample(400_000, 1)
    right = ou_step(left, gamma, Gaussian(0, 1).sample(400_000, 1, seed=1))
    t = TimeLaw().sample(400_000, torch.Generator().manual_seed(2)).double()
    exact = ExactBlock(data, gamma)
    best = matching_loss(exact, left, right, t).item()
    shifted = matching_loss(lambda x, t, cond: exact(x, t) + 0.3, left, right, t).item()
    assert shifted - best == pytest.approx(0.09, abs=0.003)


def test_the_loss_is_the_mean_squared_error_by_hand() -> None:
    left, right = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    loss = matching_loss(lambda x, t, cond: torch.zeros_like(x), left, right, torch.tensor([0.3]))
    assert loss.item() == pytest.approx((1 + 4) / 2)
