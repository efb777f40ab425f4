import numpy as np
import pytest

from lfm_envs.point_mass import CONTRACT
from lfm_envs.tasks import TASKS
from lfm_policy.actions.motion import (
    blend,
    command_jerk,
    command_positions,
    gripper_commands,
    hold,
    rest_actions,
    seam_jerk,
)
from lfm_policy.actions.poses import matrix_to_rot6d, moving_columns, rotvec_to_matrix
from tests.contracts import JOINTS

LIFT, TRANSPORT = TASKS["lift"].contract, TASKS["transport"].contract
DELTA = LIFT.model_copy(update={"action_form": "delta", "rotation": "axis_angle", "action_dim": 7})


def test_a_cubic_has_its_constant_jerk():
    t = np.arange(10)[:, None] / CONTRACT.control_hz
    actions = np.hstack([2 * t**3, 1.5 * t**3])
    assert command_jerk(CONTRACT, actions) == pytest.approx(np.full((7, 1), 6 * 2.5))


def test_only_what_straddles_a_seam_counts_as_seam():
    actions = np.zeros((12, 2))
    actions[6:, 0] = 0.01
    seam, inner = seam_jerk(CONTRACT, actions, [0, 6])
    unit = 0.01 * CONTRACT.control_hz**3
    assert seam == pytest.approx(unit * np.sqrt((1 + 4 + 1) / 3)), "the third difference of a jump is 1, -2, 1"
    assert inner == 0
    assert seam_jerk(CONTRACT, actions, [0])[0] is None
    assert seam_jerk(CONTRACT, actions[:3], [1]) == (None, None)


def test_arms_and_grippers_are_found_in_their_columns():
    actions = np.arange(40.0).reshape(2, 20)
    assert command_positions(TRANSPORT, actions)[1].tolist() == [[20, 21, 22], [30, 31, 32]]
    assert gripper_commands(TRANSPORT, actions).tolist() == [[9, 19], [29, 39]]
    assert gripper_commands(CONTRACT, np.zeros((3, 2))).shape == (3, 0)


def test_displacements_add_up_to_positions():
    actions = np.ones((3, 7))
    assert command_positions(DELTA, actions)[:, 0, 0] == pytest.approx([0.05, 0.1, 0.15])


def test_to_hold_is_to_repeat_a_pose_but_not_a_displacement():
    last = np.linspace(0.1, 1, 10)
    assert hold(LIFT, last) is last
    assert hold(DELTA, last[:7]).tolist() == [0, 0, 0, 0, 0, 0, last[6]]


def test_each_joint_is_a_point_of_its_own_and_the_gripper_none():
    actions = np.arange(6.0).reshape(2, 3)
    assert command_positions(JOINTS, actions).tolist() == [[[0], [1]], [[3], [4]]]
    assert gripper_commands(JOINTS, actions).tolist() == [[2], [5]]
    t = np.arange(6)[:, None] / 30
    assert command_jerk(JOINTS, np.hstack([t**3, 2 * t**3, t])) == pytest.approx(np.full((3, 2), [6, 12]))
    delta = JOINTS.model_copy(update={"action_form": "delta"})
    assert hold(delta, np.array([1.0, 2, 3])).tolist() == [0, 0, 3]


def test_a_robot_rests_where_it_is_measured():
    observations = np.arange(14.0).reshape(2, 7)
    assert rest_actions(JOINTS, observations).tolist() == [[4, 5, 6], [11, 12, 13]]
    assert rest_actions(CONTRACT, np.zeros((1, 4))) is None


@pytest.mark.parametrize("contract", [JOINTS, TRANSPORT])
def test_a_blend_goes_from_start_to_end(contract):
    generator = np.random.default_rng(0)
    start, end = generator.standard_normal((2, contract.action_dim))
    if contract.poses:
        for action in (start, end):
            for arm in (0, 10):
                action[arm + 3 : arm + 9] = matrix_to_rot6d(rotvec_to_matrix(action[arm + 3 : arm + 6]))
    moving = moving_columns(contract)
    assert blend(contract, start, end, 0.0)[moving] == pytest.approx(start[moving])
    assert blend(contract, start, end, 1.0) == pytest.approx(end)
    assert blend(contract, start, end, 0.25)[0] == pytest.approx(0.75 * start[0] + 0.25 * end[0])
