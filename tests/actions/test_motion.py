import numpy as np
import pytest

from lfm_envs.point_mass import CONTRACT
from lfm_envs.tasks import TASKS
from lfm_policy.actions.motion import command_jerk, command_positions, gripper_commands, hold, seam_jerk

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
