"""The diffusion baselines against closed forms: one Gaussian action chunk whose best prediction is known."""

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers", reason="the diffusion baselines need diffusers")

from lfm_policy.errors import ConfigError
from lfm_policy.flow import Solver
from lfm_policy.models.diffusion import NOISE_LEVELS, DiffusionChain, Prediction
from lfm_policy.models.spec import ChainSpec, FlowSpec, PolicySpec

STD = 0.2


class BestPrediction(nn.Module):
    """E[ε | x_k] or E[v | x_k] for data N(mean, STD²): linear in x_k; the condition is the mean."""

    def __init__(self, prediction: Prediction = "v") -> None:
        super().__init__()
        self.prediction = prediction

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        assert cond is not None
        kept = _kept()[(t * NOISE_LEVELS).round().long()].view(-1, 1, 1)
        mean = cond.view(-1, 1, 1)
        rest = (x - kept.sqrt() * mean) / (kept * STD**2 + 1 - kept)
        noise, data = (1 - kept).sqrt() * rest, mean + kept.sqrt() * STD**2 * rest
        return noise if self.prediction == "epsilon" else kept.sqrt() * noise - (1 - kept).sqrt() * data


def _kept() -> Tensor:
    return DiffusionChain(nn.Identity(), "ddpm", Solver()).levels(Solver(steps=NOISE_LEVELS)).alphas_cumprod


def _chain(sampler: str, steps: int, prediction: Prediction = "v") -> DiffusionChain:
    return DiffusionChain(BestPrediction(prediction), sampler, Solver(steps=steps), prediction=prediction)


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 100), ("ddim", 100)])
def test_the_best_prediction_samples_the_data(sampler: str, steps: int, prediction: Prediction) -> None:
    torch.manual_seed(0)
    noise, cond = torch.randn(4000, 2, 1), torch.full((4000, 1), 0.3)
    passage = _chain(sampler, steps, prediction).to_data(noise, cond)
    assert passage.nfe == steps
    assert passage.x.mean().item() == pytest.approx(0.3, abs=0.02)
    assert passage.x.std().item() == pytest.approx(STD, rel=0.1)


def test_steps_from_the_last_level_keep_the_mean_where_those_from_the_95th_do_not() -> None:
    torch.manual_seed(0)
    noise, cond = torch.randn(4000, 2, 1), torch.full((4000, 1), 0.3)
    found = {p: _chain("ddim", 5, p).to_data(noise, cond).x for p in ("v", "epsilon")}
    errors = {p: abs(x.mean().item() - 0.3) for p, x in found.items()}
    assert errors["v"] < 0.01 < errors["epsilon"]
    assert _chain("ddim", 20).to_data(noise, cond).x.std().item() == pytest.approx(STD, rel=0.25)


def test_v_of_data_of_unit_variance_is_asked_at_unit_variance() -> None:
    torch.manual_seed(0)
    loss = _chain("ddim", 20).loss(0, torch.randn(5000, 2, 1), torch.randn(5000, 2, 1), torch.rand(5000))
    assert loss.x.var().item() == pytest.approx(1, rel=0.05)
    assert loss.offset.var().item() == pytest.approx(1, rel=0.05)


def test_networks_of_before_predict_noise_as_they_did() -> None:
    """Records without the new words; their digests, taken of the first format, stay."""
    network = {"_target_": "lfm_policy.networks.ConditionalUnet1d", "dims": [16, 32]}
    old = {"gammas": [], "network": network, "diffusion": "ddim", "solver": {"steps": 20}}
    spec = PolicySpec.model_validate({"format": "lfm-policy/2", "chain": old})
    assert (spec.chain.objective, spec.chain.prediction) == ("ddim", "epsilon")
    assert '"diffusion":"ddim"' in spec.described()
    assert "objective" not in spec.described()
    first = PolicySpec.model_validate({"format": "lfm-policy/1"} | old)
    assert first == spec
    flow = ChainSpec.model_validate(old | {"diffusion": None})
    assert (flow.objective, flow.prediction) == ("flow", "v")
    described = FlowSpec(dim=2, chain=flow).described()
    assert not any(word in described for word in ("diffusion", "objective", "prediction"))
    with pytest.raises(ValueError, match="a diffusion model's"):
        ChainSpec(gammas=(), network=network, prediction="epsilon")


def test_the_loss_is_least_at_the_best_prediction() -> None:
    torch.manual_seed(0)
    cond = torch.full((5000, 1), -0.4)
    left = cond.view(-1, 1, 1) + STD * torch.randn(5000, 2, 1)
    right, t = torch.randn_like(left), torch.rand(5000)
    chain = _chain("ddim", 20, "epsilon")
    best = chain.loss(0, left, right, t, cond)()
    kept = _kept().double()
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
    with pytest.raises(ConfigError, match="noise to data only"):
        _chain("ddim", 20).to_noise(torch.randn(1, 16, 2))
    with pytest.raises(ConfigError, match="1 to 100 steps"):
        _chain("ddim", 101)
    with pytest.raises(ConfigError, match="euler"):
        DiffusionChain(BestPrediction(), "ddim", Solver("rk4", 4))
