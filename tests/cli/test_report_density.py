"""Reports on density runs: a row a run, two pictures, clear refusals."""

import json
from pathlib import Path

import pytest

from lfm_cli import command_line as _cli
from lfm_cli import report_density as report
from lfm_cli import train
from lfm_policy.errors import CheckpointError, ConfigError
from tests.training.runs import settings

SMALL = ["data.samples=200", "data.test=20", "network.width=8", "global_network.width=8", "updates=2", "batch=16"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, *overrides in (("lfm", "flow.blocks=2"), ("fm", "method=fm"), ("moons", "method=fm")):
        density = "two_moons" if name == "moons" else "checkerboard"
        solver = "flow.solver={method: euler, steps: 2}"
        values = [
            f"experiment=2d/{density}",
            *SMALL,
            *overrides,
            solver,
            "logging.mode=disabled",
            f"out={folder / name}",
        ]
        train.main(settings(*values))
    return folder


def _report(*overrides: str) -> None:
    report.main(_cli.load("report_density", ["points=500", *overrides]))


def test_a_report_has_a_row_a_run_and_two_pictures(runs: Path, tmp_path: Path) -> None:
    _report(f"runs=[{runs / 'lfm'},{runs / 'fm'}]", f"out={tmp_path}")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["run"], row["nfe_sample"]) for row in summary["runs"]] == [("lfm", 4), ("fm", 2)]
    trained = json.loads((runs / "lfm" / "summary.json").read_text())
    assert summary["runs"][0]["nll"] == trained["nll"]
    for name in ("density.png", "trajectories.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_another_solver_is_measured_again(runs: Path, tmp_path: Path) -> None:
    _report(f"runs=[{runs / 'lfm'}]", f"out={tmp_path}", "solver={method: rk4, steps: 2}")
    row = json.loads((tmp_path / "summary.json").read_text())["runs"][0]
    assert row["nfe_sample"] == row["nfe_likelihood"] == 2 * 2 * 4
    assert row["nll"] != json.loads((runs / "lfm" / "summary.json").read_text())["nll"]


def test_runs_that_cannot_be_compared_are_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="different densities"):
        _report(f"runs=[{runs / 'lfm'},{runs / 'moons'}]", f"out={tmp_path / 'out'}")
    with pytest.raises(CheckpointError, match="no finished run"):
        _report(f"runs=[{tmp_path}]", f"out={tmp_path / 'out'}")
    (tmp_path / "summary.json").write_text('{"success": 1}')
    with pytest.raises(CheckpointError, match="no density run"):
        _report(f"runs=[{tmp_path}]", f"out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()
