"""Density runs go through the same script and loop as robot runs."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lfm_policy.errors import CheckpointError, ConfigError, DataError
from lfm_policy.models.density import FlowModel
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.networks import build_blocks
from tests.training.runs import Killed, run_until, settings

SHRINK = [
    "threads=1",
    "data.samples=300",
    "data.test=20",
    "data.valid=20",
    "network.width=8",
    "global_network.width=16",
    "batch=16",
    "flow.solver={method: euler, steps: 1}",
    "logging.mode=disabled",
]
DOPRI5 = "flow.solver={method: dopri5, tolerance: 0.01}"
ANALYTIC = ["checkerboard", "eight_gaussians", "gaussian", "pinwheel", "two_moons"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dark square in a white frame."""
    path = tmp_path_factory.mktemp("masks") / "square.png"
    mask = Image.new("L", (12, 12), "white")
    mask.paste(0, (3, 3, 9, 9))
    mask.save(path)
    return path


def _summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


@pytest.mark.parametrize("method", ["lfm", "fm", "interflow"])
@pytest.mark.parametrize("name", ["rose", "tree", "mask", "rose_grid", "tree_grid", "mask_grid", *ANALYTIC])
def test_every_preset_trains_two_steps_and_goes_on_to_four(name: str, method: str, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    mask = [] if name in ANALYTIC else [f"data.mask={image}"]
    common = [*SHRINK, *mask, f"experiment=2d/{name}", f"method={method}", f"out={out}", "updates=4"]
    with pytest.raises(Killed):
        run_until(2, *common, "checkpoint_seconds=0")
    assert json.loads((out / "checkpoint" / "trainer.json").read_text())["updates"] == 1
    run_until(None, *common)
    summary = _summary(out)
    assert summary["blocks"] == (1 if method != "lfm" else 5 if name.endswith("grid") else 9)
    assert summary["updates"] == 4
    assert summary["nfe_likelihood"] == summary["nfe_sample"] == summary["blocks"]
    assert FlowModel.from_pretrained(out).digest() == summary["digest"]


def test_a_resumed_run_ends_with_the_same_model(tmp_path: Path) -> None:
    common = [*SHRINK, "experiment=2d/two_moons", "flow.blocks=3", "updates=3", "checkpoint_seconds=0", DOPRI5]
    run_until(None, *common, f"out={tmp_path / 'whole'}")
    with pytest.raises(Killed):
        run_until(5, *common, f"out={tmp_path / 'parts'}")
    run_until(None, *common, f"out={tmp_path / 'parts'}")
    whole, parts = (_summary(tmp_path / name) for name in ("whole", "parts"))
    assert whole["digest"] == parts["digest"]
    assert whole["nll"] == parts["nll"]


def test_a_minute_of_training_is_better_than_a_gaussian(tmp_path: Path) -> None:
    """Eight Gaussians: the floor is 2.83, the best single Gaussian has log(2πe σ²) with σ² = 4 + 1/8: 4.26."""
    overrides = ["experiment=2d/eight_gaussians", "size=tiny", "method=fm", "global_network.width=64", "updates=300"]
    small = ["data.samples=20000", "data.test=500", "logging.mode=disabled", "flow.solver={method: rk4, steps: 8}"]
    run_until(None, *overrides, *small, f"out={tmp_path}")
    summary = _summary(tmp_path)
    assert summary["floor"] < summary["nll"] < 3.6
    assert summary["nfe_likelihood"] == summary["nfe_sample"] == 32


@pytest.mark.parametrize("name", ["rose", "tree"])
def test_presets_are_the_rows_of_table_a1(name: str) -> None:
    preset = settings(f"experiment=2d/{name}", "out=x")
    assert preset.flow.schedule().gammas == pytest.approx([0.025 * 1.25**n for n in range(8)])
    assert (preset.flow.interpolant, preset.flow.mode) == ("trigonometric", "sequential")
    assert (preset.flow.solver.method, preset.flow.solver.tolerance) == ("dopri5", 1e-5)
    assert (preset.batch, preset.updates, preset.data.samples) == (10_000, 50_000, 2_000_000)
    optimiser = preset.optimiser
    assert (optimiser.learning_rate, optimiser.betas, optimiser.eps) == (2e-4, (0.9, 0.999), 1e-8)
    assert optimiser.step_decay is not None
    assert (optimiser.step_decay.factor, optimiser.step_decay.every) == (0.99, 1000)


def test_grid_chains_and_global_grids_have_equal_parameters_and_the_same_training() -> None:
    presets = {m: settings("experiment=2d/tree_grid", f"method={m}", "out=x") for m in ("lfm", "fm")}
    totals = {}
    for method, preset in presets.items():
        blocks = preset.flow.schedule().blocks
        networks = build_blocks(preset.block_network, blocks, dim=2)
        totals[method] = sum(p.numel() for p in networks.parameters())
    assert totals["fm"] == pytest.approx(totals["lfm"], rel=0.01)
    lfm, fm = (preset.fingerprint() for preset in presets.values())
    assert {key for key in lfm if lfm[key] != fm[key]} == {"method", "flow"}


@pytest.mark.parametrize("size", ["paper", "small", "tiny"])
def test_all_methods_have_equal_parameters_and_the_same_training(size: str) -> None:
    """One scheme for all: only the chain differs."""
    presets = {m: settings("experiment=2d/rose", f"size={size}", f"method={m}", "out=x") for m in ("lfm", "fm")}
    totals = {}
    for method, preset in presets.items():
        network, blocks = preset.block_network, preset.flow.schedule().blocks
        width = network["width"]
        totals[method] = blocks * (4 * width + 2 * width * (width + 1) + 2 * (width + 1))
    assert totals["fm"] == pytest.approx(totals["lfm"], rel=0.01)
    lfm, fm = (preset.fingerprint() for preset in presets.values())
    assert {key for key in lfm if lfm[key] != fm[key]} == {"method", "flow"}


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["experiment=2d/rose", "data.mask=nowhere.png"], DataError, r"data\.mask must name an image.*nowhere"),
        (["experiment=2d/mask"], ConfigError, "density 'mask', and no other, needs mask=FILE"),
        (["experiment=2d/pinwheel", "data.mask=a.png"], ConfigError, "density 'mask', and no other, needs mask=FILE"),
        (["experiment=2d/pinwheel", "data.density=pinweel"], ConfigError, "'pinwheel'"),
        (["experiment=2d/pinwheel", "data.sampels=3"], ConfigError, "did you mean 'data.samples'"),
        (["experiment=2d/pinwheel", "data.path=x"], ConfigError, "unknown setting 'data.path'"),
        (["experiment=2d/pinwhel"], ConfigError, "did you mean '2d/pinwheel'"),
        (["experiment=2d/pinwheel", "scaling=density/smal"], ConfigError, "scaling"),
    ],
)
def test_bad_settings_are_explained(overrides: list[str], error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        run_until(None, *overrides, "updates=2", "logging.mode=disabled", f"out={tmp_path / 'run'}")
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_a_mask_never_seen_before_prints_its_own_floor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One dark pixel of 9 x 9 is a Gaussian with standard deviation 4/9: log(2πe (4/9)²)."""
    picture = Image.new("L", (9, 9), "white")
    picture.putpixel((3, 6), 0)
    picture.save(tmp_path / "new.png")
    for preset in ("mask", "mask_grid"):
        out = tmp_path / preset
        common = [*SHRINK, f"experiment=2d/{preset}", f"data.mask={tmp_path / 'new.png'}", "updates=2", f"out={out}"]
        run_until(None, *common)
        floor = _summary(out)["floor"]
        assert floor == pytest.approx(math.log(2 * math.pi * math.e * (4 / 9) ** 2), abs=1e-3)
        assert re.search(rf"floor +│ {floor:.4g}", capsys.readouterr().out)


def test_another_mask_is_another_run(image: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    mask.write_bytes(image.read_bytes())
    common = [*SHRINK, "experiment=2d/mask", "method=fm", f"data.mask={mask}", "updates=2", f"out={tmp_path / 'run'}"]
    run_until(None, *common)
    Image.new("L", (5, 5), "black").save(mask)
    with pytest.raises(CheckpointError, match=r"source\.sha256: there"):
        run_until(None, *common)


def test_a_flow_model_is_no_policy(tmp_path: Path) -> None:
    common = [*SHRINK, "experiment=2d/checkerboard", "method=fm", "updates=2", f"out={tmp_path}"]
    run_until(None, *common)
    with pytest.raises(CheckpointError, match="holds no policy"):
        LFMPolicy.from_pretrained(tmp_path)
    averaged, raw = (FlowModel.from_pretrained(tmp_path, weights=kind) for kind in ("ema", "raw"))
    x = torch.zeros(3, 2)
    torch.testing.assert_close(averaged.log_prob(x).log_prob, raw.log_prob(x).log_prob)  # the paper's 2D rows: no EMA
