"""An episode that was written down rounded is done again, and the file says what it is."""

import importlib.util
import json

import h5py
import pytest

import lfm_envs
from lfm_envs.episodes import perform
from lfm_envs.experts import expert
from lfm_envs.human.rebuild import Rebuilding, rebuild
from lfm_policy.errors import ConfigError, RolloutError
from tests.envs.human.records import lift_row, write

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]


@pytest.fixture(scope="module")
def row():
    env = lfm_envs.make("robosuite/lift")
    episode = perform(env, expert("lift"), 3, noise=0.0)
    env.close()
    assert episode.success
    return lift_row(episode)


def without_grasp(row):
    """The same record of a hand that never closes."""
    return row | {"k": 1, "action_keypoints": [[*keypoints[:3], 0] for keypoints in row["action_keypoints"]]}


def test_a_rounded_episode_of_lift_succeeds_again(row, tmp_path):
    source = write(tmp_path / "records", "lift", [row, without_grasp(row)])
    summary = rebuild(Rebuilding("lift", tries=2), source, tmp_path / "out", workers=1)
    assert (summary["kept"], summary["records"], summary["failed"]) == (1, 2, ["scripted/1"])
    with h5py.File(summary["file"]) as file:
        about = file["data"].attrs
        assert json.loads(about["source"]) == "reconstructed from human Lift actions"
        assert "not robomimic's" in json.loads(about["provenance"])
        assert json.loads(about["rebuilt"])["kept"] == 1
        assert len(file["data/demo_0/actions"]) >= len(row["action_keypoints"])
    # again: nothing is done anew; another seed would be other demonstrations
    assert rebuild(Rebuilding("lift", tries=2), source, tmp_path / "out", workers=1) == summary
    with pytest.raises(ConfigError, match="other demonstrations"):
        rebuild(Rebuilding("lift", tries=2, seed=1), source, tmp_path / "out", workers=1)


@pytest.mark.slow
def test_none_succeeds(row, tmp_path):
    source = write(tmp_path, "lift", [without_grasp(row)])
    with pytest.raises(RolloutError, match="none of 1 records"):
        rebuild(Rebuilding("lift", tries=1), source, tmp_path / "out", workers=1)
