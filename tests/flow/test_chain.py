"""The chain with exact Gaussian blocks: known maps, round trips and counts."""

import itertools
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from lfm_policy.choices import Method
from lfm_policy.errors import ConfigError
from lfm_policy.flow import FlowChain, Interpolant, Schedule, Solver, TimeLaw, log_prob
from lfm_policy.flow.interpolant import gaussian_path
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


def test_blocks_take_steps_of_their_own_and_the_last_number_holds_for_the_rest() -> None:
    chain, noise = exact_chain(DATA, SCHEDULE), torch.randn(16, 1).double()
    some = chain.to_data(noise, solver=Solver("euler", (5, 2)))
    assert some.nfe == 5 + 2 + 2 + 2
    before = chain.to_data(noise, stop=1, solver=Solver("euler", 2))
    torch.testing.assert_close(some.x, chain.to_data(before.x, start=1, solver=Solver("euler", 5)).x, rtol=0, atol=0)
    chain.solver = Solver("euler", (5, 2))
    back = chain.to_noise(chain.to_data(noise).x).x
    assert (back - noise).abs().max() < (chain.to_noise(chain.to_data(noise, solver=Solver()).x).x - noise).abs().max()


def test_steps_for_blocks_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"solver.steps=\[2, 1, 1, 1, 1\] names 5 blocks, the chain has 4"):
        exact_chain(DATA, SCHEDULE, Solver("euler", (2, 1, 1, 1, 1)))
    with pytest.raises(ValueError, match="must be positive, found \\(2, 0\\)"):
        Solver("euler", (2, 0))
    with pytest.raises(ValueError, match="must be positive, found \\(\\)"):
        Solver("euler", ())


def test_blocks_and_schedule_must_agree() -> None:
    with pytest.raises(ValueError, match="4 blocks, but 1 networks"):
        FlowChain([nn.Identity()], SCHEDULE)


class Shifted(nn.Module):
    """A velocity field and a constant."""

    def __init__(self, field: nn.Module, shift: float) -> None:
        super().__init__()
        self.field, self.shift = field, shift

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.field(x, t) + self.shift


@pytest.mark.parametrize("n", [0, 1, 3])
def test_both_losses_are_least_at_the_exact_field_and_the_marginal_one_has_less_variance(n: int) -> None:
    """Any other field's loss is larger by the mean square of the difference; what is left is variance of the target."""
    chain = exact_chain(DATA, SCHEDULE)
    shifted = FlowChain([Shifted(block, 0.3) for block in chain.blocks], SCHEDULE)
    data, (first, second) = DATA.sample(400_000, 1), Gaussian(0, 1).sample(2, 400_000, 1, seed=1)
    left = SCHEDULE.marginal(n, data, first) if n else data
    right = SCHEDULE.target(n, left, second)
    t = TimeLaw().sample(400_000, torch.Generator().manual_seed(2)).double()
    by_ends = [of.loss(n, left, right, t)().item() for of in (chain, shifted)]
    by_data = [of.marginal_loss(n, data, first, t)().item() for of in (chain, shifted)]
    assert by_ends[1] - by_ends[0] == pytest.approx(0.09, abs=0.005)
    assert by_data[1] - by_data[0] == pytest.approx(0.09, abs=0.005)
    if n == 0:
        assert by_data[0] == pytest.approx(by_ends[0], rel=0.02)  # there the data are the left end: nothing to gain
    else:
        assert by_data[0] < 0.5 * by_ends[0]


def test_the_loss_is_the_mean_squared_error_by_hand() -> None:
    left, right = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    still = Shifted(nn.Identity(), 0.0)
    still.field.forward = lambda x, t: torch.zeros_like(x)  # pyright: ignore[reportAttributeAccessIssue]
    loss = FlowChain([still], Schedule(())).loss(0, left, right, torch.tensor([0.3]))()
    assert loss.item() == pytest.approx((1 + 4) / 2)


class Zero(nn.Module):
    """F = 0."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return torch.zeros_like(x)


@pytest.mark.parametrize("kind", get_args(Interpolant))
def test_a_preconditioned_network_that_says_nothing_is_right_for_normalised_gaussian_data(kind: Interpolant) -> None:
    """Every p_n is then N(0, 1), and so is every x_t up to its size: the chain is the identity."""
    chain = FlowChain([Zero() for _ in range(4)], SCHEDULE, kind, Solver("rk4", 40), precondition=True)
    x = Gaussian(0, 1).sample(16, 3)
    torch.testing.assert_close(chain.to_noise(x).x, x, atol=1e-6, rtol=0)
    torch.testing.assert_close(chain.to_data(x).x, x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", get_args(Interpolant))
@pytest.mark.parametrize("n", [0, 2, 3])
def test_preconditioned_inputs_and_targets_have_unit_variance(kind: Interpolant, n: int) -> None:
    chain = FlowChain([Zero() for _ in range(4)], SCHEDULE, kind, precondition=True)
    t = torch.linspace(0.01, 1, 9, dtype=torch.float64)  # at 0, blocks behind the first only shrink: outer is 0
    mean, std, mean_rate, std_rate = gaussian_path(kind, SCHEDULE, n, t)
    inner, skip, outer = chain.preconditioning(n, t)
    assert (outer > 0).all()
    one = torch.ones_like(t)
    torch.testing.assert_close(inner**2 * (mean**2 + std**2), one)
    towards_data = (mean_rate - skip * mean) / outer
    towards_noise = (std_rate - skip * std) / outer
    torch.testing.assert_close(towards_data**2 + towards_noise**2, one)
    torch.testing.assert_close(towards_noise, inner * mean)
    torch.testing.assert_close(towards_data, -inner * std)


class MixtureBlock(nn.Module):
    """The exact velocity of block n for data of three narrow Gaussians, mean 0 and variance 1 together."""

    def __init__(self, schedule: Schedule, n: int) -> None:
        super().__init__()
        self.schedule, self.n = schedule, n
        mean, std = torch.tensor([-1.2, 0.1, 1.1]).double(), torch.tensor([0.15, 0.1, 0.2]).double()
        self.weights = torch.tensor([0.3, 0.3, 0.4]).double()
        mean = mean - self.weights @ mean
        total = (self.weights @ (mean**2 + std**2)).sqrt()
        self.mean, self.variance = mean / total, (std / total) ** 2

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        keep, std, keep_rate, std_rate = gaussian_path("linear", self.schedule, self.n, t[:, None])
        variance = keep**2 * self.variance + std**2
        far = x - keep * self.mean
        share = torch.softmax(self.weights.log() - 0.5 * variance.log() - 0.5 * far**2 / variance, dim=1)
        data, noise = self.mean + keep * self.variance / variance * far, std / variance * far
        return (share * (keep_rate * data + std_rate * noise)).sum(1, keepdim=True)


def _mixture(schedule: Schedule) -> FlowChain:
    return FlowChain([MixtureBlock(schedule, n) for n in range(schedule.blocks)], schedule)


def test_steps_along_the_gaussian_path_are_as_exact_in_four_blocks_as_on_one_straight_path() -> None:
    noise = torch.randn(500, 1, generator=torch.Generator().manual_seed(0)).double()

    def error(chain: FlowChain, method: Method, steps: int | tuple[int, ...]) -> float:
        exact = chain.to_data(noise, solver=Solver("rk4", 60)).x
        return (chain.to_data(noise, solver=Solver(method, steps)).x - exact).square().mean().sqrt().item()

    chain, straight = _mixture(Schedule.geometric(4, 0.3, 1.1)), _mixture(Schedule(()))
    assert chain.to_data(noise[:2], solver=Solver("gaussian", 5)).nfe == 20
    assert error(chain, "gaussian", 5) < 1.2 * error(straight, "euler", 20)
    assert error(chain, "gaussian", 5) < 0.4 * error(chain, "euler", 5)
    # an uneven schedule wants more steps where the way is longer: 11, 14, 24 and 41 degrees
    uneven = _mixture(Schedule.geometric(4, 0.02, 4.0))
    assert error(uneven, "gaussian", (3, 3, 5, 9)) < 0.9 * error(uneven, "gaussian", 5)


def test_on_one_straight_path_a_gaussian_step_is_eulers() -> None:
    chain, noise = _mixture(Schedule(())), torch.randn(20, 1).double()
    for steps in (1, 4):
        euler, along = (chain.to_data(noise, solver=Solver(method, steps)).x for method in ("euler", "gaussian"))
        torch.testing.assert_close(along, euler)


@pytest.mark.parametrize("kind", ["linear", "trigonometric"])
def test_a_gaussian_step_is_exact_where_data_and_noise_are_known(kind: Interpolant) -> None:
    """The velocity of one datum's path, whatever block and interpolant: one step ends at the path's other end."""
    chain = FlowChain([nn.Identity()] * 3, Schedule.geometric(3, 0.3, 1.1), kind)
    for n in range(3):
        times = torch.tensor([0.9, 0.2, 0.0]).double()
        for t, after in itertools.combinations(range(3), 2):
            mean, std, mean_rate, std_rate = gaussian_path(kind, chain.schedule, n, times)
            keep, gain = chain.gaussian_step(n, times[t].item(), times[after].item())
            x, v = (1.5 * m - 0.7 * s for m, s in ((mean, std), (mean_rate, std_rate)))
            torch.testing.assert_close(keep * x[t] + gain * v[t], x[after])


def test_gaussian_steps_do_not_lead_to_noise() -> None:
    chain, x = _mixture(Schedule.geometric(3, 0.3, 1.1)), torch.zeros(2, 1).double()
    with pytest.raises(ConfigError, match="lead to data only"):
        chain.to_noise(x, solver=Solver("gaussian", 2))
    with pytest.raises(ConfigError, match="are for samples"):
        log_prob(chain, x, solver=Solver("gaussian", 2))
