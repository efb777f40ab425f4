"""Reproducing a table: the plan of a cell, the time budget, and the rendered page."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lfm_cli import command_line, reproduce, stages
from lfm_cli.paper import fig2, table4
from lfm_policy.errors import ConfigError
from lfm_policy.files import read_json, write_json


def settings(*overrides: str) -> Any:
    return command_line.load("reproduce", list(overrides))


def test_methods_of_a_task_share_its_data() -> None:
    chosen = settings("size=small")
    ours, theirs = (list(table4.TABLE.stages(chosen, "lift", method)) for method in ("lfm", "fm"))
    assert [stage.name for stage in ours] == ["collect", "prepare", "train", "evaluate"]
    assert ours[:2] == theirs[:2]
    differing = {key for key in ours[2].overrides if ours[2].overrides[key] != theirs[2].overrides[key]}
    assert differing == {"method", "out"}


def test_a_given_file_replaces_the_expert() -> None:
    chosen = settings("source=human.hdf5")
    plan = list(table4.TABLE.stages(chosen, "can", "lfm"))
    assert [stage.name for stage in plan] == ["prepare", "train", "evaluate"]
    assert plan[0].overrides["source"] == Path("human.hdf5")


@pytest.mark.parametrize("background", [False, True])
def test_the_deadline_interrupts_a_stage(background: bool) -> None:
    if background:  # as shells start what they do not wait for
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    raise SystemExit(130)"
    started = time.monotonic()
    end = stages.wait([sys.executable, "-c", child], time.monotonic() + 2)
    assert end == stages.End(130, False, None)
    assert time.monotonic() - started < 30


def test_a_stage_out_of_time_is_not_done(tmp_path: Path) -> None:
    stage = stages.Stage("collect", {"task": "lift", "out": tmp_path / "demos"})
    with pytest.raises(stages.OutOfTime, match="continues from it"):
        stages.run(stage, tmp_path / "stages.json", time.monotonic())
    assert read_json(tmp_path / "stages.json")["collect"]["done"] is False


def cell(method: str, failed: list[int]) -> dict[str, Any]:
    training = {"parameters": 18e6, "updates": 600, "seconds": 1800.0, "device": "cpu"}
    rate = 1 - len(failed) / 100
    numbers = {"success": rate, "interval": [0.9, 1.0], "episodes": 100, "failed_seeds": failed, "nfe": 4.0}
    names = {"task": "lift", "method": method, "size": "small", "seed": 0, "first_evaluation_seed": 100000}
    return {**names, **numbers, "training": training}


def test_the_page_shows_cells_beside_the_paper_and_paired(tmp_path: Path) -> None:
    write_json(tmp_path / "table4" / "a.json", cell("lfm", [100003]))
    write_json(tmp_path / "table4" / "b.json", cell("fm", [100003, 100004, 100009]))
    write_json(tmp_path / "table4" / "c.json", cell("lfm", []) | {"temperature": 0.0})
    cells = reproduce.render(tmp_path)[4]
    assert [table4.TABLE.number(cell) for cell in cells] == [
        "success 0.99 [0.90, 1.00] of 100, NFE 4",
        "success 0.97 [0.90, 1.00] of 100, NFE 4",
        "success 1.00 [0.90, 1.00] of 100, NFE 4, temperature 0",
    ]
    page = (tmp_path / "README.md").read_text()
    assert "| LFM, published | 66 M | GPU | 1.00 | 0.99 | 0.93 | 0.88 | 0.53 |" in page
    assert (
        "| LFM, simulation-free | small, 18.0 M | cpu, seed 0 | 0.99 [0.90, 1.00] of 100, NFE 4, 600 updates, 30 min"
        in page
    )
    assert "lift, small, LFM, simulation-free, temperature 1: +0.02 [" in page
    assert "| LFM, simulation-free, temperature 0 | small, 18.0 M | cpu, seed 0 | 1.00 [0.90, 1.00]" in page
    assert "temperature 0:" not in page  # no baseline at that temperature


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks=[lif]", "'lift'"),
        ("methods=[lfn]", "'lfm'"),
        ("table=fig2 tasks=[tre]", "'tree'"),
        ("table=fig2 temperature=0", "leave it 1"),
    ],
)
def test_misspelt_names_and_settings_of_other_tables_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        reproduce.main(settings(*override.split(), f"out={tmp_path}"))
    assert not any(tmp_path.iterdir())


@pytest.mark.sim
@pytest.mark.slow
def test_a_small_table_is_reproduced_and_not_redone(tmp_path: Path) -> None:
    overrides = ["methods=[lfm]", "size=tiny", "updates=2", "demonstrations=3", "evaluations=1", "threads=1"]
    chosen = settings(*overrides, f"out={tmp_path / 'runs'}", f"results={tmp_path / 'results'}")
    reproduce.main(chosen)
    file = tmp_path / "results" / "table4" / "tiny_lift_lfm_seed0.json"
    first = read_json(file)
    assert (first["episodes"], first["training"]["updates"], first["nfe"]) == (1, 2, 8)
    reproduce.main(chosen)
    assert read_json(file) == first


@pytest.mark.slow
def test_the_figure_is_reproduced_continued_and_not_redone(tmp_path: Path) -> None:
    overrides = ["table=fig2", "tasks=[two_moons]", "methods=[lfm,fm]", "size=tiny", "updates=2", "threads=1"]
    folders = [f"out={tmp_path / 'runs'}", f"results={tmp_path / 'results'}"]
    results = tmp_path / "results" / "fig2"
    reproduce.main(settings(*overrides, *folders, "budget_minutes=1.0e-4"))
    assert not list(results.glob("*.json"))  # out of time in the first training
    reproduce.main(settings(*overrides, *folders))
    cells = {name: read_json(results / f"tiny_two_moons_{name}_seed0.json") for name in ("lfm", "fm")}
    assert cells["lfm"]["training"]["updates"] == cells["fm"]["training"]["updates"] == 2
    assert cells["lfm"]["floor"] < cells["lfm"]["nll"]
    report = results / "tiny_two_moons_seed0"
    assert (report / "density.png").stat().st_size > 0
    assert [row["run"] for row in read_json(report / "summary.json")["runs"]] == ["tiny_lfm_seed0", "tiny_fm_seed0"]
    before = (report / "summary.json").stat().st_mtime_ns
    reproduce.main(settings(*overrides, *folders))
    assert (report / "summary.json").stat().st_mtime_ns == before
    page = (tmp_path / "results" / "README.md").read_text()
    assert "| tree, rose | LFM, published | 1.2 M | 50000 updates of 10000 | 2.24, 2.60 |" in page
    assert f"{cells['fm']['nll']:.3f} ± {cells['fm']['nll_standard_error']:.3f} | {cells['fm']['floor']:.3f}" in page


def test_methods_of_the_figure_differ_in_their_method_alone() -> None:
    chosen, table = settings("table=fig2", "size=small"), fig2.TABLE
    trainings = {name: next(iter(table.stages(chosen, "tree_grid", name))).overrides for name in table.methods}
    fm = trainings["fm"]
    assert fm["data.mask"] == Path("data/masks/tree.png")
    for values in trainings.values():
        differing = {key for key in values.keys() | fm.keys() if values.get(key) != fm.get(key)}
        assert differing <= {"method", "flow.mode", "out"}
