"""HTML reports of reproductions, distillations and Pareto fronts: all that their summaries hold is on the page."""

import json
from pathlib import Path

import pytest

from lfm_cli.origin import origin
from lfm_cli.paper.page import write_reproduction
from lfm_cli.reproduce import TABLES
from lfm_policy.files import read_json
from lfm_policy.training.distillation.page import write_distillation, write_pareto

pytest.importorskip("jinja2", reason="pages are written by jinja2 (extra media)")

ROOT = Path(__file__).parents[2]
ORIGIN = {"command": "lfm x out='a b'", "commit": "abc123"}


def test_a_reproduction_shows_every_cell_seed_and_command(tmp_path: Path) -> None:
    cells = [
        (t, [read_json(f) for f in sorted((ROOT / "docs/results" / t.folder).glob("*.json"))]) for t in TABLES.values()
    ]
    assert write_reproduction(cells, tmp_path, ORIGIN) is None
    text = (tmp_path / "report.html").read_text()
    shown = [cell for _, found in cells for cell in found]
    assert len(shown) > 10
    for cell in shown:
        assert cell["commit"] in text
    assert text.count('<div class="point"') == sum("success" in cell for cell in shown)
    assert "100099" in text


def test_a_distillation_shows_success_losses_and_digests(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts are drawn by matplotlib (extra media)")
    lines = [{"step": step, "loss": 1.0 / step, "loss/block0": 1.0 / step} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rate = {"success": 0.9, "interval": [0.7, 0.97], "episodes": 20, "failed_seeds": [3, 4], "nfe": 1}
    summary = {
        "name": "student",
        "target": "trajectory",
        "seed": 0,
        "digest": "d1g35t",
        "teacher": {"digest": "t34ch3r"},
        "parameters": 12,
        "fidelity": {"error": 0.1, "error_by_dimension": [0.1], "error_by_step": [0.1, 0.2]},
        "success": rate,
        "teacher_success": rate,
        "difference": {"difference": 0.0, "interval": [-0.1, 0.1]},
    }
    assert write_distillation(summary, tmp_path, ORIGIN) is None
    text = (tmp_path / "report.html").read_text()
    for words in (
        "18 of 20",
        "d1g35t",
        "t34ch3r",
        "abc123",
        "lfm x out=",
        "Loss of each block",
        "Error along the chunk",
    ):
        assert words in text, words
    assert text.count("data:image/png") == 2


@pytest.mark.parametrize("name", ["lift", "can"])
def test_a_pareto_front_shows_every_model(name: str, tmp_path: Path) -> None:
    rows = read_json(ROOT / f"docs/results/distillation/{name}.json")["rows"]
    assert write_pareto({"rows": rows, "reference": rows[0]["name"], "picture": None}, tmp_path, ORIGIN) is None
    text = (tmp_path / "report.html").read_text()
    assert all(row["digest"] in text for row in rows)


def test_the_command_is_told_as_one_types_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for first, words in (
        ("/x/bin/lfm", "evaluate lift"),
        ("scripts/evaluate.py", "lift"),
        ("lfm_cli/__main__.py", "evaluate lift"),
    ):
        monkeypatch.setattr("sys.argv", [first, *words.split(), "out=a b"])
        assert origin()["command"] == "lfm evaluate lift 'out=a b'"
