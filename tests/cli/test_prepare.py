"""Preparing files that a real simulator recorded, in each of the forms that robosuite's eras left."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from lfm_cli import command_line as cli
from lfm_cli import prepare as script
from lfm_policy.data.demos.file import open_demos
from lfm_policy.data.windows.memory import Windows
from lfm_policy.data.windows.store import open_store
from lfm_policy.errors import ConfigError, ContractError, DataError
from tests.data.demos.recordings import RAW, V15, V141

EPISODES = 3

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def prepare():
    """Run lfm prepare in this process: overrides -> summary."""

    def run(out, source, **overrides):
        sources = ",".join(map(str, source if isinstance(source, list) else [source]))
        overrides = [f"source=[{sources}]", f"out={out}", *(f"{key}={value}" for key, value in overrides.items())]
        script.main(cli.load("prepare", overrides))
        return json.loads((out / "summary.json").read_text())

    return run


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """Three demonstrations of the Lift expert, as lfm collect writes them."""
    from lfm_envs.collect import Recipe, collect

    out = tmp_path_factory.mktemp("collected")
    collect(Recipe("lift", EPISODES, seed=5), out, workers=1)
    return out / "demos.hdf5"


def disguise(collected, path, era):
    """The same recording as an official file (v15, v141) or a raw collection would hold it."""
    with h5py.File(collected) as source, h5py.File(path, "w") as file:
        data = file.create_group("data")
        if era == "raw":
            data.attrs.update(env_info=RAW, repository_version="1.4.1", env="Lift")
        else:
            data.attrs["env_args"] = {"v15": V15, "v141": V141}[era]
        for name, demo in source["data"].items():
            copy = data.create_group(name)
            copy.attrs["model_file"] = demo.attrs["model_file"] if era == "v15" else "<mujoco model='from 1.4.1'/>"
            for key in ("states", "actions", *(["obs"] if era != "raw" else [])):
                source.copy(demo[key], copy, name=key)
    return path


def test_own_file(prepare, collected, tmp_path):
    summary = prepare(tmp_path / "d.zarr", collected, replay="all")
    store = open_store(tmp_path / "d.zarr")
    with h5py.File(collected) as file:
        lengths = [len(file[f"data/demo_{index}/actions"]) for index in range(EPISODES)]
        eef = file["data/demo_1/obs/robot0_eef_pos"][()]
        absolute = file["data/demo_1/actions_abs"][()]
        contract = json.loads(file["data"].attrs["contract"])
    assert np.diff(store.episode_end, prepend=0).tolist() == lengths
    assert store.contract.model_dump(mode="json") == contract
    assert np.array_equal(store.episode(1).observation[:, 10:13], eef.astype(np.float32))
    action = store.episode(1).action
    np.testing.assert_allclose(action[:, :3], absolute[:, :3], atol=1e-6)
    assert set(np.unique(action[:, 9])) == {-1.0, 1.0}
    assert summary["replay"]["successes"] == EPISODES
    assert summary["files"][0]["kind"] == "native"
    assert len(Windows.from_store(store)) == sum(lengths[index] - 7 for index in store.train)


def edited(collected, path, edit):
    """A copy of the demonstrations by another tool, with a change."""
    path.parent.mkdir(exist_ok=True)
    with h5py.File(collected) as source, h5py.File(path, "w") as file:
        source.copy("data", file)
        edit(file)
    return path


def never_close(file):
    for demo in file["data"].values():
        demo["actions_abs"][:, 6] = -1


def test_files_of_one_name_are_told_apart_in_the_proof_and_in_the_output(prepare, collected, tmp_path, monkeypatch):
    """A gripper that never closes fails, and counts."""
    sources = [
        edited(collected, tmp_path / name / "demos.hdf5", edit)
        for name, edit in (("s2", never_close), ("s1", lambda file: None))
    ]
    summary = prepare(tmp_path / "d.zarr", sources, replay="all")
    proof = summary["replay"]
    assert (proof["episodes"], proof["successes"]) == (2 * EPISODES, EPISODES)
    assert [name for name, row in proof["each"].items() if row["success"]] == [
        f"s1/demos.hdf5/demo_{index}" for index in range(EPISODES)
    ]
    monkeypatch.chdir(tmp_path)
    script.main(cli.load("prepare", [f"source=[{','.join(map(str, sources))}]"]))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["lift_s2-demos+s1-demos.zarr"]
    with pytest.raises(DataError, match="names one file more than once"):
        prepare(tmp_path / "twice.zarr", [sources[0], tmp_path / "s1" / ".." / "s2" / "demos.hdf5"])


def masked(**masks):
    def edit(file):
        for name, indices in masks.items():
            file[f"mask/{name}"] = np.array([f"demo_{index}" for index in indices], "S10")

    return edit


def shortened(file):
    """The last demonstration ends after its first step."""
    demo = file["data/demo_2"]
    demo.attrs["num_samples"] = 1
    for key in ("actions", "actions_abs", "states", *(f"obs/{name}" for name in demo["obs"])):
        values = demo[key][:1]
        del demo[key]
        demo[key] = values


def test_a_filter_key_chooses(prepare, collected, tmp_path, capsys):
    source = edited(collected, tmp_path / "d.hdf5", masked(few_train=[2], few_valid=[0]))
    prepare(tmp_path / "all.zarr", source)
    assert "d: it also has masks few, which were not used" in " ".join(capsys.readouterr().out.split())
    summary = prepare(tmp_path / "few.zarr", source, filter="few")
    store = open_store(tmp_path / "few.zarr")
    assert summary["files"][0]["episodes"] == len(store) == 2
    assert (store.train.tolist(), store.valid.tolist()) == ([1], [0])
    with pytest.raises(ConfigError, match="no filter key 'fwe'; did you mean 'few'"):
        prepare(tmp_path / "fwe.zarr", source, filter="fwe")


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([masked(train=[0, 1], valid=[1])], r"\['demo_1'\] \(1 in all\) are for training and for validation"),
        ([masked(train=[], valid=[1])], "no demonstration is left to train on"),
        ([shortened, masked(train=[0, 1], valid=[2])], "longest demonstration of the split 'valid' has 1"),
    ],
)
def test_what_train_would_refuse_is_not_prepared(prepare, collected, tmp_path, edits, message):
    source = edited(collected, tmp_path / "d.hdf5", lambda file: [edit(file) for edit in edits])
    with pytest.raises(DataError, match=message):
        prepare(tmp_path / "d.zarr", source)
    assert not (tmp_path / "d.zarr").exists()


@pytest.mark.parametrize("era", ["v15", "v141", "raw"])
def test_conversion_through_the_simulator_equals_what_was_recorded(prepare, collected, tmp_path, era):
    prepare(tmp_path / "own.zarr", collected)
    path = disguise(collected, tmp_path / f"{era}.hdf5", era)
    summary = prepare(tmp_path / "converted.zarr", path, replay=1)
    own, converted = open_store(tmp_path / "own.zarr"), open_store(tmp_path / "converted.zarr")
    assert own.contract == converted.contract
    for index in range(EPISODES):
        np.testing.assert_allclose(converted.episode(index).action, own.episode(index).action, atol=1e-6)
        # after a step robosuite's observations are one physics step (2 ms) behind its state
        np.testing.assert_allclose(converted.episode(index).observation, own.episode(index).observation, atol=5e-3)
    file = summary["files"][0]
    assert file["kind"] == ("raw" if era == "raw" else "robomimic")
    assert any("1.4.1" in note for note in file["notes"]) == (era != "v15")
    assert summary["replay"]["each"][f"{era}/demo_0"]["success"]


def test_replaying_what_was_executed_retraces_the_path(collected):
    """The deltas with their noise, as absolute poses in the world frame, lead where they led."""
    import lfm_envs
    from lfm_envs.replay import convert, replay

    env = lfm_envs.make("robosuite/lift")
    env.reset(0)
    with open_demos(collected, {"Lift": env.contract}) as file:
        demo, model = file.read(0), file.model_xml(0)
        executed = file.data["demo_0/actions_executed"][()]
    demo = replace(demo, actions=executed)
    action = convert(env, demo, file.recording.controllers).episode.action
    good = replay(env, demo.states, action, model)
    assert good.success
    assert good.position_error.mean() < 1e-3
    assert np.degrees(good.rotation_error).mean() < 0.5
    assert 0 < good.position_error.max() < 5e-3
    # and an error of the size of a wrong frame or convention is seen
    shifted = action + np.array([0.02, *[0] * 9], dtype=np.float32)
    assert replay(env, demo.states, shifted, model).position_error.mean() > 0.01
    columns = action[:, [0, 1, 2, 3, 6, 4, 7, 5, 8, 9]]
    assert np.degrees(replay(env, demo.states, columns, model).rotation_error).max() > 5
    env.close()


def test_base_frame_deltas_of_two_arms_become_world_deltas():
    import lfm_envs
    from lfm_envs.replay import world_deltas

    env = lfm_envs.make("robosuite/transport")
    env.reset(0)
    deltas = np.random.default_rng(0).uniform(-1, 1, (1, 14))
    recorded = [arm.model_copy(update={"frame": "base"}) for arm in env.contract.controllers]
    goals = env.goal_of(world_deltas(env, deltas, recorded)[0])
    for index, arm in enumerate(env.arms):
        # robosuite's own goal in the base frame, taken to the world
        arm.input_type, arm.input_ref_frame = "delta", "base"
        arm.set_goal(deltas[0, 7 * index : 7 * index + 6])
        position = arm.origin_ori @ arm.goal_pos + arm.origin_pos
        matrix = arm.origin_ori @ arm.goal_ori
        np.testing.assert_allclose(goals[10 * index : 10 * index + 3], position, atol=1e-6)
        np.testing.assert_allclose(goals[10 * index + 3 : 10 * index + 9], matrix[:2].ravel(), atol=1e-6)
    env.close()


def test_several_files_become_one_data_set(prepare, collected, tmp_path):
    raw = disguise(collected, tmp_path / "raw.hdf5", "raw")
    summary = prepare(tmp_path / "d.zarr", [collected, raw])
    store = open_store(tmp_path / "d.zarr")
    assert len(store) == 2 * EPISODES
    assert sorted([*store.train, *store.valid]) == list(range(2 * EPISODES))
    assert [file["kind"] for file in summary["files"]] == ["native", "raw"]


def test_files_under_other_contracts_are_not_mixed(prepare, collected, tmp_path):
    other = tmp_path / "other.hdf5"
    other.write_bytes(collected.read_bytes())
    with h5py.File(other, "a") as file:
        contract = json.loads(file["data"].attrs["contract"]) | {"suite_version": "1.5.0"}
        file["data"].attrs["contract"] = json.dumps(contract)
        del file["checksums"]
    with pytest.raises(ContractError, match=r"1\.5\.2.*1\.5\.0"):
        prepare(tmp_path / "d.zarr", [collected, other])
    assert not (tmp_path / "d.zarr").exists()


def test_states_of_another_task_leave_the_old_data_set(prepare, collected, tmp_path):
    prepare(tmp_path / "d.zarr", collected)
    bad = disguise(collected, tmp_path / "bad.hdf5", "v15")
    with h5py.File(bad, "a") as file:
        states = file["data/demo_2/states"][()]
        del file["data/demo_2/states"]
        file["data/demo_2/states"] = states[:, :-1]
    with pytest.raises(DataError, match="state of shape"):
        prepare(tmp_path / "d.zarr", bad)
    assert len(open_store(tmp_path / "d.zarr")) == EPISODES
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_source_is_asked_for(prepare, tmp_path):
    with pytest.raises(ConfigError, match="'source': Tuple should have at least 1 item"):
        prepare(tmp_path / "d.zarr", [])


def test_command_line_answers_a_bad_file_with_one_line(tmp_path):
    (tmp_path / "d.hdf5").write_bytes(b"nonsense")
    command = [sys.executable, "-m", "lfm_cli", "prepare", f"source={tmp_path / 'd.hdf5'}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "not an HDF5 file" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["d.hdf5"]


@pytest.mark.slow
@pytest.mark.skipif("LFM_DATA" not in os.environ, reason="LFM_DATA does not name the folder with human demonstrations")
def test_human_demonstrations_replay(prepare, tmp_path):
    demos = Path(os.environ["LFM_DATA"]) / "demos"
    summary = prepare(tmp_path / "d.zarr", [demos / f"lift_human_{name}.hdf5" for name in "ab"], replay="all")
    assert summary["replay"]["episodes"] == 7
    assert summary["replay"]["successes"] >= 6
    assert max(row["position_mean_mm"] for row in summary["replay"]["each"].values()) < 1
    assert summary["files"][0]["clipped"] == 110
