"""Corollary 4.3: data without a density get one, and everything downstream knows."""

import json
import math
from pathlib import Path

import pytest
import torch

from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.flow import TensorPool
from lfm_policy.models.density import FlowModel
from lfm_policy.training.experiments.data_settings import WindowData
from lfm_policy.training.experiments.experiment import shrunk, with_diffusion
from lfm_policy.training.experiments.robot import new_policy, window_pool
from tests.training.runs import TINY, point_mass_store, run_until, settings

DELTA = 0.02


def test_a_point_becomes_the_ou_law_and_denormalises_around_itself() -> None:
    points = torch.tensor([[1.0, -2.0]]).expand(40_000, 2)
    plain = AffineNormalizer.identity(2).scaled(3.0)
    normalizer = shrunk(plain, DELTA)
    pool = with_diffusion(TensorPool(normalizer.normalize(points)), DELTA, seed=0)
    x = pool.take(torch.arange(len(pool))).x
    torch.testing.assert_close(x.mean(0), 3 * math.exp(-DELTA) * points[0], atol=5e-3, rtol=0)
    assert x.std(0).tolist() == pytest.approx([math.sqrt(1 - math.exp(-2 * DELTA))] * 2, rel=0.02)
    back = normalizer.denormalize(x)
    torch.testing.assert_close(back.mean(0), points[0], atol=5e-3, rtol=0)
    assert back.std(0).tolist() == pytest.approx([math.sqrt(math.expm1(2 * DELTA)) / 3] * 2, rel=0.02)


def test_the_noise_is_drawn_afresh_as_the_generator_decides() -> None:
    """A sample is a law and no point: taken again and again it fills the OU law around itself."""
    pool = with_diffusion(TensorPool(torch.tensor([[1.0, -2.0]])), DELTA, seed=0)
    generator = torch.Generator().manual_seed(3)
    drawn = torch.cat([pool.take(torch.zeros(50, dtype=torch.long), generator).x for _ in range(100)])
    assert len(drawn.unique(dim=0)) == len(drawn)
    torch.testing.assert_close(drawn.mean(0), torch.tensor([1.0, -2.0]), atol=0.02, rtol=0)
    assert drawn.std(0).tolist() == pytest.approx([math.sqrt(1 - math.exp(-2 * DELTA))] * 2, rel=0.05)
    again = pool.take(torch.zeros(50, dtype=torch.long), torch.Generator().manual_seed(3)).x
    torch.testing.assert_close(again, drawn[:50], rtol=0, atol=0)
    index = torch.zeros(4, dtype=torch.long)
    torch.testing.assert_close(pool.take(index).x, pool.take(index).x, rtol=0, atol=0)  # told by the index alone


def test_without_it_nothing_changes() -> None:
    pool, normalizer = TensorPool(torch.zeros(3, 2)), AffineNormalizer.identity(2)
    assert with_diffusion(pool, 0.0, seed=0) is pool
    assert shrunk(normalizer, 0.0) is normalizer


def test_a_density_run_says_so(tmp_path: Path) -> None:
    small = ["data.samples=300", "data.test=20", "global_network.width=8", "batch=16", "logging.mode=disabled"]
    solver = "flow.solver={method: euler, steps: 1}"
    run = ["experiment=2d/two_moons", "method=fm", *small, solver, "updates=2", f"out={tmp_path}"]
    run_until(None, *run, f"flow.initial_diffusion={DELTA}")
    model = FlowModel.from_pretrained(tmp_path)
    assert model.spec.chain.initial_diffusion == DELTA
    assert model.normalizer.scale.tolist() == pytest.approx([math.exp(-DELTA)] * 2)
    assert json.loads((tmp_path / "summary.json").read_text())["initial_diffusion"] == DELTA


def test_a_policy_is_trained_on_diffused_chunks_under_clean_observations(tmp_path: Path) -> None:
    from lfm_policy.data.windows.store import open_store

    store = open_store(point_mass_store(tmp_path / "data.zarr"))
    data = WindowData(path=str(tmp_path / "data.zarr"))
    chosen = settings(*TINY, f"data.path={data.path}", "out=x")
    pools = []
    for time in (0.0, DELTA):
        changed = chosen.model_copy(update={"flow": chosen.flow.model_copy(update={"initial_diffusion": time})})
        policy = new_policy(changed, data, store)
        assert policy.spec.chain.initial_diffusion == time
        pools.append(window_pool(data, store, policy).take(torch.arange(50)))
    clean, diffused = pools
    torch.testing.assert_close(clean.cond, diffused.cond, rtol=0, atol=0)
    noise = (diffused.x - math.exp(-DELTA) * clean.x) / math.sqrt(1 - math.exp(-2 * DELTA))
    assert noise.std().item() == pytest.approx(1, abs=0.05)
