"""Densities: they integrate to one, their samples follow them, their entropies are right."""

import math
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from lfm_policy.data.densities import ANALYTIC, Checkerboard, EightGaussians, MaskDensity
from lfm_policy.errors import DataError


def _mask() -> MaskDensity:
    """An L: dark column on the left, half-dark row at the bottom."""
    weights = torch.zeros(20, 16)
    weights[:, 2], weights[0, :] = 1.0, 0.5
    return MaskDensity(weights)


DENSITIES = {"mask": _mask(), **ANALYTIC}


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _grid(edge: float, cells: int) -> tuple[Tensor, float]:
    axis = (torch.arange(cells, dtype=torch.float64) + 0.5) * (2 * edge / cells) - edge
    return torch.cartesian_prod(axis, axis), (2 * edge / cells) ** 2


@pytest.mark.parametrize("name", DENSITIES)
def test_a_density_integrates_to_one(name: str) -> None:
    points, area = _grid(7.0, 280)
    assert DENSITIES[name].log_prob(points).exp().sum().item() * area == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", DENSITIES)
def test_the_entropy_is_the_mean_of_minus_log_p(name: str) -> None:
    density = DENSITIES[name]
    logs = density.log_prob(density.sample(100_000, _generator()))
    error = logs.std().item() / math.sqrt(len(logs))
    assert -logs.mean().item() == pytest.approx(density.entropy(), abs=4 * error + 1e-4)


@pytest.mark.parametrize("name", DENSITIES)
def test_samples_fall_into_each_cell_as_the_density_says(name: str) -> None:
    """Chi-square over cells, with the expected counts from quadrature of log_prob."""
    density, count = DENSITIES[name], 50_000
    points, area = _grid(6.0, 240)
    masses = density.log_prob(points).exp().view(12, 20, 12, 20).sum((1, 3)).flatten() * area * count
    x = density.sample(count, _generator(1))
    cells = ((x + 6).floor().clamp(0, 11).long() * torch.tensor([12, 1])).sum(1)
    found = torch.bincount(cells, minlength=144)
    used = masses > 20
    statistic = ((found - masses).square() / masses)[used].sum().item()
    degrees = int(used.sum())
    assert degrees > 8
    assert statistic < degrees + 5 * math.sqrt(2 * degrees)


@pytest.mark.parametrize("name", DENSITIES)
def test_samples_are_a_function_of_the_generator(name: str) -> None:
    density = DENSITIES[name]
    draws = [density.sample(5, _generator(seed)) for seed in (3, 3, 4)]
    assert draws[0].shape == (5, 2)
    assert draws[0].dtype == torch.float32
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=0)
    assert not torch.equal(draws[0], draws[2])


def test_known_entropies() -> None:
    """Half of [-4, 4]²; far-apart Gaussians have log 8 more than one."""
    assert Checkerboard().entropy() == pytest.approx(math.log(32))
    single = math.log(2 * math.pi * math.e * EightGaussians.std**2)
    assert EightGaussians().entropy() == pytest.approx(single + math.log(8), abs=0.01)
    one = torch.zeros(9, 9)
    one[4, 4] = 1
    mask = MaskDensity(one)
    assert mask.entropy() == pytest.approx(math.log(2 * math.pi * math.e * (4 / 9) ** 2), abs=1e-6)


def test_there_is_nothing_outside() -> None:
    far = torch.tensor([[100.0, 0.0], [0.0, -100.0]])
    assert _mask().log_prob(far).tolist() == [-math.inf] * 2
    assert Checkerboard().log_prob(torch.tensor([[-3.0, -3.0], [-1.0, -3.0]])).tolist() == [-math.log(32), -math.inf]


def test_dark_is_dense_and_up_is_up(tmp_path: Path) -> None:
    """A black pixel in the top left corner, its neighbour half as dark, transparency that hides black."""
    image = Image.new("RGBA", (10, 8), "white")
    image.putpixel((0, 0), (0, 0, 0, 255))
    image.putpixel((9, 0), (127, 127, 127, 255))
    image.putpixel((5, 7), (0, 0, 0, 0))
    image.save(tmp_path / "corner.png")
    density = MaskDensity.from_image(tmp_path / "corner.png")
    peaks = density.log_prob(torch.tensor([[-4.0, 4.0], [4.0, 4.0]])).exp()
    assert (peaks[0] / peaks[1]).item() == pytest.approx(255 / 128)
    assert density.sample(1000, _generator())[:, 1].min() > 1


def test_images_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not an image")
    Image.new("L", (4, 4), "white").save(tmp_path / "white.png")
    for name in ("missing.png", "notes.png"):
        with pytest.raises(DataError, match=rf"data\.mask must name an image.*{name}"):
            MaskDensity.from_image(tmp_path / name)
    with pytest.raises(DataError, match=r"white\.png: a mask needs .* something dark"):
        MaskDensity.from_image(tmp_path / "white.png")


@pytest.mark.skipif("LFM_DATA" not in os.environ, reason="LFM_DATA is not set: the paper's masks are not here")
@pytest.mark.parametrize(("name", "floor"), [("rose", 2.487), ("tree", 1.955)])
def test_the_papers_masks_have_their_floors(name: str, floor: float) -> None:
    density = MaskDensity.from_image(Path(os.environ["LFM_DATA"]) / "masks" / f"{name}.png")
    assert density.entropy() == pytest.approx(floor, abs=0.005)
    logs = density.log_prob(density.sample(100_000, _generator()))
    assert -logs.mean().item() == pytest.approx(density.entropy(), abs=0.01)
