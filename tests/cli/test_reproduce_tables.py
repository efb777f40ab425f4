"""Tables 1 to 3: which scripts a cell is made of, and one cell of each from end to end."""

from pathlib import Path
from typing import Any

import pytest

from lfm_cli import command_line as _cli
from lfm_cli import reproduce
from lfm_cli.paper import images as _images
from lfm_cli.paper import table1 as _table1
from lfm_policy.files import read_json
from tests.data.pictures import write_arrays
from tests.data.tables import write_table


def settings(*overrides: str) -> Any:
    return _cli.load("reproduce", list(overrides))


def test_methods_of_table_1_differ_in_their_method_alone() -> None:
    chosen, table = settings("table=1", "size=small", "files=there"), _table1.TABLE
    for task in table.tasks:
        trainings = [next(iter(table.stages(chosen, task, name))).overrides for name in table.methods]
        assert trainings[0]["data.path"] == Path("there") / _table1.FILES[task]
        for values in trainings[1:]:
            keys = values.keys() | trainings[0].keys()
            assert {key for key in keys if values.get(key) != trainings[0].get(key)} <= {"method", "flow.mode", "out"}


def test_students_belong_to_table_3_and_to_both_methods() -> None:
    chosen = settings("table=3", "size=small")
    names = {
        (number, method): [stage.name for stage in table.stages(chosen, "flowers128", method)]
        for number, table in _images.TABLES.items()
        for method in ("lfm", "interflow")
    }
    assert names[3, "lfm"] == names[3, "interflow"] == ["train", "distill_4", "distill_2", "report_images"]
    assert names[2, "lfm"] == names[2, "interflow"] == ["train", "report_images"]


def test_distances_on_several_seeds_are_compared_with_an_interval() -> None:
    def cell(method: str, seed: int, distance: float) -> dict[str, Any]:
        training = {"parameters": 3e5, "seconds": 60.0, "device": "cpu", "updates": 5, "batch": 4}
        measured = [{"classifier_frechet": distance, "classifier_frechet_of_test": 0.5, "nfe_sample": 20}]
        names = {"task": "cifar10", "size": "tiny", "method": method, "seed": seed}
        return names | {"training": training, "measured": measured}

    distances = {"lfm": (1.0,) * 3, "lfm_linear": (2.0, 2.0 / 3.0, 6.0), "fm": (2.0, 2.0, 2.0), "interflow": (3.0,)}
    cells = [cell(name, seed, value) for name, values in distances.items() for seed, value in enumerate(values)]
    page = "\n".join(_images.TABLES[2].section(cells))
    # ratios 1, 1/3, 3: the mean of their logarithms is 0, its 95 % interval 4.303 log(3) / sqrt(3) to both sides
    assert "over that of global FM, on 3 seeds: \n1.00 [0.07, 15.32]" in page
    assert "over that of InterFlow" not in page  # one seed is no spread
    assert page.count("over that of") == 1  # the trigonometric chain has another path than FM


@pytest.mark.slow
def test_table_1_is_reproduced_continued_and_not_redone(tmp_path: Path) -> None:
    path = write_table(tmp_path / "tabular", "patches")
    path.rename(tmp_path / _table1.FILES["patches"])
    overrides = ["table=1", "tasks=[patches]", "methods=[lfm]", "size=tiny", "updates=2", f"files={tmp_path}"]
    folders = [f"out={tmp_path / 'runs'}", f"results={tmp_path / 'results'}"]
    file = tmp_path / "results" / "table1" / "tiny_patches_lfm_seed0.json"
    reproduce.main(settings(*overrides, *folders, "budget_minutes=1.0e-4"))
    assert not file.exists()  # out of time in the training
    reproduce.main(settings(*overrides, *folders))
    cell, written = read_json(file), file.stat().st_mtime_ns
    assert (cell["training"]["updates"], cell["as_published"]) == (2, False)
    page = (tmp_path / "results" / "README.md").read_text()
    assert "| bsds300 | LFM, published | | | -157.80 | | |" in page
    assert f"{cell['nll']:.2f} ± {cell['nll_standard_error']:.2f} | {cell['valid_nll']:.2f}" in page
    train = tmp_path / "runs" / "patches" / "tiny_lfm_seed0" / "summary.json"
    before = train.stat().st_mtime_ns
    reproduce.main(settings(*overrides, *folders))
    assert (train.stat().st_mtime_ns, file.stat().st_mtime_ns > written) == (before, True)


@pytest.mark.slow
def test_tables_of_pictures_are_reproduced(tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="networks for images are diffusers'")
    (tmp_path / "images").mkdir()
    write_arrays(tmp_path / "images" / "cifar10_subset.npz", count=20, side=32)
    overrides = ["table=3", "tasks=[cifar10_subset]", "methods=[lfm]", "size=tiny", "updates=2", f"files={tmp_path}"]
    reproduce.main(settings(*overrides, f"out={tmp_path / 'runs'}", f"results={tmp_path / 'results'}"))
    cell = read_json(tmp_path / "results" / "table3" / "tiny_cifar10_subset_lfm_seed0.json")
    assert [row["nfe_sample"] for row in cell["measured"]] == [20, 4, 2]
    page = (tmp_path / "results" / "README.md").read_text()
    assert f"classifier {cell['measured'][1]['classifier_frechet']:.2f} /" in page
