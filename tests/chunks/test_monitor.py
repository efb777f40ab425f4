"""The monitor on densities that are known, and on a policy that was trained to go one way."""

import numpy as np
import pytest
import torch

from lfm_policy.chunks.best_of import BestOf
from lfm_policy.chunks.monitor import SCORES, Monitor
from lfm_policy.errors import ConfigError
from lfm_policy.measure.statistics import auroc
from lfm_policy.training.observations import fit_observations
from tests.models.test_policy import _histories, _noise, _policy


class _Towards(torch.nn.Module):
    """The exact velocity of one block from N(mean(cond), s²) to N(0, 1): a linear field, so all is known."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, x, t, cond):
        t = t.view(-1, 1, 1)
        mean = cond[:, :1, None].expand_as(x)
        variance = (1 - t) ** 2 * self.std**2 + t**2
        return (t - (1 - t) * self.std**2) / variance * (x - (1 - t) * mean) - mean


@pytest.fixture
def known():
    """A policy whose chunks are N(c, 0.3²) in each number, with c the first normalised observation."""
    from lfm_policy.data.normalizers.affine import AffineNormalizer
    from lfm_policy.flow import FlowChain, Schedule, Solver

    policy = _policy()
    policy.chain = FlowChain([_Towards(0.3)], Schedule(()), solver=Solver("rk4", 20))
    policy.encoding.action_normalizer = AffineNormalizer.standard(torch.randn(20000, 10))
    policy.encoding.action_normalizer.scale.fill_(1.0)
    policy.encoding.action_normalizer.offset.zero_()
    return policy


def _centres(policy, histories):
    return policy.condition(torch.from_numpy(histories))[:, 0].numpy()


class TestScores:
    def test_density_is_the_gaussians(self, known):
        histories = _histories(6)
        chunks = _centres(known, histories)[:, None, None] + 0.3 * _noise(6)
        found = Monitor(known, "density", 4).scores(histories, chunks.astype(np.float32))
        exact = 160 * np.log(0.3 * np.sqrt(2 * np.pi)) + 0.5 * np.square(_noise(6)).sum((1, 2))
        assert found == pytest.approx(exact, abs=0.5)

    @pytest.mark.parametrize("score", ["density", "residual"])
    def test_a_chunk_for_another_observation_is_unusual(self, known, score):
        histories = _histories(20)
        centres = _centres(known, histories)
        chunks = (centres[:, None, None] + 0.3 * _noise(20)).astype(np.float32)
        wrong = histories.copy()
        wrong[:, 0, 0] += 2 / known.encoding.observation_normalizer.scale[0].item()
        monitor = Monitor(known, score)
        usual, unusual = monitor.scores(histories, chunks), monitor.scores(wrong, chunks)
        assert auroc(usual, unusual) == 1

    def test_variance_is_that_of_the_samples(self, known):
        histories = _histories(3)
        found = Monitor(known, "variance", 64).scores(histories, _noise(3))
        assert found == pytest.approx(0.09, rel=0.15)

    @pytest.mark.parametrize("score", SCORES)
    def test_a_score_does_not_depend_on_the_batch(self, score):
        policy, histories, chunks = _policy(), _histories(3), _noise(3)
        model = fit_observations(policy.condition(torch.from_numpy(_histories(40))), updates=2)
        monitor = Monitor(policy, score, 3, observations=model)
        together = monitor.scores(histories, chunks)
        alone = [monitor.scores(histories[k : k + 1], chunks[k : k + 1])[0] for k in range(3)]
        assert together == pytest.approx(alone, rel=1e-3)

    def test_logpzo_of_observations_like_the_demonstrations_is_that_of_noise(self):
        policy = _policy()
        seen = policy.condition(torch.from_numpy(_histories(400)))
        model = fit_observations(seen, updates=300)
        near, far = _histories(40), _histories(40) + 8 * np.float32(_histories(400).std())
        monitor = Monitor(policy, "logpzo", observations=model)
        usual = monitor.scores(near, _noise(40))
        assert usual.mean() == pytest.approx(1, abs=0.25), "standard normal noise has mean square 1"
        assert auroc(usual, monitor.scores(far, _noise(40))) == 1
        np.testing.assert_array_equal(usual, monitor.scores(near, 2 * _noise(40)), "it does not look at the chunk")

    def test_logpzo_needs_its_flow(self):
        with pytest.raises(ConfigError, match="needs a flow on observations"):
            Monitor(_policy(), "logpzo")

    def test_refuses_too_few_draws(self):
        with pytest.raises(ConfigError, match="draws >= 2"):
            Monitor(_policy(), "variance", 1)


class TestBestOf:
    def test_takes_the_most_likely(self, known):
        best = BestOf(known, 5)
        assert best.noise_shape == (5, 16, 10)
        noise = np.random.default_rng(0).normal(size=(2, 5, 16, 10)).astype(np.float32)
        histories = _histories(2)
        chosen = best.predict(histories, noise)
        likeliest = np.square(noise).sum((2, 3)).argmin(1)
        expected = known.predict(histories, noise[[0, 1], likeliest])
        np.testing.assert_allclose(chosen.actions, expected.actions, atol=1e-5)
        assert chosen.nfe == 10 * expected.nfe

    def test_needs_a_choice(self):
        with pytest.raises(ConfigError, match="at least 2"):
            BestOf(_policy(), 1)
