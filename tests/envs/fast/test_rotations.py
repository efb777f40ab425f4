"""Commands' rotations are the bits of numpy and scipy, whatever they are."""

import importlib.util

import numpy as np
import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("robosuite is not installed", allow_module_level=True)

from scipy.spatial.transform import Rotation

from lfm_envs.fast.rotations import _axis_angles, to_axis_angle, to_matrix
from lfm_policy.actions.poses import decode_absolute, matrix_to_rot6d, matrix_to_rotvec

pytestmark = pytest.mark.sim


def reference(action, arms):
    position, matrix, gripper = decode_absolute(action.reshape(arms, 10))
    return np.concatenate([position, matrix_to_rotvec(matrix), gripper], axis=-1).ravel()


def turns(count):
    """Axis-angles of every size: none, tiny, those around scipy's series, half turns, and about single axes."""
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((count, 3))
    axes[::7] = np.eye(3)[rng.integers(0, 3, len(axes[::7]))]
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    sizes = np.concatenate([[0, 1e-300, 1e-3, np.pi, -np.pi], 10 ** rng.uniform(-9, 0.6, count - 5)])
    return axes * sizes[:, None]


@pytest.mark.parametrize("exact", [True, False])
def test_actions_become_axis_angles(exact):
    """Of exact rotations, and of rows as a policy predicts them: of other lengths, not at right angles."""
    rng = np.random.default_rng(1)
    rows = matrix_to_rot6d(Rotation.from_rotvec(turns(20_000)).as_matrix())
    if not exact:
        rows = rows * rng.uniform(0.5, 1.5, (len(rows), 1)) + rng.normal(0, 0.05, rows.shape)
    actions = np.concatenate([rng.standard_normal((len(rows), 3)), rows, rng.choice([-1.0, 1.0], (len(rows), 1))], 1)
    for action in actions.reshape(-1, 20):
        np.testing.assert_array_equal(to_axis_angle(action, 2), reference(action, 2))


def test_rows_that_are_nearly_parallel_are_left_to_scipy():
    action = np.array([0.1, 0.2, 0.3, 1, 2, 3, 1 + 1e-9, 2, 3 - 3e-9, -1])
    assert not _axis_angles(action[None], np.empty((1, 7)))
    np.testing.assert_array_equal(to_axis_angle(action, 1), reference(action, 1))


def test_rows_of_zeros_are_refused_as_scipy_does():
    with pytest.raises(ValueError, match="determinant"):
        to_axis_angle(np.zeros(10), 1)


def test_axis_angles_become_matrices():
    for turn in turns(20_000):
        np.testing.assert_array_equal(to_matrix(turn), Rotation.from_rotvec(turn).as_matrix())
