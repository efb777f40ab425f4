import json

import pytest

import lfm_envs
from lfm_envs.tasks import TASKS, task, task_of_environment
from lfm_policy.errors import ConfigError


def test_dimensions_are_those_of_the_robomimic_benchmark():
    dims = {name: entry.contract.observation_dim for name, entry in TASKS.items()}
    assert dims == {"lift": 19, "can": 23, "square": 23, "transport": 59, "tool_hang": 53}
    assert {name: entry.contract.action_dim for name, entry in TASKS.items()} == dict.fromkeys(dims, 10) | {
        "transport": 20
    }


def test_every_arm_has_its_own_controller_in_the_world_frame():
    configs = TASKS["transport"].env_kwargs("absolute")["controller_configs"]
    assert len(configs) == 2
    for config in configs:
        arm = config["body_parts"]["right"]
        assert (arm["input_type"], arm["input_ref_frame"]) == ("absolute", "world")


def test_env_kwargs_are_plain_json():
    for entry in TASKS.values():
        assert json.loads(json.dumps(entry.env_kwargs("delta"))) == entry.env_kwargs("delta")


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'tool_hang'"):
        task("toolhang")
    with pytest.raises(ConfigError, match="did you mean 'PickPlaceCan'"):
        task_of_environment("PickPlaceCans")
    with pytest.raises(ConfigError, match="did you mean 'robosuite/lift'"):
        lfm_envs.make("robosuite/lfit")
    with pytest.raises(ConfigError, match=r"no option 'simulator'.*'simulation'"):
        lfm_envs.make("robosuite/lift", simulator="robosuite")
