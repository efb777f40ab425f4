"""Following a hand's way: where a can was grasped is found again, and the motion is followed."""

import importlib.util

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import lfm_envs
from lfm_envs.episodes import perform, record
from lfm_envs.experts import expert
from lfm_envs.experts.base import Hand, Pose, up
from lfm_envs.human.motion import read_motions
from lfm_envs.human.records import read_records
from lfm_envs.human.tracking import LEADS, attempts, follow, place
from lfm_envs.human.tracking import perform as again
from lfm_policy.errors import DataError
from tests.envs.human.records import OFFSET, write

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]

SEED = 11
MEASURED = 4
"""Steps by which the fingers move later than they are told to, in human files."""


@pytest.fixture(scope="module")
def can():
    env = lfm_envs.make("robosuite/can")
    yield env
    env.close()


@pytest.fixture(scope="module")
def folder(can, tmp_path_factory):
    """The motion of the scripted expert, in the records' form, and where the can stood."""
    episode = perform(can, expert("can"), SEED)
    assert episode.success
    folder = tmp_path_factory.mktemp("motion")
    poses, joints = [], []
    for step in episode.steps:
        can.move_to(step["states"])
        position, matrix = can.grip_poses()[0]
        poses.append([*(position - OFFSET), *Rotation.from_matrix(matrix).as_quat()])
        joints.append(can.simulation.sim.data.qpos[:7].copy())
    told = np.array([step["actions"][6] < 0 for step in episode.steps], dtype=np.float32)
    fingers = np.concatenate([np.repeat(told[:1], MEASURED), told[:-MEASURED]])
    arrays = {"000/source/pos": poses, "000/source/grip": fingers, "000/Panda/joint_angles": joints}
    np.savez(folder / "can_human_motion.npz", **arrays)
    stood = episode.observations[0]["object"][7:10]
    return write(folder, "can", [], [np.round(stood, 3).tolist(), [0.5, 0.5, 0.86]]), stood


def test_the_can_is_put_where_it_stood_and_carried_again(can, folder):
    source, stood = folder
    (human,) = read_records(source, "can").each
    assert [spot.how for spot in human.spots] == ["matched", "grasped"]
    np.testing.assert_allclose(human.spots[1].position, stood[:2], atol=0.012)
    attempt = next(attempts(human, 6))
    rng = np.random.default_rng(0)
    observation = place(can, human, attempt, 3, rng)
    np.testing.assert_allclose(observation["object"][7:10], stood, atol=1e-3)
    # as in every episode, the can's pose relative to the hand is there from the first observation on
    assert np.linalg.norm(observation["object"][:3]) == pytest.approx(
        np.linalg.norm(observation["object"][7:10] - observation["robot0_eef_pos"]), abs=1e-6
    )
    episode = record(can, observation, again(can, human, attempt, rng), 3, rng, noise=0.0)
    assert episode.success
    assert all(np.array_equal(step["actions"], step["actions_executed"]) for step in episode.steps)
    reached = np.array([seen["robot0_eef_pos"] for seen in episode.observations])[: len(human.motion.position)]
    assert np.median(np.linalg.norm(reached - human.motion.position, axis=1)) < 0.01


def test_attempts_are_bounded_and_begin_with_what_was_written(folder):
    (human,) = read_records(folder[0], "can").each
    tried = list(attempts(human, 10))
    assert len(tried) == 10
    assert [(attempt.spot.how, attempt.lead) for attempt in tried[:6]] == [
        (how, lead) for how in ("matched", "grasped") for lead in LEADS
    ]
    assert [attempt.number for attempt in tried] == [0] * 6 + [1] * 4


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
    np.savez(tmp_path / "other.npz", **{"000/source/pos": np.zeros((3, 7))})
    with pytest.raises(DataError, match="source/grip"):
        read_motions(tmp_path / "other.npz", np.zeros(3))
    with h5py.File(tmp_path / "file.npz", "w"):
        pass
    with pytest.raises(DataError, match="cannot be read"):
        read_motions(tmp_path / "file.npz", np.zeros(3))
