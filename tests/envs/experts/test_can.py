import importlib.util

import numpy as np
import pytest

import lfm_envs
from lfm_envs.episodes import perform
from lfm_envs.experts import expert
from lfm_envs.experts.base import OPEN, arched, body_pose

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]


@pytest.fixture(scope="module")
def can():
    env = lfm_envs.make("robosuite/can")
    yield env
    env.close()


@pytest.mark.parametrize("seed", [0, 7])
def test_the_expert_succeeds_and_records_until_success_has_lasted_after_the_release(can, seed):
    episode = perform(can, expert("can"), seed)
    assert episode.success
    assert 80 <= len(episode.steps) <= 150
    assert all(step["rewards"] == 1 and step["actions"][6] == OPEN for step in episode.steps[-5:])
    grip, _ = can.grip_poses()[0]
    assert np.linalg.norm(grip - body_pose(can, "Can_main").position) > 0.05


def test_the_expert_picks_the_can_up_again_when_it_is_knocked_out_of_the_hand_and_over(can):
    can.reset(0)
    data, knocked = can.simulation.sim.data, False
    start = data.get_joint_qpos("Can_joint0").copy()
    lying = np.concatenate([start[:3] + np.array([0.03, -0.03, -0.01]), [np.sqrt(0.5), 0, np.sqrt(0.5), 0]])
    for command in expert("can")(can, np.random.default_rng(0)):
        can.step_delta(command.action)
        if not knocked and body_pose(can, "Can_main").position[2] > 0.95:
            data.set_joint_qpos("Can_joint0", lying)
            data.set_joint_qvel("Can_joint0", np.zeros(6))
            knocked = True
        assert can.simulation.timestep < 300
    assert knocked
    assert can.success()


def test_an_arched_way_climbs_first_crosses_next_and_comes_down_last():
    goal = np.array([0.5, 0.0, 0.1])

    def next_point(x, z):
        return arched(np.array([x, 0.0, z]), goal, clearance=0.3, descend=(0.02, 2))

    np.testing.assert_allclose(next_point(0.0, 0.1), [0.0, 0.0, 0.3])
    np.testing.assert_allclose(next_point(0.0, 0.3), [0.06, 0.0, 0.3])
    np.testing.assert_allclose(next_point(0.45, 0.2), [0.5, 0.0, 0.16])
    np.testing.assert_allclose(next_point(0.49, 0.1), goal)
