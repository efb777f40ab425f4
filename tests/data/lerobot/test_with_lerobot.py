"""LeRobot's own reader loads what is written here, its own writer's data are read here: the same numbers both ways.

LeRobot and this package cannot share an environment: LEROBOT_PYTHON names the Python of one that has lerobot 0.6.1,

    LEROBOT_PYTHON=/path/to/venv/bin/python pytest tests/data/lerobot/test_with_lerobot.py
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lfm_envs.tasks import TASKS
from lfm_policy.contract import Camera, Contract
from lfm_policy.data.windows.store import open_store
from tests.data.lerobot.recorded import record

pytest.importorskip("pyarrow", reason="LeRobot data sets need the extra lerobot (pyarrow)")
pytest.importorskip("av", reason="LeRobot data sets need the extra lerobot (av)")

from lfm_policy.data.lerobot.prepare import View, prepare

PYTHON = os.environ.get("LEROBOT_PYTHON", sys.executable)
READ = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

data = LeRobotDataset("local/data", root=sys.argv[1])
ahead = LeRobotDataset("local/data", root=sys.argv[1], delta_timestamps={"action": [-0.05, 0.0, 0.05]})
rows = [data[index] for index in range(len(data))]
found = {key: np.stack([np.asarray(row[key]) for row in rows]) for key in rows[0] if key != "task"}
found["task"] = np.array([row["task"] for row in rows])
found["ahead"] = np.stack([np.asarray(ahead[index]["action"]) for index in range(len(ahead))])
found["mean"] = data.meta.stats["action"]["mean"]
found["count"] = np.array([data.num_episodes, data.num_frames, data.fps])
np.savez(sys.argv[2], **found)
"""
WRITE = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

motors = ["pan.pos", "lift.pos", "gripper.pos"]
features = {
    "observation.state": {"dtype": "float32", "shape": (3,), "names": motors},
    "action": {"dtype": "float32", "shape": (3,), "names": motors},
    "observation.images.top": {"dtype": "video", "shape": (64, 96, 3), "names": ["height", "width", "channels"]},
    "observation.images.wrist": {"dtype": "image", "shape": (64, 96, 3), "names": ["height", "width", "channels"]},
}
data = LeRobotDataset.create("local/data", fps=30, features=features, root=sys.argv[1], robot_type="so101_follower")
generator = np.random.default_rng(0)
numbers = []
for length in (12, 9):
    for step in range(length):
        numbers.append(generator.normal(size=(2, 3)).astype(np.float32))
        grey = np.full((64, 96, 3), 10 * step, np.uint8)
        frame = {"observation.state": numbers[-1][0], "action": numbers[-1][1], "task": "pick"}
        data.add_frame({**frame, "observation.images.top": grey, "observation.images.wrist": grey})
    data.save_episode()
data.finalize()
np.save(sys.argv[2], np.stack(numbers))
"""


@cache
def has_lerobot() -> bool:
    return not subprocess.run(
        [PYTHON, "-c", "import lerobot"], check=False, capture_output=True, timeout=300
    ).returncode


def with_lerobot(code: str, folder: Path, *arguments: Path) -> None:
    """Run a program of LeRobot's, or skip the test."""
    if not has_lerobot():
        pytest.skip(
            f"{PYTHON} has no lerobot, which needs an environment of its own: name its Python in LEROBOT_PYTHON"
        )
    surroundings = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    command = [PYTHON, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=False, env=surroundings, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("video", [True, False], ids=["video", "image"])
def test_lerobots_reader_returns_the_same_numbers(video: bool, tmp_path: Path) -> None:
    cameras = tuple(Camera(name=name, height=32, width=32) for name in ("agentview", "robot0_eye_in_hand"))
    contract = Contract.model_validate(dict(TASKS["lift"].contract) | {"cameras": cameras})
    made = record(tmp_path / "data", contract, video=video)
    with_lerobot(READ, tmp_path, tmp_path / "data", tmp_path / "found.npz")
    found = np.load(tmp_path / "found.npz")
    observation = np.concatenate([episode.observation for episode in made])
    actions = np.concatenate([episode.action for episode in made])
    np.testing.assert_array_equal(found["observation.environment_state"], observation[:, :10])
    np.testing.assert_array_equal(found["observation.state"], observation[:, 10:])
    np.testing.assert_array_equal(found["action"], actions)
    np.testing.assert_allclose(found["mean"], actions.mean(0), atol=1e-6)
    assert found["count"].tolist() == [len(made), len(actions), 20]
    assert set(found["task"]) == {"reach"}
    inside = slice(1, len(made[0].action) - 1)
    np.testing.assert_array_equal(found["ahead"][inside, 0], actions[: inside.stop - 1])
    np.testing.assert_array_equal(found["ahead"][inside, 2], actions[2 : inside.stop + 1])
    for place, camera in enumerate(contract.cameras):
        frames = np.concatenate([episode.frames[:, place] for episode in made if episode.frames is not None])
        seen = np.moveaxis(found[f"observation.images.{camera.name}"], 1, -1) * 255
        assert np.abs(seen - frames).max() <= (2 if video else 1e-4)


def test_what_lerobots_writer_leaves_is_read(tmp_path: Path) -> None:
    """Its videos are AV1."""
    with_lerobot(WRITE, tmp_path, tmp_path / "data", tmp_path / "numbers.npy")
    numbers = np.load(tmp_path / "numbers.npy")
    prepare([tmp_path / "data"], tmp_path / "d.zarr", View("images"))
    store = open_store(tmp_path / "d.zarr")
    contract = store.contract
    assert (contract.space, contract.measured, contract.control_hz) == ("joints", "observation.state", 30)
    assert (contract.robots, contract.grippers) == (("so101_follower",), [2])
    assert [camera.name for camera in contract.cameras] == ["top", "wrist"]
    read = [store.episode(index) for index in range(2)]
    np.testing.assert_array_equal(np.concatenate([episode.observation for episode in read]), numbers[:, 0])
    np.testing.assert_array_equal(np.concatenate([episode.action for episode in read]), numbers[:, 1])
    for episode in read:
        assert episode.frames is not None
        expected = 10 * np.arange(len(episode.action))[:, None, None, None]
        assert np.abs(episode.frames[:, 0].astype(int) - expected).max() <= 4
        np.testing.assert_array_equal(episode.frames[:, 1], np.broadcast_to(expected, episode.frames[:, 1].shape))
