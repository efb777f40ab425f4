"""Real demonstrations go to LeRobot's form and come back: the same contract, the same numbers, the same split."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from lfm_envs.prepare import prepare as prepare_hdf5
from lfm_envs.render import cameras_of, render
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_envs.tasks import TASKS
from lfm_policy.data.windows.store import open_store
from lfm_policy.errors import DataError
from tests.demonstrations import record

pytest.importorskip("pyarrow", reason="LeRobot data sets need the extra lerobot (pyarrow)")
pytest.importorskip("av", reason="LeRobot data sets need the extra lerobot (av)")

from lfm_envs.to_lerobot import export
from lfm_policy.data.lerobot.export import export_store
from lfm_policy.data.lerobot.prepare import View, prepare

pytestmark = pytest.mark.sim
STEPS = 9


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The beginnings of two demonstrations of Lift, with pictures of one camera."""
    path = tmp_path_factory.mktemp("demos") / "demos.hdf5"
    env = RobosuiteEnvironment(TASKS["lift"])
    record(env, path, [1, 2], STEPS)
    env.close()
    render(path, path, cameras_of(TASKS["lift"], ["agentview"], 32), workers=1)
    with h5py.File(path, "a") as file:
        del file["mask"], file["checksums"]
        file["mask/train"], file["mask/valid"] = (np.array([name], "S") for name in ("demo_1", "demo_0"))
    return path


def test_there_and_back(demonstrations: Path, tmp_path: Path) -> None:
    prepare_hdf5([demonstrations], tmp_path / "own.zarr")
    own = open_store(tmp_path / "own.zarr")
    export(demonstrations, tmp_path / "file", words="lift the cube")
    export_store(own, tmp_path / "store")
    for name in ("file", "store"):
        prepare([tmp_path / name], tmp_path / f"{name}.zarr")
        back = open_store(tmp_path / f"{name}.zarr")
        assert back.contract == own.contract
        assert (back.train.tolist(), back.valid.tolist()) == (own.train.tolist(), own.valid.tolist()) == ([1], [0])
        for index in range(2):
            np.testing.assert_array_equal(back.episode(index).action, own.episode(index).action)
            np.testing.assert_array_equal(back.episode(index).observation, own.episode(index).observation)


def test_pictures_there_and_back(demonstrations: Path, tmp_path: Path) -> None:
    prepare_hdf5([demonstrations], tmp_path / "own.zarr", observations="images")
    export(demonstrations, tmp_path / "data", video=False)
    prepare([tmp_path / "data"], tmp_path / "back.zarr", View("images"))
    own, back = open_store(tmp_path / "own.zarr"), open_store(tmp_path / "back.zarr")
    assert back.contract == own.contract
    np.testing.assert_array_equal(back.episode(1).frames, own.episode(1).frames)


def test_deltas_are_what_the_other_bridge_to_robomimic_writes(demonstrations: Path, tmp_path: Path) -> None:
    """Its data sets hold no contract of ours, but the simulator's settings."""
    export(demonstrations, tmp_path / "data", words="lift the cube", action_form="delta", cameras=["agentview"])
    settings = json.loads((tmp_path / "data" / "meta" / "robomimic_env_args.json").read_text())
    assert (settings["env_name"], settings["lang"]) == ("Lift", "lift the cube")
    (tmp_path / "data" / "meta" / "lfm.json").unlink()
    prepare([tmp_path / "data"], tmp_path / "back.zarr")
    back = open_store(tmp_path / "back.zarr")
    found = back.contract
    assert (found.suite, found.environment, found.robots, found.action_form) == (
        "robosuite",
        "Lift",
        ("Panda",),
        "delta",
    )
    assert found.observations == TASKS["lift"].contract.observations
    with h5py.File(demonstrations) as file:
        np.testing.assert_array_equal(back.episode(0).action, file["data/demo_0/actions"][()].astype(np.float32))
    with pytest.raises(DataError, match="no pictures of camera 'side'"):
        export(demonstrations, tmp_path / "data", cameras=["side"])
