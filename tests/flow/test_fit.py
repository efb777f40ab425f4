"""Fitting on Gaussian data: both modes and their combination find the closed-form chain."""

import math
from typing import Literal, get_args

import pytest
import torch
from torch import Tensor, nn

from lfm_policy.flow import FlowChain, Phase, Sample, Schedule, Solver, TensorPool, TimeLaw, fit, plan
from lfm_policy.flow.fit import Coupling, Losses, Mode, Optimise, pushed
from lfm_policy.flow.interpolant import interpolate
from tests.flow.gaussian import Gaussian, exact_chain

DATA, SCHEDULE = Gaussian(1.5, 0.4), Schedule.geometric(3, 0.3, 1.25)
MODES: list[Mode] = ["sequential", "simulation_free", "combined"]


class AffineField(nn.Module):
    """v(x, t) = a(t) x + b(t) with polynomials a and b: rich enough for Gaussian data."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 7, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        chebyshev = torch.cos(torch.arange(7) * torch.arccos((2 * t - 1).clamp(-1, 1))[:, None]).to(x.dtype)
        slope, shift = (chebyshev @ self.weight.T).T[:, :, None]
        return slope * x + shift


def _adam(chain: FlowChain) -> Optimise:
    def optimise(k: int, phase: Phase, losses: Losses) -> None:
        for n in phase.blocks:
            if phase.warm_start:
                chain.blocks[n].load_state_dict(chain.blocks[n - 1].state_dict())
        optimiser = torch.optim.Adam([p for n in phase.blocks for p in chain.blocks[n].parameters()])
        for step in range(phase.steps):
            for group in optimiser.param_groups:
                group["lr"] = 0.2 * (1 - step / phase.steps)
            for loss in losses(torch.Generator().manual_seed(1000 * k + step)):
                loss().backward()
            optimiser.step()
            optimiser.zero_grad()

    return optimise


@pytest.mark.parametrize("mode", MODES)
def test_a_fit_finds_the_exact_marginals_and_generates_the_data(mode: Mode) -> None:
    chain = FlowChain([AffineField() for _ in range(3)], SCHEDULE, solver=Solver("rk4", 10))
    pool = TensorPool(DATA.sample(20_000, 1))
    fit(chain, chain, pool, plan(mode, 3, 300), _adam(chain), batch=4096)
    x = DATA.sample(20_000, 1, seed=5)
    for stop in (1, 2, 3):
        law, found = DATA.marginal(SCHEDULE, stop), chain.to_noise(x, stop=stop).x
        assert found.mean().item() == pytest.approx(law.mean, abs=0.03)
        assert found.std().item() == pytest.approx(law.std, abs=0.03)
    generated = chain.to_data(Gaussian(0, 1).sample(20_000, 1, seed=6)).x
    assert generated.mean().item() == pytest.approx(DATA.mean, abs=0.03)
    assert generated.std().item() == pytest.approx(DATA.std, abs=0.03)


@pytest.mark.parametrize("mode", MODES)
def test_with_one_block_every_mode_is_plain_flow_matching(mode: Mode) -> None:
    """N = 1: the left end is the data itself, the right end noise, on the batch that the generator decides."""
    chain = FlowChain([AffineField()], Schedule(()))
    nn.init.normal_(chain.blocks[0].weight, generator=torch.Generator().manual_seed(0))
    pool = TensorPool(DATA.sample(100, 1))
    found: list[float] = []

    def optimise(k: int, phase: Phase, losses: Losses) -> None:
        found.extend(loss().item() for loss in losses(torch.Generator().manual_seed(3)))

    fit(chain, chain, pool, plan(mode, 1, 4), optimise, batch=16)
    generator = torch.Generator().manual_seed(3)
    data = pool.x[torch.randint(100, (16,), generator=generator)]
    noise = torch.randn(16, 1, generator=generator, dtype=torch.float64)
    t = torch.rand(16, generator=generator)
    position, velocity = interpolate("linear", data, noise, t)
    expected = (chain.blocks[0](position, t) - velocity).square().mean().item()
    assert found == pytest.approx([expected] * len(found))


@pytest.mark.parametrize("mode", MODES)
def test_all_modes_give_each_block_the_same_number_of_updates(mode: Mode) -> None:
    updates = [sum(phase.steps for phase in plan(mode, 4, 100) if n in phase.blocks) for n in range(4)]
    assert updates == [100] * 4


def test_the_pool_is_pushed_with_its_conditions_in_order() -> None:
    chain, x = exact_chain(DATA, SCHEDULE), DATA.sample(10_000, 1)
    pool = pushed(chain, TensorPool(x, cond=x.clone()), start=0, stop=2, batch=1024)
    everything = pool.take(torch.arange(len(pool)))
    assert everything.cond is not None
    torch.testing.assert_close(everything.cond, x)
    torch.testing.assert_close(everything.x, chain.to_noise(x, stop=2).x)


def test_a_phase_that_is_skipped_reads_no_data() -> None:
    """A resumed run goes over its finished phases without pushing the pool again."""

    class Unreadable:
        def __len__(self) -> int:
            return 10

        def take(self, index: Tensor, generator: torch.Generator | None = None) -> Sample:
            raise AssertionError("the pool was read")

    chain, seen = exact_chain(DATA, SCHEDULE), []
    fit(chain, chain, Unreadable(), plan("sequential", 3, 5), lambda k, phase, losses: seen.append(k), batch=4)
    assert seen == [0, 1, 2]


class Recorder(nn.Module):
    """Keeps the points at which it is asked: at t = 0 the left ends, at t = 1 the right ends."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        self.seen = x
        return torch.zeros_like(x)


def _ends(coupling: Coupling, source: Literal["marginal", "pushforward"]) -> tuple[Tensor, Tensor]:
    """Both ends of the second of three blocks, drawn with the same generator."""
    chain = FlowChain([Recorder(), Recorder(), Recorder()], SCHEDULE)  # which stand still: a pushed sample stays
    pool, ends = TensorPool(DATA.sample(50_000, 1)), []
    for law in (TimeLaw(1e-6, 1e6), TimeLaw(1e6, 1e-6)):

        def optimise(k: int, phase: Phase, losses: Losses) -> None:
            for loss in losses(torch.Generator().manual_seed(0)):
                loss()

        phases = (Phase((1,), source, 1),)
        fit(chain, chain, pool, phases, optimise, batch=100_000, time_law=law, coupling=coupling)
        ends.append(chain.blocks[1].seen)
    return ends[0], ends[1]


@pytest.mark.parametrize("source", ["marginal", "pushforward"])
def test_couplings_differ_in_the_joint_law_only(source: Literal["marginal", "pushforward"]) -> None:
    """Marginals of both ends are the same; the correlation is e^{-γ} std / std' for dependent ends, else 0.

    Dependent ends of OU marginals are never drawn as a pair: given the data, one Gaussian decides each x_t.
    """
    gamma = SCHEDULE.gammas[1]
    left_law = DATA.marginal(SCHEDULE, 1) if source == "marginal" else DATA
    right_law = left_law.after_ou(gamma)
    for coupling in get_args(Coupling):
        left, right = _ends(coupling, source)
        for sample, law in ((left, left_law), (right, right_law)):
            assert sample.mean().item() == pytest.approx(law.mean, abs=0.02)
            assert sample.std().item() == pytest.approx(law.std, abs=0.02)
        if coupling == "dependent" and source == "marginal":
            continue
        correlation = torch.corrcoef(torch.cat([left, right], 1).T)[0, 1].item()
        expected = math.exp(-gamma) * left_law.std / right_law.std if coupling == "dependent" else 0.0
        assert correlation == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("coupling", ["shuffled", "independent"])
def test_conditions_need_the_dependent_coupling(coupling: Coupling) -> None:
    def optimise(k: int, phase: Phase, losses: Losses) -> None:
        list(losses(torch.Generator()))

    chain, x = exact_chain(DATA, SCHEDULE), DATA.sample(100, 1)
    with pytest.raises(ValueError, match="different conditions"):
        fit(chain, chain, TensorPool(x, x), plan("simulation_free", 3, 1), optimise, batch=8, coupling=coupling)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (1.0, 0.5), (2.0, 3.0)])
def test_times_have_the_moments_of_beta(alpha: float, beta: float) -> None:
    t = TimeLaw(alpha, beta).sample(200_000, torch.Generator().manual_seed(0))
    assert t.min() >= 0
    assert t.max() <= 1
    total = alpha + beta
    assert t.mean().item() == pytest.approx(alpha / total, abs=0.005)
    assert t.var().item() == pytest.approx(alpha * beta / (total**2 * (total + 1)), abs=0.003)


def test_what_is_pushed_takes_the_finest_steps_in_every_block() -> None:
    chain, x = exact_chain(DATA, SCHEDULE, Solver("euler", (5, 1))), DATA.sample(8, 1)
    finest = chain.to_noise(x, stop=2, solver=Solver("euler", 5)).x
    assert torch.equal(pushed(chain, TensorPool(x), start=0, stop=2).x, finest)
    assert not torch.equal(chain.to_noise(x, stop=2).x, finest)
