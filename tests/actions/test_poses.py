"""Rotation conversions against scipy and against each other."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lfm_envs.tasks import TASKS
from lfm_policy.actions import poses as actions
from tests.contracts import JOINTS

NEAR_HALF_TURNS = Rotation.from_rotvec(
    np.array([[np.pi, 0, 0], [0, np.pi - 1e-9, 0], [0, 0, np.pi], [1e-9, 0, 0], [0, 0, 0], [2.2, 2.2, 0.1]])
)
SAMPLES = Rotation.concatenate([Rotation.random(200, random_state=0), NEAR_HALF_TURNS])


def test_conversions_agree_with_scipy() -> None:
    matrix = SAMPLES.as_matrix()
    np.testing.assert_allclose(actions.rotvec_to_matrix(SAMPLES.as_rotvec()), matrix, atol=1e-12)
    np.testing.assert_allclose(actions.rotvec_to_matrix(actions.matrix_to_rotvec(matrix)), matrix, atol=1e-12)


def test_rot6d_is_the_first_two_rows_and_round_trips() -> None:
    matrix = SAMPLES.as_matrix()
    rot6d = actions.matrix_to_rot6d(matrix)
    np.testing.assert_array_equal(rot6d[:, :3], matrix[:, 0, :])
    np.testing.assert_array_equal(rot6d[:, 3:], matrix[:, 1, :])
    np.testing.assert_allclose(actions.rot6d_to_matrix(rot6d), matrix, atol=1e-12)


def test_a_predicted_rotation_is_orthonormalised() -> None:
    noisy = np.random.default_rng(0).normal(size=(50, 6))
    matrix = actions.rot6d_to_matrix(noisy)
    np.testing.assert_allclose(matrix @ np.swapaxes(matrix, -1, -2), np.broadcast_to(np.eye(3), (50, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrix), 1, atol=1e-12)


def test_absolute_actions_round_trip() -> None:
    rng = np.random.default_rng(1)
    position, gripper = rng.normal(size=(7, 3)), rng.choice([-1.0, 1.0], size=(7, 1))
    matrix = Rotation.random(7, random_state=2).as_matrix()
    decoded = actions.decode_absolute(actions.encode_absolute(position, matrix, gripper))
    for found, expected in zip(decoded, (position, matrix, gripper), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_two_arm_action_is_refused_by_the_one_arm_decoder() -> None:
    with pytest.raises(ValueError, match="10 numbers"):
        actions.decode_absolute(np.zeros(20))


def test_rotation_distance_is_the_angle() -> None:
    turn = Rotation.from_rotvec([0, 0, 0.3]).as_matrix()
    base = Rotation.random(1, random_state=3).as_matrix()[0]
    np.testing.assert_allclose(actions.rotation_distance(base, base @ turn), 0.3, atol=1e-12)


def test_columns_follow_from_what_the_contract_declares() -> None:
    lift, transport = TASKS["lift"].contract, TASKS["transport"].contract
    assert actions.position_columns(lift) == [0, 1, 2]
    assert actions.position_columns(transport) == [0, 1, 2, 10, 11, 12]
    assert actions.moving_columns(transport) == [*range(9), *range(10, 19)]
    rotvec = lift.model_copy(update={"rotation": "axis_angle", "action_dim": 14, "controllers": 2 * lift.controllers})
    assert actions.position_columns(rotvec) == [0, 1, 2, 7, 8, 9]
    assert actions.position_columns(JOINTS) == [0, 1, 2]
    assert actions.moving_columns(JOINTS) == [0, 1]


def test_chunks_are_anchored_to_hands_or_to_measured_joints() -> None:
    assert actions.hand_columns(TASKS["lift"].contract) == [(10, 0), (11, 1), (12, 2)]
    assert actions.hand_columns(JOINTS) == [(4, 0), (5, 1)], "the gripper is no motion"
    assert not actions.can_anchor(JOINTS.model_copy(update={"measured": None}))
    assert not actions.can_anchor(JOINTS.model_copy(update={"action_form": "delta"}))
