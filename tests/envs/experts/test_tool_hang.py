import importlib.util

import numpy as np
import pytest

import lfm_envs
from lfm_envs.episodes import perform
from lfm_envs.experts import expert
from lfm_envs.experts.base import CLOSED, OPEN

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]


@pytest.fixture(scope="module")
def tool_hang():
    env = lfm_envs.make("robosuite/tool_hang")
    yield env
    env.close()


def test_the_expert_succeeds_and_records_until_success_has_lasted_after_the_release(tool_hang):
    episode = perform(tool_hang, expert("tool_hang"), 0)
    assert episode.success
    assert 300 <= len(episode.steps) <= 480
    assert all(step["rewards"] == 1 and step["actions"][6] == OPEN for step in episode.steps[-6:])
    assert not episode.steps[len(episode.steps) // 2]["rewards"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["frame", "tool"])
def test_the_expert_starts_over_with_what_it_lost_on_the_way(tool_hang, name):
    tool_hang.reset(1)
    data, joint = tool_hang.simulation.sim.data, getattr(tool_hang.simulation, name).joints[0]
    start, lost, success = data.get_joint_qpos(joint).copy(), False, False
    for command in expert("tool_hang")(tool_hang, np.random.default_rng(1)):
        success = tool_hang.step_delta(command.action).success
        if not lost and command.action[6] == CLOSED and data.get_joint_qpos(joint)[2] > start[2] + 0.15:
            data.set_joint_qpos(joint, start)
            data.set_joint_qvel(joint, np.zeros(6))
            lost = True
        assert tool_hang.simulation.timestep < tool_hang.horizon
    assert lost
    assert success
