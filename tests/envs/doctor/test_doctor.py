"""Each trap of the action contract, planted into a copy of a recorded file, is named with its fix."""

import importlib.util
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import lfm_envs
from lfm_envs.doctor import Diagnosis, diagnose, read_episode
from lfm_envs.doctor.findings import Finding
from lfm_envs.tasks import TASKS
from lfm_policy.actions.poses import matrix_to_rot6d, matrix_to_rotvec, rotvec_to_matrix
from lfm_policy.data.demos.file import open_demos
from lfm_policy.errors import DataError
from tests.demonstrations import record

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]

CONTRACTS = {task.environment: task.contract for task in TASKS.values()}
STEPS = 80
"""Of the Transport episode: both arms move, and reading it stays quick."""


@pytest.fixture(scope="module")
def environments():
    built = {name: lfm_envs.make(f"robosuite/{name}") for name in ("lift", "transport")}
    for env in built.values():
        env.reset(0)
    yield built
    for env in built.values():
        env.close()


@pytest.fixture(scope="module")
def lift(environments, tmp_path_factory):
    return record(environments["lift"], tmp_path_factory.mktemp("lift") / "demos.hdf5", [7, 8])


@pytest.fixture(scope="module")
def transport(environments, tmp_path_factory):
    """The beginning of a Transport demonstration as an official file would hold it: deltas and nothing of ours."""
    path = record(environments["transport"], tmp_path_factory.mktemp("transport") / "demos.hdf5", [7], STEPS)
    with h5py.File(path, "a") as file:
        official(file)
    return path


def put(file, key, change):
    """Replace an array of every demonstration with a changed copy."""
    for demo in file["data"].values():
        value = change(demo[key][()])
        del demo[key]
        demo[key] = value


def copy(source: Path, target: Path, *plants) -> Path:
    target.write_bytes(source.read_bytes())
    with h5py.File(target, "a") as file:
        for plant in plants:
            plant(file)
    return target


def settings(*changes, **kwargs):
    """Change each arm's controller part (a None removes the setting) and the environment's arguments."""

    def plant(file):
        table = json.loads(file["data"].attrs["env_args"])
        configs = table["env_kwargs"]["controller_configs"]
        arms = configs if isinstance(configs, list) else [configs]
        for config, change in zip(arms, changes, strict=bool(changes)):
            part = config["body_parts"]["right"] | change
            config["body_parts"]["right"] = {key: value for key, value in part.items() if value is not None}
        table["env_kwargs"] |= kwargs
        file["data"].attrs["env_args"] = json.dumps(table)

    return plant


def contract(**changes):
    def plant(file):
        table = json.loads(file["data"].attrs["contract"])
        file["data"].attrs["contract"] = json.dumps(table | changes)

    return plant


def official(file):
    """As an official file has it: what was executed, without our contract and absolute actions."""
    del file["data"].attrs["contract"]
    for demo in file["data"].values():
        del demo["actions"], demo["actions_abs"]
        demo.move("actions_executed", "actions")


def look(environments, path: Path) -> Diagnosis:
    with open_demos(path, CONTRACTS, strict=False) as file:
        env = environments["transport" if file.contract.environment == "TwoArmTransport" else "lift"]
        episodes = [read_episode(env, file, index) for index in range(len(file))]
        return diagnose(env, file, episodes)


def findings(environments, path: Path) -> dict[str, Finding]:
    return {finding.trap: finding for finding in look(environments, path).findings}


def to_base(env, arm, poses):
    """World poses (L, 7) in an arm's base frame."""
    base, turn = env.arms[arm].origin_pos, env.arms[arm].origin_ori
    rotation = matrix_to_rotvec(turn.T @ rotvec_to_matrix(poses[:, 3:6]))
    return np.hstack([(poses[:, :3] - base) @ turn, rotation, poses[:, 6:]])


def absolute(environments, transport, arms):
    """A plant: the actions of `arms` as the poses that they ask for."""
    diagnosis = look(environments, transport)

    def plant(file):
        deltas = file["data/demo_0/actions"][()]
        for arm in arms:
            action = diagnosis.action[:, 10 * arm : 10 * arm + 10]
            first, second = action[:, 3:6], action[:, 6:9]
            rotation = matrix_to_rotvec(np.stack([first, second, np.cross(first, second)], axis=1))
            deltas[:, 7 * arm : 7 * arm + 7] = np.hstack([action[:, :3], rotation, action[:, 9:]])
        put(file, "actions", lambda _: deltas)

    return plant


ABSOLUTE = {"input_type": "absolute", "input_ref_frame": "world"}


def test_healthy_files(environments, lift, transport, tmp_path):
    for path in (lift, transport, copy(lift, tmp_path / "d.hdf5", official)):
        diagnosis = look(environments, path)
        assert diagnosis.findings == ()
        assert diagnosis.found == diagnosis.declared
        assert diagnosis.control_hz == pytest.approx(20)
    rows = {row["name"]: row for row in look(environments, lift).observations}
    assert rows["object"]["dim"] == 10
    assert 0 < rows["robot0_eef_pos"]["gap"] < 5e-3


def test_absolute_files_are_healthy_when_they_say_so(environments, transport, tmp_path):
    plants = absolute(environments, transport, (0, 1)), settings(ABSOLUTE, ABSOLUTE)
    diagnosis = look(environments, copy(transport, tmp_path / "d.hdf5", *plants))
    assert diagnosis.findings == ()
    np.testing.assert_allclose(diagnosis.action, look(environments, transport).action, atol=1e-6)


def test_trap_absolute_actions_in_the_base_frame(environments, lift, tmp_path):
    path = copy(
        lift,
        tmp_path / "d.hdf5",
        lambda file: put(file, "actions_abs", lambda poses: to_base(environments["lift"], 0, poses)),
    )
    found = findings(environments, path)
    assert found.keys() == {"frame"}
    assert "are absolute poses in the robot base frame" in found["frame"].what
    assert "world-frame poses" in found["frame"].fix


def test_trap_unsaid_frame_of_two_arms(environments, transport, tmp_path):
    path = copy(transport, tmp_path / "d.hdf5", settings(*[{"input_ref_frame": None}] * 2))
    diagnosis = look(environments, path)
    assert [finding.trap for finding in diagnosis.findings] == ["frame", "frame"]
    assert ["arm 0" in diagnosis.findings[0].what, "arm 1" in diagnosis.findings[1].what] == [True, True]
    assert "input_ref_frame='world' on this arm" in diagnosis.findings[1].fix


@pytest.mark.parametrize("flat", [False, True])
def test_trap_control_delta_on_robosuite_15(environments, lift, tmp_path, flat):
    def poses_as_actions(file):
        for demo in file["data"].values():
            del demo["actions"]
            demo.move("actions_abs", "actions")
            del demo["actions_executed"]
        del file["data"].attrs["contract"]

    def flatten(file):
        table = json.loads(file["data"].attrs["env_args"])
        table["env_kwargs"]["controller_configs"] = table["env_kwargs"]["controller_configs"]["body_parts"]["right"]
        file["data"].attrs["env_args"] = json.dumps(table)

    old = settings({"control_delta": False, "input_type": None, "input_ref_frame": None})
    path = copy(lift, tmp_path / "d.hdf5", poses_as_actions, old, *([flatten] if flat else []))
    found = findings(environments, path)
    assert found.keys() == {"control_delta", "frame"}
    assert "ignored by robosuite 1.5" in found["control_delta"].what
    assert "input_type='absolute'" in found["control_delta"].fix


def test_trap_one_arm_of_two_left_in_delta(environments, transport, tmp_path):
    half = absolute(environments, transport, (0,))
    path = copy(transport, tmp_path / "numbers.hdf5", half, settings(ABSOLUTE, ABSOLUTE))
    found = findings(environments, path)
    assert found.keys() == {"mixed arms", "action form"}
    assert "arm 1's are deltas" in found["mixed arms"].what
    assert "every robot" in found["mixed arms"].fix
    both = absolute(environments, transport, (0, 1))
    path = copy(transport, tmp_path / "settings.hdf5", both, settings(ABSOLUTE, {}))
    found = findings(environments, path)
    assert found.keys() == {"mixed arms", "action form"}
    assert "arm 0 absolute, arm 1 delta" in found["mixed arms"].what


def as_rot6d(columns: bool):
    def change(poses):
        matrix = rotvec_to_matrix(poses[:, 3:6])
        return np.hstack(
            [poses[:, :3], matrix_to_rot6d(np.swapaxes(matrix, 1, 2) if columns else matrix), poses[:, 6:]]
        )

    return lambda file: put(file, "actions_abs", change)


def test_trap_columns_of_the_rotation(environments, lift, tmp_path):
    assert findings(environments, copy(lift, tmp_path / "rows.hdf5", as_rot6d(columns=False))) == {}
    found = findings(environments, copy(lift, tmp_path / "columns.hdf5", as_rot6d(columns=True)))
    assert found.keys() == {"rotation"}
    assert "rot6d_columns" in found["rotation"].what
    assert "transpose" in found["rotation"].fix
    turned = copy(
        lift,
        tmp_path / "turned.hdf5",
        lambda file: put(file, "actions_abs", lambda poses: poses * np.array([1, 1, 1, -1, -1, -1, 1])),
    )
    assert findings(environments, turned).keys() == {"rotation"}
    declared = copy(lift, tmp_path / "declared.hdf5", contract(rotation="rot6d_columns"))
    assert findings(environments, declared).keys() == {"rotation"}


def test_trap_permuted_keys(environments, lift, tmp_path):
    keys = [key.model_dump() for key in CONTRACTS["Lift"].observations]
    found = findings(environments, copy(lift, tmp_path / "order.hdf5", contract(observations=keys[::-1])))
    assert found.keys() == {"observation keys"}
    assert "another order" in found["observation keys"].what

    def swap(file):
        put(file, "obs/robot0_eef_pos", lambda array: array[:, [2, 0, 1]])

    found = findings(environments, copy(lift, tmp_path / "columns.hdf5", swap))
    assert found.keys() == {"observation keys"}
    assert "robot0_eef_pos[0] holds robot0_eef_pos[2]" in found["observation keys"].what
    assert "lfm prepare" in found["observation keys"].fix

    def drop(file):
        for demo in file["data"].values():
            del demo["obs/object"]

    found = findings(environments, copy(lift, tmp_path / "missing.hdf5", drop))
    assert "object is missing" in found["observation keys"].what


def test_trap_control_frequency(environments, lift, tmp_path):
    found = findings(environments, copy(lift, tmp_path / "said.hdf5", settings(control_freq=10)))
    assert found.keys() == {"control frequency"}
    assert "says 10 Hz, the clock in its states runs at 20 Hz" in found["control frequency"].what

    def slow(file):
        put(file, "states", lambda states: np.hstack([2 * states[:, :1], states[:, 1:]]))

    path = copy(lift, tmp_path / "really.hdf5", settings(control_freq=10), slow)
    found = findings(environments, path)
    assert found.keys() == {"control frequency"}
    assert "at 10 Hz, the environment here at 20 Hz" in found["control frequency"].what
    path = copy(lift, tmp_path / "contract.hdf5", contract(control_hz=10))
    assert findings(environments, path).keys() == {"control frequency"}


def test_other_gains_and_versions(environments, lift, tmp_path):
    found = findings(environments, copy(lift, tmp_path / "gains.hdf5", settings({"kp": 300})))
    assert found.keys() == {"controller"}
    assert "arm 0 kp is 300.0 in the file and 150.0 here" in found["controller"].what
    assert findings(environments, copy(lift, tmp_path / "v.hdf5", contract(suite_version="1.5.0"))).keys() == {
        "version"
    }


def test_what_cannot_be_examined(environments, lift, tmp_path):
    def without(key):
        def plant(file):
            for demo in file["data"].values():
                del demo[key]

        return plant

    for key in ("states", "actions"):
        with pytest.raises(DataError, match=f"has no '{key}'"):
            look(environments, copy(lift, tmp_path / "d.hdf5", without(key)))
    narrow = copy(lift, tmp_path / "d.hdf5", lambda file: put(file, "actions", lambda array: array[:, :6]))
    with pytest.raises(DataError, match="7 or 10 numbers an arm"):
        look(environments, narrow)
