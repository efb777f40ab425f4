"""Success against epochs, from snapshots of a real run on the point mass."""

import json
from pathlib import Path

import pytest

from lfm_cli import command_line as _cli
from lfm_cli import learning_curve, train
from lfm_policy.errors import CheckpointError
from tests.training.runs import TINY, point_mass_store, settings


def _draw(*overrides: str) -> None:
    learning_curve.main(_cli.load("learning_curve", list(overrides)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curve")
    store = point_mass_store(folder / "points.zarr")
    train.main(settings(*TINY, "updates=4", f"data.path={store}", f"out={folder / 'short'}", "snapshots=2"))
    return folder / "short"


@pytest.mark.slow
def test_each_snapshot_becomes_a_point(run: Path, tmp_path: Path) -> None:
    _draw(f"runs=[{run}]", "episodes=2", "workers=1", "temperature=0", f"out={tmp_path}")
    (curve,) = json.loads((tmp_path / "summary.json").read_text())["curves"]
    trained = json.loads((run / "summary.json").read_text())
    assert [point["updates"] for point in curve["points"]] == [2, 4]
    assert [point["epochs"] for point in curve["points"]] == [trained["epochs"] / 2, trained["epochs"]]
    assert all(low <= p["success"] <= high for p in curve["points"] for low, high in [p["interval"]])
    assert (tmp_path / "curve.png").stat().st_size > 0


def test_a_run_without_snapshots_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found 0 snapshots and no summary"):
        _draw(f"runs=[{tmp_path}]", "episodes=2", "workers=1", f"out={tmp_path / 'out'}")
