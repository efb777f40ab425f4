"""The tasks in the real LeRobot are ours, bit for bit, by its names; it needs an environment of its own."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="LeRobot is not installed: it needs Python 3.12 and an environment of its own")
pytest.importorskip("lerobot_env_lfm", reason="not installed: pip install integrations/lerobot_env_lfm")

from lerobot.envs.configs import EnvConfig
from lerobot.envs.factory import make_env, make_env_config
from lerobot.envs.utils import env_to_policy_features
from lerobot.utils.io_utils import write_video

import lfm_envs
from lfm_envs.tasks import TASKS
from lfm_policy.data.lerobot.names import columns_of
from lfm_policy.errors import ConfigError


@pytest.mark.parametrize("task", sorted(TASKS))
def test_features_are_those_of_the_contract(task: str) -> None:
    found, contract = env_to_policy_features(make_env_config("lfm", task=task)), TASKS[task].contract
    expected = {key: (len(columns),) for key, columns in columns_of(contract).items()}
    assert {key: feature.shape for key, feature in found.items()} == expected | {"action": (contract.action_dim,)}


@pytest.mark.sim
def test_episodes_are_ours(tmp_path: Path) -> None:
    config = make_env_config("lfm", task="lift", render=False)
    assert isinstance(config, EnvConfig)
    (envs,) = make_env(config, n_envs=2).values()
    vector, ours = envs[0], lfm_envs.make("robosuite/lift")
    columns = {"agent_pos": range(10, 19), "environment_state": range(10)}
    seen, expected = vector.reset(seed=[3, 4])[0], ours.contract.flatten(ours.reset(3))
    action = np.array([0.0, 0.0, 1.0, 1, 0, 0, 0, 1, 0, -1], np.float32)
    for _ in range(3):
        for key, places in columns.items():
            np.testing.assert_array_equal(seen[key][0], expected[list(places)])
        seen, _, _, _, info = vector.step(np.stack([action, action]))
        expected = ours.contract.flatten(ours.step(action.astype(np.float64)).observation)
    assert not np.any(info["is_success"])
    assert vector.call("task_description") == ("lift the cube",) * 2
    assert vector.call("_max_episode_steps") == (400, 400)
    write_video(tmp_path / "film.mp4", np.stack([vector.envs[0].render()] * 5), vector.unwrapped.metadata["render_fps"])
    assert (tmp_path / "film.mp4").stat().st_size > 0
    vector.close()


def test_other_tasks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"env\.task=lifd: expected one of the tasks; did you mean 'lift'"):
        make_env_config("lfm", task="lifd")
