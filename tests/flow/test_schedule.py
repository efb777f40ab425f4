"""Laws of the OU step and of the schedule."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from lfm_policy.flow import Schedule
from lfm_policy.flow.schedule import ou_step
from tests.flow.gaussian import Gaussian


def test_ou_steps_form_a_semigroup() -> None:
    """Steps γ1 and γ2 on independent noises have the law of one step γ1 + γ2: same mean factor, same variance."""
    x, zero, one = torch.ones(3).double(), torch.zeros(3).double(), torch.ones(3).double()
    mean_twice = ou_step(ou_step(x, 0.3, zero), 0.5, zero)
    torch.testing.assert_close(mean_twice, ou_step(x, 0.8, zero))
    first = ou_step(ou_step(zero, 0.3, one), 0.5, zero)
    second = ou_step(zero, 0.5, one)
    torch.testing.assert_close(first**2 + second**2, ou_step(zero, 0.8, one) ** 2)


def test_ou_keeps_the_normal_law_and_forgets_the_start() -> None:
    unit = Gaussian(0, 1).after_ou(0.7)
    assert (unit.mean, unit.std) == pytest.approx((0, 1))
    far = torch.full((2,), 5.0)
    torch.testing.assert_close(ou_step(far, 60.0, torch.ones(2)), torch.ones(2))


def test_geometric_schedule_is_equation_25_with_a_free_last_block() -> None:
    schedule = Schedule.geometric(4, 0.15, 1.25)
    assert schedule.gammas == pytest.approx((0.15, 0.1875, 0.234375))
    assert schedule.blocks == 4
    assert schedule.time(0) == 0
    assert schedule.time(3) == pytest.approx(0.571875)


def test_one_block_has_no_ou_step_and_ends_in_noise() -> None:
    schedule = Schedule.geometric(1, 0.15, 1.25)
    data, noise = torch.zeros(5), torch.ones(5)
    assert schedule.gammas == ()
    assert schedule.target(0, data, noise) is noise


def test_marginals_and_targets_have_the_closed_form_law() -> None:
    schedule, data = Schedule.geometric(3, 0.4, 1.5), Gaussian(2.0, 0.5)
    x0 = data.sample(200_000, 1)
    left = schedule.marginal(1, x0, Gaussian(0, 1).sample(200_000, 1, seed=1))
    right = schedule.target(1, left, Gaussian(0, 1).sample(200_000, 1, seed=2))
    for sample, law in ((left, data.marginal(schedule, 1)), (right, data.marginal(schedule, 2))):
        assert sample.mean().item() == pytest.approx(law.mean, abs=0.01)
        assert sample.std().item() == pytest.approx(law.std, abs=0.01)
    covariance = torch.cov(torch.cat([left, right], 1).T)[0, 1].item()
    assert covariance == pytest.approx(math.exp(-schedule.gammas[1]) * data.marginal(schedule, 1).std ** 2, abs=0.01)


@pytest.mark.parametrize("gammas", [(0.1, 0.0), (-0.1,), (float("nan"),)])
def test_steps_must_be_positive(gammas: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Schedule(gammas)


def test_cosine_schedule_fades_the_data_like_a_cosine() -> None:
    schedule = Schedule.cosine(5)
    assert schedule.blocks == 5
    assert [math.exp(-schedule.time(n)) for n in range(5)] == pytest.approx(
        [math.cos(math.pi * n / 10) for n in range(5)]
    )
    assert Schedule.cosine(1).gammas == ()


@pytest.mark.parametrize("make", [Schedule.cosine, lambda blocks: Schedule.geometric(blocks, 0.1, 1.0)])
def test_a_chain_has_a_block(make: Callable[[int], Schedule]) -> None:
    with pytest.raises(ValueError, match="at least one block, found 0"):
        make(0)


def test_angles_are_those_whose_cosine_is_what_is_left_of_the_data() -> None:
    schedule = Schedule.turned([0.3, 1.0])
    assert schedule.blocks == 3
    assert [schedule.angle(n) for n in range(4)] == pytest.approx([0, 0.3, 1.0, math.pi / 2])
    assert Schedule.cosine(4).gammas == pytest.approx(Schedule.turned([math.pi / 8 * n for n in (1, 2, 3)]).gammas)


def test_an_equalised_schedule_gives_each_block_as_much_error_times_angle() -> None:
    before, errors = Schedule.cosine(4), [1.0, 1.0, 4.0, 2.0]
    after = before.equalised(errors)
    ends = [after.angle(n) for n in range(5)]
    # the integral of the error, which is constant between multiples of 22.5 degrees, between two ends
    fine = torch.linspace(0, math.pi / 2, 100_001).double()
    error = torch.tensor(errors).double()[(fine[1:] * 8 / math.pi - 1e-9).long().clamp(max=3)] * (fine[1] - fine[0])
    shares = [error[(fine[1:] > a) & (fine[1:] <= b)].sum().item() for a, b in itertools.pairwise(ends)]
    assert shares == pytest.approx([shares[0]] * 4, rel=1e-3)
    same = Schedule.geometric(3, 0.2, 1.5)
    widths = [same.angle(n + 1) - same.angle(n) for n in range(3)]
    assert same.equalised([1 / width for width in widths]).gammas == pytest.approx(same.gammas)
