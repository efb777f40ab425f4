"""The doctor as it is run: exit codes, summary, and replays that tell what is said from what is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

import lfm_envs
from lfm_cli import command_line as cli
from lfm_cli import doctor as script
from tests.demonstrations import record

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def doctor():
    """Run lfm doctor in this process: (source, out, overrides) -> exit code and summary."""

    def run(source, out, **overrides):
        values = {"source": source, "out": out, **overrides}
        code = 0
        try:
            script.main(cli.load("doctor", [f"{key}={value}" for key, value in values.items()]))
        except SystemExit as stop:
            code = stop.code
        return code, json.loads((out / "summary.json").read_text())

    return run


@pytest.fixture(scope="module")
def lift(tmp_path_factory):
    env = lfm_envs.make("robosuite/lift")
    path = record(env, tmp_path_factory.mktemp("lift") / "demos.hdf5", [7, 8])
    env.close()
    return path


def test_a_healthy_file(doctor, lift, tmp_path, capsys):
    code, summary = doctor(lift, tmp_path, replay="all")
    assert (code, summary["verdict"], summary["findings"]) == (0, "healthy", [])
    for form in ("delta", "absolute"):
        row = summary["replay"]["as_found"][form]
        assert (row["episodes"], row["success"]) == (2, 1)
        assert row["position_max_mm"] < 2
        assert row["rotation_max_deg"] < 0.5
    each = summary["replay"]["as_found"]["absolute"]["each"]["demo_0"]
    with h5py.File(lift) as file:
        assert len(each["position_mm"]) == len(file["data/demo_0/actions"]) - 1
    assert summary["replay"]["as_found"]["delta"]["position_max_mm"] == 0  # bit for bit
    printed = capsys.readouterr().out
    assert "robosuite 1.5.2" in printed
    assert "verdict: healthy" in printed


def test_replays_as_said_fail_where_replays_as_found_succeed(doctor, lift, tmp_path, capsys):
    """Poses under control_delta=False: robosuite 1.5 would take them for deltas."""
    path = tmp_path / "d.hdf5"
    path.write_bytes(lift.read_bytes())
    with h5py.File(path, "a") as file:
        data = file["data"]
        table = json.loads(data.attrs["env_args"])
        part = table["env_kwargs"]["controller_configs"]["body_parts"]["right"]
        del part["input_type"], part["input_ref_frame"]
        part["control_delta"] = False
        data.attrs["env_args"] = json.dumps(table)
        del data.attrs["contract"]
        for demo in data.values():
            del demo["actions"], demo["actions_executed"]
            demo.move("actions_abs", "actions")
    code, summary = doctor(path, tmp_path / "out", replay=1)
    assert code == 1
    assert {finding["trap"] for finding in summary["findings"]} >= {"control_delta", "frame"}
    assert summary["replay"]["as_found"]["absolute"]["success"] == 1
    assert summary["replay"]["as_said"]["absolute"]["success"] == 0
    assert summary["replay"]["as_said"]["absolute"]["position_mean_mm"] > 100
    assert "fix: say input_type='absolute'" in " ".join(capsys.readouterr().out.split())


def test_bad_input_is_one_line(tmp_path):
    (tmp_path / "d.hdf5").write_bytes(b"nonsense")
    command = [sys.executable, "-m", "lfm_cli", "doctor", f"source={tmp_path / 'd.hdf5'}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "not an HDF5 file" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["d.hdf5"]


@pytest.mark.slow
@pytest.mark.skipif("LFM_DATA" not in os.environ, reason="LFM_DATA does not name the folder with human demonstrations")
@pytest.mark.parametrize("name", ["lift_human_a", "lift_human_b"])
def test_human_demonstrations_are_healthy(doctor, tmp_path, name):
    source = Path(os.environ["LFM_DATA"]) / "demos" / f"{name}.hdf5"
    code, summary = doctor(source, tmp_path, replay="all")
    assert (code, summary["findings"]) == (0, [])
    assert summary["arms"][0]["found"]["actions"].startswith("deltas in the world frame")
    assert summary["replay"]["as_found"]["absolute"]["success"] == 1
    assert summary["replay"]["as_found"]["absolute"]["position_mean_mm"] < 1
    assert any("one flat table" in note for note in summary["notes"])
