"""Demonstrations from motion alone: where a can was grasped is found again, and the motion followed."""

import importlib.util

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import lfm_envs
from lfm_envs.episodes import perform
from lfm_envs.experts import expert
from lfm_envs.experts.base import Hand, Pose, up
from lfm_envs.reconstruct import BASE, GUESSES, follow, place, read_motions, reconstruct
from lfm_policy.errors import DataError

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]

SEED = 11


@pytest.fixture(scope="module")
def can():
    env = lfm_envs.make("robosuite/can")
    yield env
    env.close()


@pytest.fixture(scope="module")
def archive(can, tmp_path_factory):
    """The motion of the scripted expert, in the archive's form, and where the can stood."""
    episode = perform(can, expert("can"), SEED)
    assert episode.success
    path = tmp_path_factory.mktemp("motion") / "motion.npz"
    poses, joints = [], []
    for step in episode.steps:
        can.move_to(step["states"])
        position, matrix = can.grip_poses()[0]
        poses.append([*(position - can.arms[0].origin_pos + BASE), *Rotation.from_matrix(matrix).as_quat()])
        joints.append(can.simulation.sim.data.qpos[:7].copy())
    fingers = np.array([step["actions"][6] < 0 for step in episode.steps], dtype=np.float32)
    np.savez(path, **{"000/source/pos": poses, "000/source/grip": fingers, "000/Panda/joint_angles": joints})
    return path, episode.observations[0]["object"][7:10]


def test_the_can_is_put_where_it_stood_and_carried_again(can, archive):
    path, stood = archive
    (motion,) = read_motions(path)
    observation = place(can, motion, GUESSES[0], seed=3)
    np.testing.assert_allclose(observation["object"][7:9], stood[:2], atol=0.012)
    np.testing.assert_allclose(observation["object"][9], stood[2], atol=1e-3)
    # as in every episode, the can's pose relative to the hand is there from the first observation on
    assert np.linalg.norm(observation["object"][:3]) == pytest.approx(
        np.linalg.norm(observation["object"][7:10] - observation["robot0_eef_pos"]), abs=1e-6
    )
    episode, guess = reconstruct(can, motion, seed=3)
    assert episode.success
    assert guess == 0
    assert all(np.array_equal(step["actions"], step["actions_executed"]) for step in episode.steps)
    reached = np.array([observation["robot0_eef_pos"] for observation in episode.observations])[: len(motion.position)]
    asked = motion.position + can.arms[0].origin_pos
    assert np.median(np.linalg.norm(reached - asked, axis=1)) < 0.01


def test_following_arrives_a_step_later(can):
    can.reset(0)
    hand = Hand(can)
    start = hand.pose
    for step in range(1, 30):
        # a smooth start, then 6 mm a step upwards
        target = Pose(start.position + up(0.006 * step * min(1, step / 10)), start.matrix)
        can.step_delta(follow(can, hand, target, -1.0).action)
        assert hand.error(target)[0] < 0.01  # a plain servo of gain 1.6 lags by 17 mm
        assert hand.error(target)[1] < 0.03


def test_bad_archives(tmp_path):
    with pytest.raises(DataError, match="no motion archive"):
        read_motions(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", **{"000/source/pos": np.zeros((3, 7))})
    with pytest.raises(DataError, match="source/grip"):
        read_motions(tmp_path / "other.npz")
    with h5py.File(tmp_path / "file.npz", "w"):
        pass
    with pytest.raises(DataError, match="cannot be read"):
        read_motions(tmp_path / "file.npz")
