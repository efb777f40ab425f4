"""Pieces of the loop: learning rate, moving average, accumulation, divergence."""

import pytest
import torch
from torch import nn

from lfm_policy.flow import FlowChain, Phase, Schedule, TensorPool, fit, plan
from lfm_policy.networks import ConditionalUnet1d
from lfm_policy.training.ema import Ema
from lfm_policy.training.loop import StepReport, Trainer, TrainingDiverged, learning_rate
from lfm_policy.training.settings import OptimiserSettings, StepDecay


class Scaling(nn.Module):
    """v(x, t) = w x."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
        return self.weight * x


def _trainer(settings: OptimiserSettings, phase: Phase) -> Trainer:
    chain = FlowChain([Scaling()], Schedule(()))
    return Trainer(chain, (phase,), settings, 0, lambda report: None, lambda trainer, *, force: None)


def test_learning_rate_warms_up_linearly_and_falls_as_a_cosine() -> None:
    settings = OptimiserSettings(learning_rate=1.0, warmup_steps=10)
    rates = [learning_rate(step, 110, settings) for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == pytest.approx(1)
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[109] < 0.001


def test_learning_rate_decays_in_steps() -> None:
    settings = OptimiserSettings(learning_rate=1.0, warmup_steps=2, step_decay=StepDecay(factor=0.9, every=10))
    rates = [learning_rate(step, 100, settings) for step in range(31)]
    assert rates[:3] == pytest.approx([0.5, 1, 1])
    assert rates[9:11] == pytest.approx([1, 0.9])
    assert rates[30] == pytest.approx(0.9**3)


def test_the_average_follows_diffusion_policys_decay() -> None:
    chain = FlowChain([Scaling(0.0)], Schedule(()))
    ema = Ema(chain, power=0.75, max_decay=0.9)
    expected, decays = 0.0, []
    for step in range(60):
        chain.blocks[0].weight.data.fill_(float(step))
        decays.append(min(0.9, 1 - (1 + step) ** -0.75))
        expected = decays[-1] * expected + (1 - decays[-1]) * step
        ema.update(chain, (0,))
    assert ema.chain.blocks[0].weight.item() == pytest.approx(expected, rel=1e-5)
    assert max(decays) == 0.9


def test_accumulated_batches_give_the_gradient_of_their_mean() -> None:
    """Two batches with losses w a and w b move w as one batch with loss w (a + b) / 2 does."""
    values = iter([1.0, 4.0])
    phase = Phase((0,), "marginal", 1)
    seen: list[StepReport] = []
    trainer = _trainer(OptimiserSettings(accumulate=2), phase)
    trainer._on_step = seen.append
    weight = trainer.chain.blocks[0].weight

    def losses(generator: torch.Generator):
        yield lambda: weight * next(values)

    gradients = []
    weight.register_post_accumulate_grad_hook(lambda p: gradients.append(p.grad.item()))
    trainer.optimise(0, phase, losses)
    assert gradients[-1] == pytest.approx(2.5)
    assert seen[0].losses == {0: pytest.approx(2.5)}


def test_a_diverging_loss_stops_the_run() -> None:
    phase = Phase((0,), "marginal", 3)
    trainer = _trainer(OptimiserSettings(), phase)
    weight = trainer.chain.blocks[0].weight
    with pytest.raises(TrainingDiverged, match="step 0 of phase 0"):
        trainer.optimise(0, phase, lambda generator: iter([lambda: weight * float("nan")]))
    assert weight.item() == 1


def test_gradients_are_clipped_to_the_norm() -> None:
    phase = Phase((0,), "marginal", 1)
    trainer = _trainer(OptimiserSettings(gradient_clip=0.5), phase)
    weight = trainer.chain.blocks[0].weight
    clipped: list[float] = []
    clip = trainer._clip

    def spy(phase: Phase) -> None:
        clip(phase)
        clipped.append(weight.grad.item())

    trainer._clip = spy
    trainer.optimise(0, phase, lambda generator: iter([lambda: weight * 100.0]))
    assert clipped == [pytest.approx(0.5, rel=1e-4)]


def test_blocks_side_by_side_get_the_gradients_that_they_get_in_turn() -> None:
    """Bit for bit, on networks large enough for threads to overlap."""

    def train(parallel: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        blocks = [ConditionalUnet1d(action_dim=10, cond_dim=4, dims=(16, 32), time_dim=8) for _ in range(4)]
        chain = FlowChain(blocks, Schedule.geometric(4, 0.2, 1.0))
        pool = TensorPool(torch.randn(64, 8, 10), torch.randn(64, 4))
        phases = plan("simulation_free", 4, 3)
        settings, silent = OptimiserSettings(warmup_steps=0), lambda trainer, *, force: None
        trainer = Trainer(chain, phases, settings, 0, lambda report: None, silent, parallel)
        fit(chain, trainer.ema.chain, pool, phases, trainer.optimise, batch=32)
        return [p.detach() for p in chain.parameters()]

    assert all(torch.equal(ours, theirs) for ours, theirs in zip(train(1), train(3), strict=True))
