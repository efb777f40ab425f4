"""Tabular runs go through the same script and loop as all others."""

import json
from pathlib import Path
from typing import Any

import pytest

from lfm_policy.errors import CheckpointError
from lfm_policy.models.density import FlowModel
from lfm_policy.networks import build_blocks
from tests.data.tables import write_table
from tests.training.runs import Killed, run_until, settings

SHRINK = [
    "threads=1",
    "network.width=8",
    "global_network.width=16",
    "batch=16",
    "flow.solver={method: euler, steps: 1}",
    "logging.mode=disabled",
]
TABLES = ["power", "gas", "miniboone", "bsds300", "patches"]
DIM = {"power": 6, "gas": 8, "miniboone": 43, "bsds300": 63, "patches": 63}
BLOCKS = {"power": 4, "gas": 2, "miniboone": 2, "bsds300": 4, "patches": 4}


def _summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


@pytest.mark.parametrize("method", ["lfm", "fm", "interflow"])
@pytest.mark.parametrize("name", TABLES)
def test_every_preset_trains_two_steps_and_goes_on_to_four(name: str, method: str, tmp_path: Path) -> None:
    out, path = tmp_path / "run", write_table(tmp_path, name)
    common = [*SHRINK, f"experiment=tabular/{name}", f"method={method}", f"data.path={path}", f"out={out}", "updates=4"]
    with pytest.raises(Killed):
        run_until(2, *common, "checkpoint_seconds=0")
    assert json.loads((out / "checkpoint" / "trainer.json").read_text())["updates"] == 1
    run_until(None, *common)
    summary, model = _summary(out), FlowModel.from_pretrained(out)
    assert (summary["blocks"], model.spec.dim) == (BLOCKS[name] if method == "lfm" else 1, DIM[name])
    assert model.digest() == summary["digest"]
    assert summary["nll"] != summary["valid_nll"]
    assert summary["test_points"] == (40 if name in ("bsds300", "patches") else 20)
    assert not summary["as_published"]


def test_whitening_reaches_the_likelihood(tmp_path: Path) -> None:
    """An untrained chain is nearly noise; whitened, it begins as the best Gaussian, and its likelihood says so."""
    path = write_table(tmp_path, "patches", rows=2000)
    nll = {}
    for kind in ("identity", "whiten"):
        common = [*SHRINK, "experiment=tabular/patches", f"data.path={path}", f"data.normalizer={kind}", "updates=2"]
        run_until(None, *common, f"out={tmp_path / kind}")
        nll[kind] = _summary(tmp_path / kind)["nll"]
    assert nll["whiten"] < nll["identity"] - 100


def test_another_file_is_another_run(tmp_path: Path) -> None:
    path = write_table(tmp_path, "miniboone")
    common = [*SHRINK, "experiment=tabular/miniboone", f"data.path={path}", "updates=2", f"out={tmp_path / 'run'}"]
    run_until(None, *common)
    write_table(tmp_path, "miniboone", rows=300)
    with pytest.raises(CheckpointError, match=r"source\.sha256: there"):
        run_until(None, *common)


@pytest.mark.parametrize(
    ("name", "gammas", "batch", "steps", "rate", "decay", "beta", "millions"),
    [
        ("power", [0.15, 0.195, 0.2535], 30_000, 100_000, 5e-3, (0.99, 1000), 1.0, 0.81),
        ("gas", [0.05], 50_000, 100_000, 2e-3, (0.99, 1000), 0.5, 1.06),
        ("miniboone", [0.35], 1_000, 100_000, 5e-3, (0.9, 4000), 1.0, 0.85),
        ("bsds300", [0.25, 0.25, 0.25], 500, 30_000, 2e-3, (0.8, 4000), 1.0, 3.41),
    ],
)
def test_presets_are_the_columns_of_table_a1(
    name: str,
    gammas: list[float],
    batch: int,
    steps: int,
    rate: float,
    decay: tuple[float, int],
    beta: float,
    millions: float,
) -> None:
    preset = settings(f"experiment=tabular/{name}", "out=x")
    flow, optimiser = preset.flow, preset.optimiser
    assert flow.schedule().gammas == pytest.approx(gammas)
    assert (flow.interpolant, flow.mode) == ("trigonometric", "sequential")
    assert (flow.time_law.alpha, flow.time_law.beta) == (1.0, beta)
    assert (preset.batch, preset.updates, optimiser.learning_rate) == (batch, steps, rate)
    assert (optimiser.betas, optimiser.eps) == ((0.9, 0.999), 1e-8)
    assert optimiser.step_decay is not None
    assert (optimiser.step_decay.factor, optimiser.step_decay.every) == decay
    blocks = build_blocks(preset.network, flow.schedule().blocks, dim=DIM[name])
    assert sum(p.numel() for p in blocks.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("size", ["paper", "small", "tiny"])
@pytest.mark.parametrize("name", TABLES)
def test_methods_have_equal_parameters_and_the_same_training(name: str, size: str) -> None:
    presets = {m: settings(f"experiment=tabular/{name}", f"size={size}", f"method={m}", "out=x") for m in ("lfm", "fm")}
    totals = {}
    for method, preset in presets.items():
        blocks = build_blocks(preset.block_network, preset.flow.schedule().blocks, dim=DIM[name])
        totals[method] = sum(p.numel() for p in blocks.parameters())
    assert totals["fm"] == pytest.approx(totals["lfm"], rel=0.01)
    lfm, fm = (preset.fingerprint() for preset in presets.values())
    assert {key for key in lfm if lfm[key] != fm[key]} == {"method", "flow"}
