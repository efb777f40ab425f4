"""The baselines without a law, against what they must learn: a conditional mean, in one step or in two."""

import pytest
import torch
from torch import Tensor, nn

from lfm_policy.errors import ConfigError
from lfm_policy.flow import Solver, TensorPool, fit, plan
from lfm_policy.models.regression import Kind, RegressionChain
from lfm_policy.networks import VelocityMlp
from lfm_policy.training.loop import Trainer
from lfm_policy.training.settings import OptimiserSettings

STD = 0.5
STEPS: dict[Kind, int] = {"regression": 1, "mip": 2}


def _fitted(kind: Kind) -> RegressionChain:
    """A chain trained on a = ±1 by a fair coin, plus the condition, plus noise."""
    torch.manual_seed(0)
    cond = torch.rand(2000, 1) * 4 - 2
    coin = torch.randint(2, cond.shape) * 2 - 1
    pool = TensorPool(cond + coin + STD * torch.randn_like(cond), cond)
    chain = RegressionChain(VelocityMlp(1, 1, width=32, layers=2, activation="silu"), kind, Solver(steps=STEPS[kind]))
    phases = plan("simulation_free", 1, 150)
    optimiser = OptimiserSettings(learning_rate=2e-2, ema_max_decay=0.9, warmup_steps=10)
    trainer = Trainer(chain, phases, optimiser, 0, lambda report: None, lambda trainer, *, force: None)
    fit(chain, trainer.ema.chain, pool, phases, trainer.optimise, batch=128)
    return trainer.ema.chain


def test_regression_recovers_the_conditional_mean_and_no_mode() -> None:
    chain, cond = _fitted("regression"), torch.linspace(-2, 2, 41)[:, None]
    passage = chain.to_data(torch.randn(41, 1), cond)
    assert passage.nfe == 1
    torch.testing.assert_close(passage.x, cond, atol=0.25, rtol=0)


def test_the_second_step_of_mip_corrects_towards_the_mean_of_what_its_guess_may_come_from() -> None:
    """At 0.9 a + 0.1 z a lies within 0.11 of what the network sees: it sharpens a guess, and the first is the mean."""
    chain, cond = _fitted("mip"), torch.linspace(-2, 2, 41)[:, None]
    passage = chain.to_data(torch.randn(41, 1), cond)
    assert passage.nfe == 2
    torch.testing.assert_close(passage.x, cond, atol=0.3, rtol=0)
    action = cond + 1.0  # a mode, given noisily: the second level knows it again
    seen = 0.9 * action + 0.1 * torch.randn_like(action)
    network = chain.blocks[0]
    guess = network(seen, torch.full((41,), 0.1), cond)
    assert (guess - action).square().mean() < 0.1 * (guess - cond).square().mean()


class Recorder(nn.Module):
    """Answers with the time that it is asked at, and remembers what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        self.seen.append((x, t))
        return 2 + t[:, None].expand_as(x)


def test_mip_asks_twice_the_second_time_at_nine_tenths_of_the_first_answer() -> None:
    network = Recorder()
    x = RegressionChain(network, "mip", Solver(steps=2)).to_data(torch.randn(3, 2)).x
    (first, at), (second, then) = network.seen
    assert (first == 0).all()
    assert at.tolist() == [1.0] * 3
    torch.testing.assert_close(second, torch.full((3, 2), 0.9 * 3))
    torch.testing.assert_close(then, torch.full((3,), 0.1))
    torch.testing.assert_close(x, torch.full((3, 2), 2.1))


@pytest.mark.parametrize("kind", ["regression", "mip"])
def test_the_loss_asks_at_its_levels_and_nowhere_else(kind: Kind) -> None:
    network, action, noise = Recorder(), torch.randn(6, 2), torch.randn(6, 2)
    chain, t = RegressionChain(network, kind, Solver(steps=STEPS[kind])), torch.linspace(0, 1, 6)
    value = chain.loss(0, action, noise, t)()
    ((seen, at),) = network.seen
    late = (t >= 0.5) if kind == "mip" else torch.zeros(6, dtype=torch.bool)
    torch.testing.assert_close(at, torch.where(late, 0.1, 1.0))
    torch.testing.assert_close(seen, torch.where(late[:, None], 0.9 * action + 0.1 * noise, 0.0))
    torch.testing.assert_close(value, (2 + at[:, None] - action).square().mean())


def test_the_noise_does_not_matter() -> None:
    chain, cond = RegressionChain(VelocityMlp(2, 1), "mip", Solver(steps=2)), torch.randn(4, 1)
    one, other = (chain.to_data(torch.randn(4, 2), cond).x for _ in range(2))
    assert torch.equal(one, other)


def test_another_number_of_evaluations_is_refused_and_so_is_the_way_back() -> None:
    network = VelocityMlp(2, 1)
    with pytest.raises(ConfigError, match=r"in 2 evaluation.*found 3 of euler"):
        RegressionChain(network, "mip", Solver(steps=3))
    with pytest.raises(ConfigError, match="found 1 of heun"):
        RegressionChain(network, "regression", Solver("heun", 1))
    chain = RegressionChain(network, "regression", Solver())
    with pytest.raises(ConfigError, match="noise to data only"):
        chain.to_noise(torch.zeros(1, 2), torch.zeros(1, 1))
    with pytest.raises(ConfigError, match="noise to data only"):
        chain.trajectory(torch.zeros(1, 2), torch.zeros(1, 1))
