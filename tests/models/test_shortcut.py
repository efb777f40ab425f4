"""Shortcut models against a Gaussian, whose mean velocities over any step have a closed form."""

import pytest
import torch
from torch import Tensor, nn

from lfm_policy.errors import ConfigError
from lfm_policy.flow import Solver
from lfm_policy.models.shortcut import CODES, LEVELS, SHARE, ShortcutChain

MEAN, STD = 0.7, 0.3


class Exact(nn.Module):
    """The mean velocity s(x, t, h) of the straight path between N(MEAN, STD²) and noise; the code says h."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        level, t = cond[:, -CODES:].argmax(1, keepdim=True), t[:, None]
        rate = -MEAN + (t - (1 - t) * STD**2) / _spread(t) ** 2 * (x - (1 - t) * MEAN)
        h = torch.pow(0.5, level).to(x)
        after = (1 - t + h) * MEAN + _spread(t - h) / _spread(t) * (x - (1 - t) * MEAN)
        return torch.where(level == LEVELS, rate, (x - after) / h)


def _spread(t: Tensor) -> Tensor:
    return torch.hypot((1 - t) * STD, t)


def _draw(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    left = MEAN + STD * torch.randn(rows, 1, dtype=torch.float64)
    return left, torch.randn_like(left), torch.rand(rows, dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 16])
def test_the_exact_mean_velocity_samples_the_data_in_any_number_of_steps(steps: int) -> None:
    """Between Gaussians the flow is the affine map, so each noise z is to become MEAN + STD z."""
    _, noise, _ = _draw(50)
    passage = ShortcutChain(Exact(), Solver(steps=steps)).to_data(noise, torch.zeros(50, 2).double())
    assert passage.nfe == steps
    torch.testing.assert_close(passage.x, MEAN + STD * noise)


def test_long_steps_are_asked_for_what_two_of_half_their_length_give() -> None:
    left, right, t = _draw(SHARE * LEVELS * 10)
    chain = ShortcutChain(Exact(), Solver())
    asked = chain.loss(0, left, right, t)
    row = torch.arange(len(t))
    consistent, level = row % SHARE == 0, row // SHARE % LEVELS
    length = 0.5**level
    times = asked.t[consistent] / length[consistent]
    torch.testing.assert_close(times, times.round())
    assert (asked.t[consistent] >= length[consistent]).all()
    torch.testing.assert_close(asked.t[~consistent], t[~consistent])
    torch.testing.assert_close(-asked.offset[~consistent], (right - left)[~consistent])
    codes = torch.where(consistent, level, LEVELS)
    assert asked.cond is not None
    assert torch.equal(asked.cond.argmax(1), codes)
    error = (asked.offset + chain.blocks[0](asked.x, asked.t, asked.cond)).abs()
    coarse = consistent & (level < LEVELS - 1)
    assert error[coarse].max() < 1e-12
    assert error[consistent & ~coarse].max() < 0.1  # its halves are Euler's, from velocities


def test_preconditioned_the_network_gives_what_the_best_linear_guess_leaves() -> None:
    """With a network that answers 0 the chain takes the best linear guess for data of unit variance."""

    class Nothing(nn.Module):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return 0 * x

    chain = ShortcutChain(Nothing(), Solver(steps=2), precondition=True)
    x = torch.randn(4, 1)
    expected = x
    for t in (1.0, 0.5):
        inner, skip, _ = chain.preconditioning(0, torch.tensor(t))
        assert inner.item() == pytest.approx(((1 - t) ** 2 + t**2) ** -0.5)
        expected = expected - 0.5 * skip * expected
    torch.testing.assert_close(chain.to_data(x).x, expected)


def test_other_numbers_of_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"in 1 or 2 or 4 or 8 or 16 evaluation.*found 3 of euler"):
        ShortcutChain(Exact(), Solver(steps=3))
