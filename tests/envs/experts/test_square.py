import importlib.util

import numpy as np
import pytest

import lfm_envs
from lfm_envs.episodes import perform
from lfm_envs.experts import expert
from lfm_envs.experts.base import OPEN, REST_YAW, body_pose
from lfm_envs.experts.square import PLACED_HEADINGS, YAW_LIMIT, Plan

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]


@pytest.fixture(scope="module")
def square():
    env = lfm_envs.make("robosuite/square")
    yield env
    env.close()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_expert_succeeds_and_records_until_success_has_lasted_after_the_release(square, seed):
    episode = perform(square, expert("square"), seed)
    assert episode.success
    assert 80 <= len(episode.steps) <= 170
    assert all(step["rewards"] == 1 and step["actions"][6] == OPEN for step in episode.steps[-5:])
    nut, peg = body_pose(square, "SquareNut_main"), body_pose(square, "peg1")
    assert nut.position[2] < 0.84
    assert np.abs(nut.position - peg.position)[:2].max() < 0.01


def test_the_expert_picks_the_nut_up_again_when_it_is_knocked_out_of_the_hand(square):
    square.reset(1)
    data, knocked = square.simulation.sim.data, False
    start = data.get_joint_qpos("SquareNut_joint0").copy()
    for command in expert("square")(square, np.random.default_rng(0)):
        square.step_delta(command.action)
        if not knocked and body_pose(square, "SquareNut_main").position[2] > 0.95:
            data.set_joint_qpos("SquareNut_joint0", start + np.array([0.04, -0.03, -0.05, 0, 0, 0, 0]))
            data.set_joint_qvel("SquareNut_joint0", np.zeros(6))
            knocked = True
        assert square.simulation.timestep < 300
    assert knocked
    assert square.success()


@pytest.mark.parametrize("handle", np.linspace(-np.pi, np.pi, 25))
def test_a_plan_closes_across_the_handle_and_turns_it_within_the_arms_limits(handle):
    plan = Plan.make(handle)
    assert max(abs(plan.grasp_yaw), abs(plan.place_yaw)) <= YAW_LIMIT
    assert plan.placed in PLACED_HEADINGS
    across = REST_YAW + plan.grasp_yaw - handle
    assert abs(np.cos(across)) < 1e-9
    np.testing.assert_allclose(np.exp(1j * (handle + plan.place_yaw - plan.grasp_yaw)), np.exp(1j * plan.placed))
