"""Closed loop, delays and monitor from the command line, with policies that need next to no training."""

import json
from pathlib import Path

import pytest

from lfm_cli import command_line as _cli
from lfm_cli import control, evaluate, monitor, train
from lfm_policy.errors import ConfigError
from tests.envs.going import going
from tests.server.served import served
from tests.training.runs import TINY, point_mass_store, settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`points.zarr`, and `robot` with two blocks."""
    folder = tmp_path_factory.mktemp("control")
    store = point_mass_store(folder / "points.zarr")
    train.main(settings(*TINY, "flow.blocks=2", "updates=2", f"data.path={store}", f"out={folder / 'robot'}"))
    return folder


def _run(script, name: str, out: Path, *overrides: str) -> dict:
    script.main(_cli.load(name, [*overrides, f"out={out}"]))
    return json.loads((out / "summary.json").read_text())


FREE = ["limits.speed_m_s=null", "limits.acceleration_m_s2=null", "limits.jerk_m_s3=null"]


def test_bands_of_the_monitor_watch_the_loop(folder: Path, tmp_path: Path) -> None:
    going().save_pretrained(tmp_path / "going")
    common = [f"policy={tmp_path / 'going'}", "trust_code=true", "episodes=3"]
    trial = [f"data.path={folder / 'points.zarr'}", "draws=2", "step=4", "updates=50"]
    trial += ["calibration=20", "false_alarms=0.3", "distance_m=0.5"]
    found = _run(monitor, "monitor", tmp_path / "monitor", *common, *trial)
    assert found["calibration"] == {"episodes": 20, "successes": 20}
    assert set(found["scores"]) == {"density", "residual", "variance", "logpzo"}
    slow = ["rate_hz=50", "tolerance_ms=1000", "limits.stale_s=60"]  # enough for a busy machine to score every episode
    watch = [f"monitor={tmp_path / 'monitor' / 'bands.json'}", *slow]
    summary = _run(control, "control", tmp_path / "control", *common, *FREE, *watch, "seam=ensemble")
    assert summary["episodes"] == 3
    assert summary["simulator"]["steps"] > 0
    assert any("score_max" in row for row in summary["each"]), "an episode of one chunk has nothing to be scored"
    events = (tmp_path / "control" / "events.jsonl").read_text().splitlines()
    assert {json.loads(line)["event"] for line in events} <= {"late", "refused", "unusual"}
    assert sum(json.loads(line)["event"] == "unusual" for line in events) == summary["alarms"]
    # who sees goal and place exchanged is stopped by what it promised, at the first episode that is
    wrong = ["disturbance=order", "disturbance_step=4", "monitor_score=density", "alarm_stops=true"]
    stopped = _run(control, "control", tmp_path / "stopped", *common, *FREE, *watch, *wrong)
    assert stopped["each"][-1]["stopped"].startswith("unusual: score")
    assert not stopped["each"][-1]["success"]


def test_a_server_is_controlled_as_a_local_policy_is(tmp_path: Path) -> None:
    with served() as server:
        uri = f"policy=ws://127.0.0.1:{server.port}"
        summary = _run(
            control, "control", tmp_path, uri, "episodes=2", "seam=ensemble", "rate_hz=100", "tolerance_ms=1000", *FREE
        )
    assert summary["episodes"] == 2
    assert summary["chunks"] > 2
    assert summary["lost"] == 0


def test_evaluations_take_the_link_and_the_best_of_several(folder: Path, tmp_path: Path) -> None:
    common = [f"policy={folder / 'robot'}", "episodes=2", "workers=1", "videos=0"]
    plain = _run(evaluate, "evaluate", tmp_path / "plain", *common)
    assert plain["seam_jerk"] > 0
    warm = _run(evaluate, "evaluate", tmp_path / "warm", *common, "seam=warm", "inference=async", "latency_steps=2")
    assert plain["nfe"] > warm["nfe"] > plain["nfe"] / 2, "all chunks but the first run one of two blocks"
    best = _run(evaluate, "evaluate", tmp_path / "best", *common, "best_of=2")
    assert best["nfe"] == 4 * plain["nfe"]
    assert best["run"]["best_of"] == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "missing: policy=VALUE"),
        (["policy=a", "limits.speed=3"], "did you mean 'limits.speed_m_s'"),
        (["policy=a", "limits.low_m=[0,0,0]"], "both corners"),
    ],
)
def test_bad_settings(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _cli.load("control", overrides)


def test_what_cannot_be_combined(folder: Path, tmp_path: Path) -> None:
    common = [f"policy={folder / 'robot'}", "episodes=1"]
    with pytest.raises(ConfigError, match="cannot begin at the running chunk"):
        _run(evaluate, "evaluate", tmp_path, *common, "best_of=2", "seam=warm")
    with pytest.raises(ConfigError, match="of a simulated robot"):
        _run(control, "control", tmp_path, *common, "disturbance=order", "robot=some.module:Robot")
    with pytest.raises(ConfigError, match="no alarm level for 'logpzo'"):
        _run(control, "control", tmp_path, *common, f"monitor={tmp_path / 'nothing.json'}")
