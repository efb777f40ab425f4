import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lfm_policy.data.normalizers.radial import RadialNormalizer
from lfm_policy.errors import DataError
from lfm_policy.models.density import FlowModel
from lfm_policy.models.spec import ChainSpec, FlowSpec

NU, DIM = 6.0, 8
"""Degrees of freedom and dimension of a multivariate Student t: Gaussian in direction, with heavy tails in length."""


def _student(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Samples and their log-densities."""
    g = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.2, 3, DIM)
    normal = torch.randn(count, DIM, generator=g)
    chi2 = torch.randn(count, int(NU), generator=g).square().sum(1, keepdim=True)
    x = normal / (chi2 / NU).sqrt()
    log_norm = math.lgamma((NU + DIM) / 2) - math.lgamma(NU / 2) - DIM / 2 * math.log(NU * math.pi)
    log_prob = log_norm - (NU + DIM) / 2 * (x.square().sum(1) / NU).log1p() - scale.log().sum()
    return x * scale + 1, log_prob


def test_a_heavy_tailed_density_becomes_gaussian() -> None:
    """The density of a Gaussian after the map is that of the Student t it was fitted on."""
    normalizer = RadialNormalizer.fit(_student(200_000, 0)[0])
    x, truth = _student(20_000, 1)
    z = normalizer.normalize(x)
    torch.testing.assert_close(torch.cov(z.T), torch.eye(DIM), atol=0.05, rtol=0)
    found = -0.5 * z.square().sum(1) - DIM / 2 * math.log(2 * math.pi) + normalizer.log_det(x)
    assert abs(found.mean() - truth.mean()) < 0.02
    assert (found - truth).abs().quantile(0.99) < 0.2


def test_there_and_back_and_the_change_of_volume() -> None:
    normalizer = RadialNormalizer.fit(_student(5000, 0)[0])
    x, _ = _student(50, 2)
    x = torch.cat([x, 100 * x[:5], 1e-3 * x[:5]])  # beyond the knots too
    torch.testing.assert_close(normalizer.denormalize(normalizer.normalize(x)), x, atol=1e-4, rtol=1e-4)
    double = normalizer.double()
    for point in x.double():
        jacobian = torch.autograd.functional.jacobian(double.normalize, point)
        torch.testing.assert_close(double.log_det(point), jacobian.slogdet().logabsdet, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(double.scaled(0.5).normalize(x.double()), 0.5 * double.normalize(x.double()))


def test_samples_of_one_length_are_refused() -> None:
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 5)
    with pytest.raises(DataError, match=r"found \d+ different ones in 32 samples.*use normalizer=whiten"):
        RadialNormalizer.fit(corners)


def test_travels_with_a_model(tmp_path: Path) -> None:
    network = {"_target_": "lfm_policy.networks.VelocityMlp", "width": 4, "layers": 1}
    model = FlowModel(FlowSpec(dim=DIM, chain=ChainSpec(gammas=(), network=network), normalizer="radial"))
    model.normalizer = RadialNormalizer.fit(_student(5000, 0)[0])
    model.save_pretrained(tmp_path / "model")
    x = _student(10, 3)[0]
    loaded = FlowModel.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded.log_prob(x).log_prob, model.log_prob(x).log_prob)
    assert torch.equal(loaded.sample(x).x, model.sample(x).x)
