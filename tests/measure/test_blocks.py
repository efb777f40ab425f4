"""Diagnostics on Gaussian data and exact blocks, whose every number has a closed form."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lfm_policy.flow import FlowChain, Sample, Schedule, Solver
from lfm_policy.measure.blocks import BlockReport, diagnose, path_shape
from tests.flow.gaussian import Gaussian, exact_chain

DATA, SCHEDULE, DIM = Gaussian(1.5, 0.4), Schedule.geometric(3, 0.3, 1.25), 2


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _log_density(x: Tensor) -> Tensor:
    return torch.distributions.Normal(DATA.mean, DATA.std).log_prob(x).sum(1)


def _report(chain: FlowChain, known: bool = True) -> list[BlockReport]:
    sample = Sample(DATA.sample(4000, DIM))
    return list(diagnose(chain, sample, _generator(), _log_density if known else None))


def _kl(law: Gaussian) -> float:
    return DIM * 0.5 * (law.std**2 + law.mean**2 - 1 - 2 * math.log(law.std))


@pytest.fixture(scope="module")
def exact() -> list[BlockReport]:
    return _report(exact_chain(DATA, SCHEDULE))


def test_divergences_to_noise_are_the_closed_ones_and_contract_as_the_theory_says(exact: list[BlockReport]) -> None:
    for row in exact:
        assert row.kl == pytest.approx(_kl(DATA.marginal(SCHEDULE, row.block + 1)), abs=5 * row.kl_error + 1e-6)
    for row, gamma in zip(exact[:2], SCHEDULE.gammas, strict=True):
        before, after = (_kl(DATA.marginal(SCHEDULE, n)) for n in (row.block, row.block + 1))
        assert row.contraction == pytest.approx(after / before, rel=0.05)
        assert row.contraction < math.exp(-2 * gamma)
    assert exact[-1].kl == pytest.approx(0, abs=1e-6)
    assert exact[-1].gamma is None


def test_exact_blocks_end_where_equal_samples_do(exact: list[BlockReport]) -> None:
    for row in exact:
        assert row.distance < 2 * row.distance_of_equals < 0.01


def test_a_block_that_misses_its_target_is_told_from_its_neighbours() -> None:
    class Shifted(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            return self.block(x, t) + 0.5

    chain = exact_chain(DATA, SCHEDULE)
    rows = _report(
        FlowChain([chain.blocks[0], Shifted(chain.blocks[1]), chain.blocks[2]], SCHEDULE, solver=chain.solver)
    )
    assert rows[0].distance < 2 * rows[0].distance_of_equals
    assert rows[1].distance > 10 * rows[1].distance_of_equals
    assert rows[-1].kl is not None
    assert rows[-1].kl > 0.1


def test_the_shape_of_the_paths_is_the_one_of_gaussian_transport(exact: list[BlockReport]) -> None:
    """x(t) = m(t) + s(t) (x - m_0) / s_0: speed² is the mean of m'² + s'², the chord (Δm)² + (Δs)²."""
    for row in exact:
        left = DATA.marginal(SCHEDULE, row.block)
        a = math.exp(-row.gamma) if row.gamma else 0.0
        t = torch.linspace(0, 1, 2001, dtype=torch.float64)
        weight, noise = 1 - t + t * a, t * math.sqrt(1 - a * a)
        mean, std = weight * left.mean, (weight**2 * left.std**2 + noise**2).sqrt()
        speed = ((mean.diff() ** 2 + std.diff() ** 2).sum() * 2000).item()
        chord = ((mean[-1] - mean[0]) ** 2 + (std[-1] - std[0]) ** 2).item()
        assert row.speed == pytest.approx(speed, rel=0.05)
        assert row.curvature == pytest.approx(speed - chord, rel=0.1, abs=1e-4)


def test_a_straight_path_needs_one_step() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            return torch.full_like(x, 2.0)

    speed, curvature, one_step = path_shape(FlowChain([Constant()], Schedule(())), 0, Sample(DATA.sample(10, 3)))
    assert (speed, curvature, one_step) == pytest.approx((4, 0, 0))


def test_the_inversion_error_is_that_of_the_solver(exact: list[BlockReport]) -> None:
    coarse = _report(exact_chain(DATA, SCHEDULE, Solver("euler", 1)), known=False)
    assert max(row.inversion for row in exact) < 1e-6
    chain, x = exact_chain(DATA, SCHEDULE, Solver("euler", 1)), DATA.sample(4000, DIM)
    back = chain.to_data(chain.to_noise(x, stop=1).x, start=1).x
    assert coarse[0].inversion == pytest.approx((back - x).square().mean().sqrt().item())
    assert coarse[0].kl is coarse[0].contraction is None


def test_distances_are_joint_with_the_conditions() -> None:
    """A block that forgets its condition has the right marginal and the wrong joint law."""

    class Replace(nn.Module):
        def __init__(self, value: Tensor) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            return self.value[: len(x)] - x

    schedule = Schedule((0.02,))
    chain, x = exact_chain(DATA, schedule, Solver("euler", 1)), DATA.sample(2000, 1)
    law = DATA.marginal(schedule, 1)
    forgets = FlowChain([Replace(law.sample(2000, 1, seed=3)), chain.blocks[1]], schedule, solver=chain.solver)
    (marginal, _), (joint, _) = (list(diagnose(forgets, Sample(x, c), _generator())) for c in (None, x))
    assert marginal.distance < 2 * marginal.distance_of_equals
    assert joint.distance > 3 * joint.distance_of_equals


def test_a_report_is_a_function_of_its_generator(exact: list[BlockReport]) -> None:
    again = _report(exact_chain(DATA, SCHEDULE))
    assert [replace(row) for row in again] == exact
