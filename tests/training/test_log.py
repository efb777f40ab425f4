import json
import sys
from pathlib import Path

import pytest

from lfm_policy.errors import ConfigError
from lfm_policy.training.log import LogSettings, RunLog, read_metrics, wandb_mode

DISABLED = LogSettings(mode="disabled")
OFFLINE = LogSettings(mode="offline")


def run(folder: Path, steps: range, settings: LogSettings = DISABLED) -> None:
    with RunLog(folder, {"seed": 0}, settings, start=steps.start) as log:
        for step in steps:
            log.log(step + 1, {"loss": 1 / (step + 1)})


def test_each_line_is_there_at_once(tmp_path: Path) -> None:
    with RunLog(tmp_path, {}, DISABLED) as log:
        log.log(1, {"loss": 0.5, "blocks": 4})
        assert read_metrics(log.path) == [{"step": 1, "loss": 0.5, "blocks": 4}]


def test_a_resumed_run_has_every_step_once(tmp_path: Path) -> None:
    run(tmp_path, range(0, 7))  # killed after step 7, its last checkpoint is of step 4
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 7
    run(tmp_path, range(4, 10))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 11))


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"{", b"null", b'{"step": "2"}', b"\0" * 100, b"[" * 10_000])
def test_a_damaged_line_stops_no_training(tmp_path: Path, damage: bytes) -> None:
    run(tmp_path, range(0, 3))
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], damage, *lines[2:]]))
    assert [row["step"] for row in read_metrics(path)] == [1, 3]
    run(tmp_path, range(3, 4))
    assert [row["step"] for row in read_metrics(path)] == [1, 3, 4]


def test_a_damaged_note_of_the_wandb_run_stops_no_training(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    (tmp_path / "wandb.json").write_bytes(b"\xff")
    run(tmp_path, range(1, 2), OFFLINE)
    assert json.loads((tmp_path / "wandb.json").read_text())["id"]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("WANDB_MODE", "disabled", "disabled"),
        ("WANDB_MODE", "dryrun", "offline"),
        ("WANDB_MODE", "online", "online"),
        ("WANDB_MODE", "", "offline"),
        ("WANDB_DISABLED", "true", "disabled"),
        ("WANDB_DISABLED", "false", "offline"),
    ],
)
def test_wandbs_variables_decide_unless_the_settings_do(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_DISABLED", raising=False)
    monkeypatch.setenv(name, value)
    assert wandb_mode(LogSettings()) == expected
    assert wandb_mode(OFFLINE) == "offline"
    monkeypatch.setenv("WANDB_MODE", "ofline")
    monkeypatch.delenv("WANDB_DISABLED", raising=False)
    with pytest.raises(ConfigError, match="WANDB_MODE is 'ofline': did you mean 'offline'"):
        wandb_mode(LogSettings())


def test_a_new_run_starts_a_new_file(tmp_path: Path) -> None:
    run(tmp_path, range(0, 3))
    run(tmp_path, range(0, 1))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1]


def test_what_json_cannot_say_becomes_null(tmp_path: Path) -> None:
    with RunLog(tmp_path, {}, DISABLED) as log:
        log.log(1, {"loss": float("nan"), "norm": float("inf")})
        assert json.loads(log.path.read_text()) == {"step": 1, "loss": None, "norm": None}


def test_a_resumed_run_continues_the_same_wandb_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb")
    run(tmp_path, range(0, 2), OFFLINE)
    run(tmp_path, range(2, 4), OFFLINE)
    run_id = json.loads((tmp_path / "wandb.json").read_text())["id"]
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert files
    assert {file.name for file in files} == {f"run-{run_id}.wandb"}
    assert all(file.stat().st_size > 0 for file in files)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_a_new_run_is_another_wandb_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    ids = []
    for _ in range(2):
        run(tmp_path, range(0, 1), OFFLINE)
        ids.append(json.loads((tmp_path / "wandb.json").read_text())["id"])
    assert ids[0] != ids[1]


def test_without_wandb_the_metrics_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # import wandb now raises ModuleNotFoundError
    run(tmp_path, range(0, 2), OFFLINE)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2
    assert capsys.readouterr().err.count("wandb is not installed") == 1
    run(tmp_path, range(0, 2), DISABLED)
    assert capsys.readouterr().err == ""
    with pytest.raises(ConfigError, match="pip install wandb"):
        run(tmp_path, range(0, 2), LogSettings(mode="online"))


def test_online_without_a_login_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ConfigError, match="wandb login"):
        run(tmp_path, range(0, 2), LogSettings(mode="online"))
    assert not (tmp_path / "metrics.jsonl").exists()
