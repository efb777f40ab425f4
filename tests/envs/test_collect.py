import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import lfm_envs
from lfm_envs.collect import Recipe, collect
from lfm_envs.simulator import load_robosuite
from lfm_policy.actions.poses import rotvec_to_matrix
from lfm_policy.contract import Contract
from lfm_policy.errors import ConfigError

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]

ROOT = Path(__file__).resolve().parents[2]
RECIPE = Recipe("lift", episodes=4, seed=5)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    out = tmp_path_factory.mktemp("collection")
    collect(RECIPE, out, workers=2)
    return out


def contents(path: Path) -> dict:
    """Every array and attribute of an HDF5 file."""
    found = {}

    def visit(name, item):
        found[name] = item[()] if isinstance(item, h5py.Dataset) else None
        found.update({f"{name}@{key}": value for key, value in item.attrs.items()})

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def wait_until(condition, seconds: float = 60):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def assert_same_files(one: Path, other: Path):
    ours, theirs = contents(one), contents(other)
    assert ours.keys() == theirs.keys()
    for key in ours:
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)


def test_layout_and_summary(collection):
    summary = json.loads((collection / "summary.json").read_text())
    assert sorted(path.name for path in collection.iterdir()) == ["demos.hdf5", "recipe.json", "summary.json"]
    with h5py.File(collection / "demos.hdf5") as file:
        data = file["data"]
        lengths = [data[f"demo_{index}"].attrs["num_samples"] for index in range(4)]
        assert data.attrs["total"] == sum(lengths) == summary["steps"]["total"]
        for index, length in enumerate(lengths):
            demo = data[f"demo_{index}"]
            for key in ("actions", "actions_abs", "actions_executed"):
                assert demo[key].shape == (length, 7)
            assert demo["rewards"].shape == demo["dones"].shape == (length,)
            assert demo["states"].shape[0] == length
            assert demo["obs/object"].shape == demo["next_obs/object"].shape == (length, 10)
            np.testing.assert_array_equal(demo["obs/object"][1:], demo["next_obs/object"][:-1])
        masks = [{name.decode() for name in file[f"mask/{part}"]} for part in ("train", "valid")]
    assert masks[0] | masks[1] == {f"demo_{index}" for index in range(4)}
    assert not masks[0] & masks[1]
    assert len(masks[1]) == 1


def test_robomimic_reads_it(collection):
    pytest.importorskip("robomimic")
    from robomimic.utils import env_utils, obs_utils
    from robomimic.utils.dataset import SequenceDataset

    with h5py.File(collection / "demos.hdf5") as file:
        env_args = json.loads(file["data"].attrs["env_args"])
        contract = Contract.model_validate_json(file["data"].attrs["contract"])
        demo = file["data/demo_0"]
        obs, actions = demo["obs/object"][()], demo["actions"][()]
    assert env_utils.is_robosuite_env(env_args)
    keys = [key.name for key in contract.observations]
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": keys, "rgb": []}})
    dataset = SequenceDataset(
        str(collection / "demos.hdf5"),
        obs_keys=keys,
        dataset_keys=("actions", "actions_abs", "rewards", "dones"),
        seq_length=8,
        hdf5_cache_mode="low_dim",
        filter_by_attribute="train",
    )
    with h5py.File(collection / "demos.hdf5") as file:
        trained = sum(file[f"data/{name.decode()}"].attrs["num_samples"] for name in file["mask/train"])
    assert len(dataset) == trained
    if dataset.demos[0] == "demo_0":
        np.testing.assert_array_equal(dataset[0]["obs"]["object"], obs[:8])
        np.testing.assert_allclose(dataset[0]["actions"], actions[:8], rtol=1e-6)
    assert dataset[3]["actions_abs"].shape == (8, 7)


def test_env_args_build_the_environment_in_which_the_actions_repeat(collection):
    with h5py.File(collection / "demos.hdf5") as file:
        env_args, demo = json.loads(file["data"].attrs["env_args"]), file["data/demo_1"]
        states, executed, model = demo["states"][()], demo["actions_executed"][()], demo.attrs["model_file"]
    env = load_robosuite().make(env_args["env_name"], **env_args["env_kwargs"])
    env.reset()
    env.reset_from_xml_string(model)
    env.sim.reset()
    env.sim.set_state_from_flattened(states[0])
    env.sim.forward()
    env.robots[0].part_controllers["right"].update_initial_joints(states[0][1:8])
    for action in executed:
        env.step(action)
    assert env._check_success()
    env.close()


def test_executed_actions_replay_bit_exactly_and_absolute_ones_are_their_goals(collection):
    env = lfm_envs.make("robosuite/lift")
    with h5py.File(collection / "demos.hdf5") as file:
        demo = {key: file[f"data/demo_2/{key}"][()] for key in ("states", "actions", "actions_abs", "actions_executed")}
        model, last = file["data/demo_2"].attrs["model_file"], file["data/demo_2/next_obs/object"][-1]
    env.reset_to(demo["states"][0], model)
    for step, executed in enumerate(demo["actions_executed"]):
        np.testing.assert_array_equal(env.get_state(), demo["states"][step])
        goal, stored = env.goal_of(demo["actions"][step]), demo["actions_abs"][step]
        np.testing.assert_allclose(goal[[0, 1, 2, 9]], stored[[0, 1, 2, 6]], atol=1e-12)
        np.testing.assert_allclose(goal[3:9].reshape(2, 3), rotvec_to_matrix(stored[3:6])[:2], atol=1e-9)
        result = env.step_delta(executed)
    np.testing.assert_array_equal(result.observation["object"], last)
    assert result.success
    env.close()


def test_the_number_of_workers_does_not_matter(collection, tmp_path):
    collect(RECIPE, tmp_path, workers=1)
    assert_same_files(tmp_path / "demos.hdf5", collection / "demos.hdf5")


def test_a_killed_collection_continues(collection, tmp_path):
    command = [sys.executable, "-m", "lfm_cli", "collect", "task=lift", "episodes=4", "seed=5", "workers=1"]
    process = subprocess.Popen(
        [*command, f"out={tmp_path}"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: list(tmp_path.glob("episodes/*.hdf5")) or process.poll() is not None)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    assert workers
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert not (tmp_path / "demos.hdf5").exists()
    with h5py.File(min(tmp_path.glob("episodes/*.hdf5")), "a") as part:
        part["demo"].attrs["finished_before"] = True
        del part["checksums"]  # as 0.1 wrote episodes
    again = subprocess.run([*command, f"out={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (0, "")
    with h5py.File(tmp_path / "demos.hdf5", "a") as file:
        assert file["data/demo_0"].attrs.pop("finished_before")
    assert_same_files(tmp_path / "demos.hdf5", collection / "demos.hdf5")


def test_a_finished_collection_is_left_alone(collection):
    before = (collection / "demos.hdf5").stat().st_mtime_ns
    summary = collect(RECIPE, collection, workers=1)
    assert summary["episodes"] == 4
    assert (collection / "demos.hdf5").stat().st_mtime_ns == before


def test_another_recipe_is_not_mixed_in(collection):
    before = contents(collection / "demos.hdf5")
    with pytest.raises(ConfigError, match="another collection:\n  seed: there 5, now 6"):
        collect(Recipe("lift", 4, 6), collection, workers=1)
    assert contents(collection / "demos.hdf5").keys() == before.keys()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("task=lfit", "did you mean 'lift'"),
        ("episodes=0", "'episodes': Input should be greater than 0; found 0"),
        ("episods=3", "unknown setting 'episods': did you mean 'episodes'"),
        ("workers=many", "'workers'"),
    ],
)
def test_bad_settings_are_one_clear_error(setting, message, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lfm_cli", "collect", f"out={tmp_path / 'out'}", setting],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
