"""Absolute end-effector actions: position [m] 3, rotation 6 (the first two rows of the matrix), gripper 1.

Plain numpy, float64 inside: the simulator's workers and the deployment side use it without torch. An
axis-angle ("rotvec") is the rotation axis times the angle [rad].
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfm_policy.contract import Contract
from lfm_policy.errors import ContractError

Array = NDArray[np.floating]

ARM_WIDTH = 10
"""Numbers per arm in an absolute action: position [m] 3, first two rows of the rotation matrix 6, gripper 1."""
DELTA_WIDTH = 7
"""Numbers per arm in a delta action: position 3, rotation 3, gripper 1, all in [-1, 1]."""


def hand_columns(contract: Contract) -> list[tuple[int, int]]:
    """Find what chunks can be anchored to: pairs of (observation column, action column).

    Of poses, each hand's observed and commanded position; of other actions, each number that the contract says to be
    measured, grippers aside.

    Raises:
        ContractError: the actions are not absolute, or what they command is not observed.
    """
    places = contract.columns
    if contract.action_form == "absolute" and contract.measured in places:
        first = places[contract.measured].start
        return [(first + column, column) for column in range(contract.action_dim) if column not in contract.grippers]
    wanted = [f"robot{arm}_eef_pos" for arm in range(contract.arms)]
    if contract.action_form != "absolute" or not contract.poses or not set(wanted) <= set(places):
        raise ContractError(
            f"anchored chunks need absolute poses and the observations {wanted or 'robot0_eef_pos'}, or 'measured' in "
            f"the contract; found {contract.action_form} actions of '{contract.space}' and the observations "
            f"{list(places)}: use data.anchored=false"
        )
    width = contract.arm_width
    return [(places[name].start + axis, arm * width + axis) for arm, name in enumerate(wanted) for axis in range(3)]


def can_anchor(contract: Contract) -> bool:
    """Say whether `hand_columns` finds something."""
    try:
        return bool(hand_columns(contract))
    except ContractError:
        return False


def position_columns(contract: Contract) -> list[int]:
    """Find the columns of an action that are scaled to their range: positions in space, or any number of no pose."""
    if not contract.poses:
        return list(range(contract.action_dim))
    return [arm + axis for arm in range(0, contract.action_dim, contract.arm_width) for axis in range(3)]


def moving_columns(contract: Contract) -> list[int]:
    """Find the columns of an action that command motion: all but grippers."""
    grippers = contract.grippers
    return [column for column in range(contract.action_dim) if column not in grippers]


def matrix_to_rot6d(matrix: ArrayLike) -> Array:
    """Return the first two rows of a rotation matrix: (..., 3, 3) -> (..., 6)."""
    matrix = np.asarray(matrix)
    return matrix[..., :2, :].reshape(*matrix.shape[:-2], 6)


def rot6d_to_matrix(rot6d: ArrayLike) -> Array:
    """Return the rotation nearest in Gram-Schmidt's sense to two row vectors: (..., 6) -> (..., 3, 3)."""
    rows = np.asarray(rot6d, dtype=np.float64)
    first = _unit(rows[..., :3])
    second = rows[..., 3:]
    second = _unit(second - np.sum(first * second, axis=-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-2)


def rotvec_to_matrix(rotvec: ArrayLike) -> Array:
    """Turn axis-angle (..., 3) [rad] into a rotation matrix (..., 3, 3)."""
    rotvec = np.asarray(rotvec, dtype=np.float64)
    from scipy.spatial.transform import Rotation  # half a second, which asking for help should not wait for

    return Rotation.from_rotvec(rotvec.reshape(-1, 3)).as_matrix().reshape(*rotvec.shape, 3)


def matrix_to_rotvec(matrix: ArrayLike) -> Array:
    """Turn a rotation matrix (..., 3, 3) into axis-angle (..., 3) [rad], the angle in [0, π]."""
    matrix = np.asarray(matrix, dtype=np.float64)
    from scipy.spatial.transform import Rotation  # half a second, which asking for help should not wait for

    return Rotation.from_matrix(matrix.reshape(-1, 3, 3)).as_rotvec().reshape(matrix.shape[:-1])


def encode_absolute(position: ArrayLike, matrix: ArrayLike, gripper: ArrayLike) -> Array:
    """Make an arm's action of position (..., 3) [m], rotation matrix (..., 3, 3) and gripper (..., 1): (..., 10)."""
    return np.concatenate([np.asarray(position), matrix_to_rot6d(matrix), np.asarray(gripper)], axis=-1)


def decode_absolute(action: ArrayLike) -> tuple[Array, Array, Array]:
    """Invert `encode_absolute`; predicted rotations are orthonormalised.

    Raises:
        ValueError: the last axis is not ARM_WIDTH wide.
    """
    action = np.asarray(action)
    if action.shape[-1] != ARM_WIDTH:
        raise ValueError(f"one arm's absolute action has {ARM_WIDTH} numbers, found shape {action.shape}")
    return action[..., :3], rot6d_to_matrix(action[..., 3:9]), action[..., 9:]


def rotation_distance(a: ArrayLike, b: ArrayLike) -> Array:
    """Return the angle between rotations a and b, (..., 3, 3) each: (...,) [rad]."""
    relative = np.swapaxes(np.asarray(a), -1, -2) @ np.asarray(b)
    return np.asarray(np.linalg.norm(matrix_to_rotvec(relative), axis=-1))


def _unit(vector: Array) -> Array:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)
