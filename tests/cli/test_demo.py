"""The demonstration: which stages run again, and the whole way in small."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lfm_cli import command_line, demo
from lfm_policy.errors import LFMError
from lfm_policy.files import read_json, write_json


def plan(out: Path, *overrides: str) -> dict[str, Any]:
    settings = command_line.load("demo", [f"out={out}", *overrides])
    return {stage.name: stage for stage in demo.stages(settings)}


def test_a_changed_setting_changes_what_depends_on_it(tmp_path: Path) -> None:
    before, resized, reseeded = (plan(tmp_path, *change) for change in ((), ("size=tiny",), ("seed=1",)))
    assert [name for name in before if before[name].history != resized[name].history] == ["train", "evaluate"]
    assert not [name for name in before if before[name].history == reseeded[name].history]


def test_global_flow_matching_differs_in_the_method_only(tmp_path: Path) -> None:
    stages = plan(tmp_path, "compare=fm")
    assert list(stages) == ["collect", "prepare", "train", "evaluate", "train_fm", "evaluate_fm"]
    ours, theirs = (dict(stages[name].overrides) for name in ("train", "train_fm"))
    assert {key for key in ours if ours[key] != theirs[key]} == {"method", "out"}


def test_a_policy_that_sees_is_compared_with_its_blind_twin(tmp_path: Path) -> None:
    stages = plan(tmp_path, "observations=images", "compare=fm", "updates=2")
    assert list(stages) == [
        "collect",
        "prepare",
        *("train", "evaluate", "evaluate_typical"),
        *("train_fm", "evaluate_fm", "evaluate_typical_fm"),
        *("train_blind", "evaluate_blind", "evaluate_typical_blind"),
    ]
    assert "cameras=[agentview,robot0_eye_in_hand]" in stages["collect"].command
    assert "observations=images" in stages["prepare"].command
    ours, blind, fm = (dict(stages[name].overrides) for name in ("train", "train_blind", "train_fm"))
    assert {key for key in blind if blind[key] != ours.get(key)} == {"data.blind", "out"}
    assert fm["vision.trained"] == ours["out"]
    assert stages["train"].history != plan(tmp_path)["train"].history


def test_a_finished_stage_is_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = demo.Stage("nowhere", {"out": tmp_path / "made"})  # no such script: running it would fail
    record = {"history": stage.history, "seconds": 3.0, "done": True}
    write_json(tmp_path / "stages.json", {"nowhere": record})
    demo.run(stage, tmp_path / "stages.json")
    assert "finished before, in 3 s" in capsys.readouterr().out


def test_a_stage_with_other_settings_is_made_anew(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    stage = demo.Stage("nowhere", {"out": made})
    write_json(tmp_path / "stages.json", {"nowhere": {"history": [], "seconds": 3.0, "done": True}})
    with pytest.raises(LFMError, match=r"stage 'nowhere' ended with exit code 2"):
        demo.run(stage, tmp_path / "stages.json")
    assert not made.exists()
    assert read_json(tmp_path / "stages.json")["nowhere"]["done"] is False


@pytest.mark.sim
@pytest.mark.slow
def test_the_whole_way_from_images(tmp_path: Path) -> None:
    overrides = ["observations=images", "demonstrations=3", "evaluations=1", "updates=2", "size=tiny"]
    subprocess.run([sys.executable, "-m", "lfm_cli", "demo", *overrides, f"out={tmp_path}"], check=True)
    summary = read_json(tmp_path / "summary.json")
    assert set(summary) == {"task", "lfm", "blind", "seconds"}
    assert set(summary["blind"]["temperature_0"]) == {"success", "interval"}


@pytest.mark.sim
@pytest.mark.slow
def test_the_whole_way(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lfm_cli", "demo", "episodes=3", "evaluations=1", "updates=2", f"out={tmp_path}"]
    subprocess.run(command, check=True)
    summary = read_json(tmp_path / "summary.json")
    assert set(summary) == {"task", "lfm", "seconds"}
    assert set(summary["lfm"]) == {"success", "episodes", "interval", "nfe", "ms_per_chunk"}
    assert summary["lfm"]["nfe"] == 8
    assert set(summary["seconds"]) == {"collect", "prepare", "train", "evaluate"}
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert again.stdout.count("finished before") == 4
    assert read_json(tmp_path / "summary.json") == summary
