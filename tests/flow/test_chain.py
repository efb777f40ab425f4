"""The chain with exact Gaussian blocks: known maps, round trips and counts."""

import pytest
import torch
from torch import nn

from lfm_policy.flow import FlowChain, Schedule, Solver
from tests.flow.gaussian import Gaussian, exact_chain

DATA, SCHEDULE = Gaussian(1.5, 0.4), Schedule.geometric(4, 0.25, 1.25)


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_exact_blocks_carry_the_data_to_the_ou_marginals(stop: int) -> None:
    """One-dimensional Gaussian transport is affine: x goes to mean_n + (std_n / std_0) (x - mean_0)."""
    chain, x = exact_chain(DATA, SCHEDULE), DATA.sample(64, 2)
    law = DATA.marginal(SCHEDULE, stop)
    expected = law.mean + law.std / DATA.std * (x - DATA.mean)
    torch.testing.assert_close(chain.to_noise(x, stop=stop).x, expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("solver", [Solver("rk4", 50), Solver("dopri5", tolerance=1e-8)])
def test_to_data_inverts_to_noise(solver: Solver) -> None:
    chain, x = exact_chain(DATA, SCHEDULE, solver), DATA.sample(32, 3)
    back = chain.to_data(chain.to_noise(x).x).x
    torch.testing.assert_close(back, x, atol=1e-6, rtol=0)


def test_a_passage_splits_at_any_block() -> None:
    chain, x = exact_chain(DATA, SCHEDULE), DATA.sample(8, 2)
    middle = chain.to_noise(x, stop=2)
    end = chain.to_noise(middle.x, start=2)
    whole = chain.to_noise(x)
    torch.testing.assert_close(end.x, whole.x)
    assert middle.nfe + end.nfe == whole.nfe == 4 * 4 * 50


def test_one_euler_step_a_block_costs_one_evaluation_a_block() -> None:
    chain = exact_chain(DATA, SCHEDULE, Solver("euler", 1))
    assert chain.to_data(torch.zeros(2, 1).double()).nfe == 4


def test_blocks_and_schedule_must_agree() -> None:
    with pytest.raises(ValueError, match="4 blocks, but 1 networks"):
        FlowChain([nn.Identity()], SCHEDULE)
