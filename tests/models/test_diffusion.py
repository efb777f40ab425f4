"""The diffusion baselines against closed forms: one Gaussian action chunk whose best noise prediction is known."""

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers", reason="the diffusion baselines need diffusers")

from lfm_policy.flow import Solver
from lfm_policy.models.diffusion import NOISE_LEVELS, DiffusionChain, _levels

STD = 0.2


class BestPrediction(nn.Module):
    """E[ε | x_k] for data N(mean, STD²): linear in x_k; the condition is the mean."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        assert cond is not None
        k = (t * NOISE_LEVELS).round().long()
        kept = _levels("ddpm", Solver(steps=NOISE_LEVELS), True).alphas_cumprod[k].view(-1, 1, 1)
        mean = cond.view(-1, 1, 1)
        return (1 - kept).sqrt() * (x - kept.sqrt() * mean) / (kept * STD**2 + 1 - kept)


def _chain(sampler: str, steps: int) -> DiffusionChain:
    return DiffusionChain(BestPrediction(), sampler, Solver(steps=steps))


@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 100), ("ddim", 100)])
def test_the_best_prediction_samples_the_data(sampler: str, steps: int) -> None:
    torch.manual_seed(0)
    noise, cond = torch.randn(4000, 2, 1), torch.full((4000, 1), 0.3)
    passage = _chain(sampler, steps).to_data(noise, cond)
    assert passage.nfe == steps
    assert passage.x.mean().item() == pytest.approx(0.3, abs=0.02)
    assert passage.x.std().item() == pytest.approx(STD, rel=0.1)


def test_the_loss_is_least_at_the_best_prediction() -> None:
    torch.manual_seed(0)
    cond = torch.full((5000, 1), -0.4)
    left = cond.view(-1, 1, 1) + STD * torch.randn(5000, 2, 1)
    right, t = torch.randn_like(left), torch.rand(5000)
    chain = _chain("ddim", 20)
    best = chain.loss(0, left, right, t, cond)()
    kept = _levels("ddpm", Solver(steps=NOISE_LEVELS), True).alphas_cumprod.double()
    expected = (kept * STD**2 / (kept * STD**2 + 1 - kept)).mean()
    assert best.item() == pytest.approx(expected.item(), rel=0.05)
    shifted = chain.loss(0, left, right, t, cond + 0.1)()
    assert shifted > best


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_a_sample_follows_from_its_own_noise_alone(sampler: str) -> None:
    torch.manual_seed(0)
    noise, cond = torch.randn(3, 16, 2), torch.zeros(3, 1)
    chain = _chain(sampler, 10)
    together = chain.to_data(noise, cond).x
    assert torch.equal(together[1:2], chain.to_data(noise[1:2], cond[1:2]).x)
    assert not torch.allclose(together[1], together[2])


@pytest.mark.parametrize("clip", [True, False])
def test_data_outside_of_the_unit_box_need_samples_that_are_not_clipped(clip: bool) -> None:
    torch.manual_seed(0)
    chain = DiffusionChain(BestPrediction(), "ddim", Solver(steps=50), clip=clip)
    x = chain.to_data(torch.randn(400, 16, 2), torch.full((400, 1), 3.0)).x
    if clip:
        assert x.abs().max() <= 1
    else:
        assert x.mean().item() == pytest.approx(3.0, abs=0.1)


def test_what_a_diffusion_model_cannot_do_is_refused() -> None:
    with pytest.raises(TypeError, match="noise to data only"):
        _chain("ddim", 20).to_noise(torch.randn(1, 16, 2))
    with pytest.raises(ValueError, match="1 to 100 steps"):
        _chain("ddim", 101)
    with pytest.raises(ValueError, match="euler"):
        DiffusionChain(BestPrediction(), "ddim", Solver("rk4", 4))
