"""Fréchet distances against closed forms; the classifier whose features stand in for Inception's."""

import math
from pathlib import Path

import pytest
import torch

from lfm_policy.data.images import Images, load_images
from lfm_policy.errors import ConfigError
from lfm_policy.measure.frechet import Moments, classifier_for, frechet_distance, inception, moments
from tests.data.pictures import write_arrays


def _gaussian(mean: list[float], variances: list[float], turn: torch.Tensor) -> Moments:
    covariance = turn @ torch.diag(torch.tensor(variances).double()) @ turn.T
    return Moments(torch.tensor(mean).double(), covariance)


def test_gaussians_with_common_axes_have_a_closed_form() -> None:
    """|μ_a - μ_b|² + Σ (σ_a - σ_b)², whatever the axes."""
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    a, b = _gaussian([0, 0, 0], [1, 4, 0], turn), _gaussian([3, 0, 4], [9, 1, 4], turn)
    assert frechet_distance(a, b) == pytest.approx(25 + 4 + 1 + 4)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_gaussians_in_the_plane_without_common_axes() -> None:
    """tr (AB)^{1/2} of 2 x 2 matrices is sqrt(tr AB + 2 sqrt(det AB))."""
    quarter = torch.tensor([[1, -1], [1, 1]]).double() / math.sqrt(2)
    a, b = _gaussian([0, 0], [1, 9], torch.eye(2).double()), _gaussian([0, 0], [4, 1], quarter)
    product = a.covariance @ b.covariance
    root = math.sqrt(product.trace() + 2 * math.sqrt(torch.linalg.det(product)))
    assert frechet_distance(a, b) == pytest.approx(10 + 5 - 2 * root)


def test_moments_of_samples_approach_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(20_000, 1, 1, 2, generator=generator)
    b = 2 * torch.randn(20_000, 1, 1, 2, generator=generator) + 3

    def features(pictures: torch.Tensor) -> torch.Tensor:
        return pictures.double().flatten(1) / 10 - 12.8

    found = (moments(features, (10 * x + 128).round().clamp(0, 255).to(torch.uint8)) for x in (a, b))
    assert frechet_distance(*found) == pytest.approx(2 * 9 + 2 * 1, rel=0.03)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_classifier_tells_pictures_apart_and_is_trained_once(labelled: bool, tmp_path: Path) -> None:
    """Without labels it learns to tell by how much a picture was turned."""
    images = load_images(write_arrays(tmp_path / "a.npz"), 8)
    if not labelled:
        images = Images(images.train, images.test)
    cpu = torch.device("cpu")
    first = classifier_for(images, tmp_path / "classifier", 40, cpu)
    assert first.accuracy > (0.9 if labelled else 0.4)
    written = (tmp_path / "classifier" / "classifier.safetensors").stat().st_mtime_ns
    again = classifier_for(images, tmp_path / "classifier", 40, cpu)
    assert (tmp_path / "classifier" / "classifier.safetensors").stat().st_mtime_ns == written
    torch.testing.assert_close(again.network.features(images.test), first.network.features(images.test))
    real, held_out = (moments(first.network.features, part) for part in (images.train, images.test))
    noise = moments(first.network.features, torch.randint(256, images.test.shape, dtype=torch.uint8))
    assert frechet_distance(real, held_out) < 0.2 * frechet_distance(real, noise)


def test_fid_needs_its_weights(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"torch-fidelity|Inception's weights"):
        inception(tmp_path / "weights.pth", torch.device("cpu"))
