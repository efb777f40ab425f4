"""Rounded numbers are read as what they may have been, and every demonstration once."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lfm_envs.human.records import read_records
from lfm_envs.human.triangle import TRIANGLE, Rounded, rigid_motion
from lfm_policy.errors import ConfigError, DataError
from tests.envs.human.records import points, write

RNG = np.random.default_rng(0)


def test_rigid_motions_are_found_again():
    shifts, turns = RNG.normal(size=(20, 3)), Rotation.random(20, rng=np.random.default_rng(1))
    moved = np.stack([turn.apply(TRIANGLE) + shift for turn, shift in zip(turns, shifts, strict=True)])
    found, matrices = rigid_motion(moved)
    np.testing.assert_allclose(found, shifts, atol=1e-12)
    np.testing.assert_allclose(matrices, turns.as_matrix(), atol=1e-12)


def test_what_is_drawn_rounds_to_what_was_written():
    rows = [points(RNG.uniform(-0.9, 0.9, 6) * [1, 1, 1, 0.3, 0.3, 0.3], closed=False) for _ in range(50)]
    rounded = Rounded.of_points(rows, 0.01)
    drawn = rounded.values + rounded.half * np.random.default_rng(3).uniform(-1, 1, rounded.values.shape)
    np.testing.assert_array_equal(np.trunc(100 * drawn), [row[:3] for row in rows])
    # three points of a rigid motion pin it down better than one
    truth = np.array([[0.304, -0.217, 0.055, 0.02, -0.01, 0.04]])
    found = Rounded.of_points([points(truth[0], closed=True)], 0.01)
    np.testing.assert_allclose(found.deltas()[:, :3], truth[:, :3], atol=0.006)
    np.testing.assert_allclose(found.deltas()[:, 3:], truth[:, 3:], atol=0.06)
    assert found.closed.all()


def test_raw_actions_stay_within_their_rounding():
    values = np.round(RNG.uniform(-1, 1, (30, 6)), 2)
    rounded = Rounded(values, np.full(6, 0.005), np.zeros(30, bool), points=False)
    np.testing.assert_array_equal(rounded.deltas(), values)
    drawn = rounded.deltas(np.random.default_rng(0))
    assert 0.004 < np.abs(drawn - values).max() <= 0.005


def _row(**changes):
    common = {"source": "a", "k": 0, "object_pos": [0.01, 0.003, 0.83], "object_quat_xyzw": [0, 0, 0.99, 0.143]}
    full = {
        "object_to_eef_pos": [-0.1, 0, 0.2],
        "precision_m": 0.001,
        "action_keypoints": [points(np.zeros(6), False)] * 6,
    }
    return common | full | changes


def test_a_demonstration_that_is_there_twice_is_taken_once(tmp_path):
    way = {"keypoints": [[[-10, -10, 101], [-6, 0, 101], [-15, 0, 100], 0]] * 3, "keypoint_unit_m": 0.01, "every": 2}
    rounded = {"object_pos": [0.01, 0.0, 0.83], "object_quat_xyzw": [0, 0, 0.99, 0.14], "precision_m": 0.01}
    same = {k: v for k, v in _row(**rounded, **way, source="b").items() if not k.startswith(("action", "object_to"))}
    other = same | {"object_pos": [0.03, -0.02, 0.83], "k": 1}
    records = read_records(write(tmp_path, "lift", [_row(), same, other]), "lift")
    assert [record.name for record in records.each] == ["a/0", "b/1"]
    assert records.repeated == 1
    motion = records.each[1].motion
    assert motion is not None
    assert len(motion.position) == 5
    np.testing.assert_allclose(motion.position, [[-0.105, 0.0, 1.01]] * 5, atol=0.01)
    # the hand looks down
    assert motion.matrix[:, 2, 2].max() < -0.95


def test_says_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="lift, square, can"):
        read_records(tmp_path, "transport")
    with pytest.raises(DataError, match=r"no halil\.json"):
        read_records(tmp_path, "lift")
    row = _row()
    del row["object_pos"]
    with pytest.raises(DataError, match="object_pos"):
        read_records(write(tmp_path, "lift", [row]), "lift")
    with pytest.raises(DataError, match="no can_human_motion"):
        read_records(tmp_path, "can")
