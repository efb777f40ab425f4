"""Quality against cost, of a teacher and its students, for policies and for densities."""

import json
from pathlib import Path
from typing import Any

import pytest

from lfm_cli import command_line as _cli
from lfm_cli import distill, pareto, train
from lfm_policy.errors import ConfigError
from lfm_policy.measure.latency import Latency, latencies
from tests.training.runs import TINY, point_mass_store, settings

PLANE = ["data.samples=200", "data.test=20", "network.width=8", "updates=2", "batch=16", "logging.mode=disabled"]
SHORT = ["updates=2", "batch=8", "conditions=4", "draws=3", "parallel=1", "logging.mode=disabled"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`robot` and `plane`, two blocks each, with a student of one block each."""
    folder = tmp_path_factory.mktemp("models")
    store = point_mass_store(folder / "points.zarr")
    train.main(settings(*TINY, "flow.blocks=2", "updates=2", f"data.path={store}", f"out={folder / 'robot'}"))
    solver = "flow.solver={method: euler, steps: 2}"
    train.main(settings("experiment=2d/two_moons", *PLANE, "flow.blocks=2", solver, f"out={folder / 'plane'}"))
    for kind in ("robot", "plane"):
        overrides = [f"policy={folder / kind}", "blocks=1", "grow=false", f"out={folder / f'{kind}_one'}"]
        distill.main(_cli.load("distill", [*SHORT, *overrides]))
    return folder


def _pareto(out: Path, *overrides: str) -> dict[str, Any]:
    common = ["calls=3", "samples=300", "episodes=2", "workers=1", f"out={out}"]
    pareto.main(_cli.load("pareto", [*common, *overrides]))
    return json.loads((out / "summary.json").read_text())


@pytest.mark.slow
def test_policies_are_compared_on_the_same_seeds(folder: Path, tmp_path: Path) -> None:
    common = [f"policy={folder / 'robot'}", f"students=[{folder / 'robot_one'}]", "solver.steps=[1,3]"]
    summary = _pareto(tmp_path, *common, "temperature=0")
    evaluated = {
        name: json.loads((tmp_path / "rollouts" / name / "summary.json").read_text()) for name in ("2x1", "robot_one")
    }
    assert {name: found["run"]["temperature"] for name, found in evaluated.items()} == {"2x1": 0, "robot_one": 1}
    rows = {row["name"]: row for row in summary["rows"]}
    assert {name: row["nfe"] for name, row in rows.items()} == {"2x1": 2, "2x3": 6, "robot_one": 1}
    assert summary["reference"] == "2x3"
    assert rows["2x3"]["difference"] is None
    for row in (rows["2x1"], rows["robot_one"]):
        assert row["difference"]["difference"] == pytest.approx(row["success"] - rows["2x3"]["success"])
        assert row["difference"]["episodes"] == 2
    rates = rows["robot_one"]["highest_rate_hz"]
    assert rates["one_chunk_ahead"] == pytest.approx(8 * rates["waiting"])
    assert any(row["best"] for row in rows.values())
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")

    written = {path: path.stat().st_mtime for path in (tmp_path / "rollouts").rglob("episodes.jsonl")}
    assert len(written) == 3
    again = _pareto(tmp_path, *common, "temperature=0", "reference=2x1")
    assert {path: path.stat().st_mtime for path in written} == written, "finished rollouts were run again"
    assert {row["name"]: row["difference"] for row in again["rows"]}["2x1"] is None


def test_densities_are_compared_by_their_distance_to_the_data(folder: Path, tmp_path: Path) -> None:
    common = [f"policy={folder / 'plane'}", f"students=[{folder / 'plane_one'}]", "solver.method=[euler,heun]"]
    rows = {row["name"]: row for row in _pareto(tmp_path, *common, "solver.steps=[1]")["rows"]}
    assert {name: row["nfe"] for name, row in rows.items()} == {"2x1": 2, "2x1-heun": 4, "plane_one": 1}
    assert rows["2x1"]["nll"] > rows["2x1"]["floor"]
    assert rows["plane_one"]["nll"] is None
    for row in rows.values():
        assert row["energy_distance"] > 3 * abs(row["energy_distance_floor"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reference=2x4"], "there is no reference=2x4: did you mean '2x1'"),
        (["students=[{folder}/plane_one]"], "plane_one holds a FlowModel, but the teacher is another kind"),
        (["students=[{folder}/robot_one,{folder}/robot_one]"], "each needs a name of its own"),
        (["solver.method=[ruler]"], "'euler'"),
        (["policy={folder}/plane", "temperature=0"], "temperature is for policies"),
    ],
)
def test_bad_settings_are_explained(folder: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    given = [override.format(folder=folder) for override in overrides]
    with pytest.raises(ConfigError, match=message):
        _pareto(tmp_path / "out", f"policy={folder / 'robot'}", "solver.steps=[1]", *given)
    assert not (tmp_path / "out").exists()


def test_sides_take_turns_and_percentiles_are_of_single_calls() -> None:
    order: list[str] = []
    found = latencies([lambda: order.append("a"), lambda: order.append("b")], calls=4)
    assert order == ["a"] * 3 + ["b"] * 3 + ["a", "b"] * 4
    assert all(0 < side.p50 <= side.p95 <= side.p99 for side in found)


def test_a_call_may_take_as_many_periods_as_actions_are_left() -> None:
    latency = Latency(p50=10, p95=20, p99=50, calls=100)
    assert latency.highest_rate_hz() == pytest.approx(20)
    assert latency.highest_rate_hz(8) == pytest.approx(160)
