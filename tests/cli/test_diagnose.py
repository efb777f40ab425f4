"""Diagnosing runs: densities and policies alike, clear refusals."""

from pathlib import Path
from typing import Any

import pytest

from lfm_cli import command_line as _cli
from lfm_cli import diagnose as script
from lfm_cli import train
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.files import read_json
from tests.training.runs import TINY, point_mass_store, settings


def _diagnose(run: Path, *overrides: str) -> dict[str, Any]:
    script.main(_cli.load("diagnose", [f"policy={run}", "samples=40", *overrides]))
    return read_json(run / "diagnosis" / "summary.json")


@pytest.fixture(scope="module")
def density(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("density")
    small = ["data.samples=300", "data.test=20", "network.width=8", "batch=16", "logging.mode=disabled", "updates=2"]
    solver = "flow.solver={method: rk4, steps: 2}"
    train.main(settings("experiment=2d/gaussian", *small, "flow.blocks=3", solver, f"out={out}"))
    return out


def test_a_density_has_a_row_a_block_and_its_last_kl_is_nll_minus_floor(density: Path) -> None:
    found = _diagnose(density, "samples=4000")
    assert [row["gamma"] for row in found["blocks"]] == [pytest.approx(0.025), pytest.approx(0.03125), None]
    trained = read_json(density / "summary.json")
    last = found["blocks"][-1]
    assert last["kl"] == pytest.approx(trained["nll"] - trained["floor"], abs=1.0)
    assert found["nfe"] == 3 * 8
    assert found["inversion"] < 1e-3


def test_another_solver_changes_the_inversion(density: Path) -> None:
    fine, coarse = (_diagnose(density, f"solver={{method: euler, steps: {n}}}")["inversion"] for n in (16, 1))
    assert fine < 0.5 * coarse


def test_a_policy_is_measured_under_its_observations(tmp_path: Path) -> None:
    data = point_mass_store(tmp_path / "data.zarr")
    train.main(settings(*TINY, f"data.path={data}", "epochs=null", "updates=2", f"out={tmp_path / 'run'}"))
    with pytest.raises(ConfigError, match=r"data\.path=DIR\.zarr"):
        _diagnose(tmp_path / "run")
    found = _diagnose(tmp_path / "run", f"data.path={data}")
    assert len(found["blocks"]) == 4
    assert all(row["kl"] is None and row["distance"] > 0 for row in found["blocks"])


def test_a_pretrained_policy_is_told_apart_from_a_run() -> None:
    with pytest.raises(CheckpointError, match="a run of lfm train, found no such folder at lift"):
        _diagnose(Path("lift"))


def test_weights_without_a_run_are_refused(density: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((density / "checkpoint" / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"no trainer\.json"):
        _diagnose(tmp_path)
