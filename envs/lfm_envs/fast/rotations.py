"""Rotations of commands in compiled code: the bits of numpy and `scipy.spatial.transform`, which take most of a
step's Python time to look at what they are given.
"""

import math

import numpy as np

from lfm_policy.actions.poses import ARM_WIDTH, DELTA_WIDTH, decode_absolute, matrix_to_rotvec
from lfm_policy.compiled import compiled

_SURE = 1e-13
"""How far from a rotation a matrix may be that scipy surely takes as it is; others it makes one first."""
_SMALL = 1e-3
"""Angles up to this one are treated by scipy's series [rad]."""


def to_axis_angle(action: np.ndarray, arms: int) -> np.ndarray:
    """Write an absolute action (10 * arms,) as robomimic's `actions_abs` and robosuite's controller: (7 * arms,)."""
    rows, found = action.reshape(arms, ARM_WIDTH), np.empty((arms, DELTA_WIDTH))
    if not _axis_angles(rows, found):
        position, matrix, gripper = decode_absolute(rows)
        np.concatenate([position, matrix_to_rotvec(matrix), gripper], axis=-1, out=found)
    return found.ravel()


@compiled
def _axis_angles(rows, found):
    """Turn rows of position 3, rotation 6 and gripper 1 into `found`; False where that is better left to scipy."""
    matrix, quaternion = np.empty((3, 3)), np.empty(4)
    for row in range(len(rows)):
        _orthonormal(rows[row, 3:9], matrix)
        if not _is_rotation(matrix):
            return False
        _to_quaternion(matrix, quaternion)
        found[row, :3], found[row, 6] = rows[row, :3], rows[row, 9]
        _to_axis_angle(quaternion, found[row, 3:6])
    return True


@compiled
def _orthonormal(two, matrix):
    """Do what `poses.rot6d_to_matrix` does to one rotation."""
    _unit(two[:3], matrix[0])
    first = matrix[0]
    along = (first[0] * two[3] + first[1] * two[4]) + first[2] * two[5]
    for axis in range(3):
        matrix[2, axis] = two[3 + axis] - along * first[axis]
    _unit(matrix[2], matrix[1])
    second = matrix[1]
    for axis in range(3):
        j, k = (axis + 1) % 3, (axis + 2) % 3
        matrix[2, axis] = first[j] * second[k] - first[k] * second[j]


@compiled
def _unit(vector, out):
    size = max(math.sqrt((vector[0] * vector[0] + vector[1] * vector[1]) + vector[2] * vector[2]), 1e-12)
    for axis in range(3):
        out[axis] = vector[axis] / size


@compiled
def _is_rotation(matrix):
    for i in range(3):
        for j in range(i + 1):
            product = matrix[i, 0] * matrix[j, 0] + matrix[i, 1] * matrix[j, 1] + matrix[i, 2] * matrix[j, 2]
            if not abs(product - (i == j)) < _SURE:
                return False
    return True


@compiled
def _to_quaternion(matrix, quaternion):
    trace = matrix[0, 0] + matrix[1, 1] + matrix[2, 2]
    i, largest = 0, matrix[0, 0]
    for axis in range(1, 3):
        if matrix[axis, axis] > largest:
            i, largest = axis, matrix[axis, axis]
    j, k = (i + 1) % 3, (i + 2) % 3
    if trace > largest:
        quaternion[0] = matrix[2, 1] - matrix[1, 2]
        quaternion[1] = matrix[0, 2] - matrix[2, 0]
        quaternion[2] = matrix[1, 0] - matrix[0, 1]
        quaternion[3] = 1 + trace
    else:
        quaternion[i] = 1 - trace + 2 * matrix[i, i]
        quaternion[j] = matrix[j, i] + matrix[i, j]
        quaternion[k] = matrix[k, i] + matrix[i, k]
        quaternion[3] = matrix[k, j] - matrix[j, k]
    size = math.sqrt(quaternion[0] ** 2 + quaternion[1] ** 2 + quaternion[2] ** 2 + quaternion[3] ** 2)
    for place in range(4):
        quaternion[place] /= size


@compiled
def _to_axis_angle(quaternion, out):
    x, y, z, w = quaternion[0], quaternion[1], quaternion[2], quaternion[3]
    if w < 0 or (w == 0 and (x < 0 or (x == 0 and (y < 0 or (y == 0 and z < 0))))):
        x, y, z, w = -x, -y, -z, -w
    angle = 2 * math.atan2(math.sqrt(x * x + y * y + z * z), w)
    if angle <= _SMALL:
        square = angle * angle
        scale = 2 + square / 12 + 7 * square * square / 2880
    else:
        scale = angle / math.sin(angle / 2)
    out[0], out[1], out[2] = scale * x, scale * y, scale * z


@compiled
def to_matrix(turn):
    """Turn axis-angle (3,) [rad] into a rotation matrix (3, 3), the bits of scipy's `from_rotvec` and `as_matrix`."""
    angle = math.sqrt(turn[0] * turn[0] + turn[1] * turn[1] + turn[2] * turn[2])
    if angle <= _SMALL:
        square = angle * angle
        scale = 0.5 - square / 48 + square * square / 3840
    else:
        scale = math.sin(angle / 2) / angle
    x, y, z, w = scale * turn[0], scale * turn[1], scale * turn[2], math.cos(angle / 2)
    matrix = np.empty((3, 3))
    matrix[0, 0] = x * x - y * y - z * z + w * w
    matrix[1, 0] = 2 * (x * y + z * w)
    matrix[2, 0] = 2 * (x * z - y * w)
    matrix[0, 1] = 2 * (x * y - z * w)
    matrix[1, 1] = -(x * x) + y * y - z * z + w * w
    matrix[2, 1] = 2 * (y * z + x * w)
    matrix[0, 2] = 2 * (x * z + y * w)
    matrix[1, 2] = 2 * (y * z - x * w)
    matrix[2, 2] = -(x * x) - y * y + z * z + w * w
    return matrix
