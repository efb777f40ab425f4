"""Episodes are played by the rollout package, bands are made from those that succeed, and alarms are counted."""

import numpy as np
import pytest

from lfm_envs.monitoring import Listener, Trial, judge, kinds_for, played_with, scores_for, traces
from lfm_envs.point_mass import CONTRACT, PointMass
from lfm_envs.tasks import TASKS
from lfm_policy.chunks.monitor import SCORES, Monitor
from lfm_policy.contract import Camera
from lfm_policy.data.windows.store import open_store
from lfm_policy.files import read_json
from lfm_policy.models.density import FlowModel
from lfm_policy.rollout.runner import Runner, RunnerOptions
from tests import seeing
from tests.envs.going import going, looking
from tests.training.runs import point_mass_store

TRIAL = Trial(episodes=8, calibration=16, seed=50, step=3, distance_m=0.5, draws=2, false_alarms=0.3, updates=200)


@pytest.fixture(scope="module")
def policy():
    return going()


def test_undisturbed_episodes_are_those_of_the_runner(policy):
    played = list(played_with("none", range(3), policy, "point_mass", TRIAL))
    expected = Runner(policy, PointMass, RunnerOptions(workers=1, policy_in="parent")).run(range(3))
    assert [p.result.digest for p in played] == [result.digest for result in expected]
    for episode in played:
        assert episode.result.success
        assert len(episode.steps) == len(episode.histories) == len(episode.chunks) == episode.result.chunks - 1
        assert all(episode.steps == policy.action_steps * np.arange(1, episode.result.chunks))


def test_what_is_judged_is_the_promise(policy):
    heard = Listener(policy)
    (played,) = played_with("none", range(4, 5), heard, "point_mass", TRIAL)
    # the planner asks twice the first time
    first, second = heard.chunks[-played.result.chunks :][:2]
    kept = len(first) - policy.action_steps
    np.testing.assert_array_equal(played.chunks[0], np.concatenate([first[policy.action_steps :], second[kept:]]))


def test_every_score_has_its_band_and_its_share_of_alarms(policy, tmp_path):
    store = open_store(point_mass_store(tmp_path / "points.zarr"))
    found = judge(policy, store, "point_mass", TRIAL, tmp_path / "out")
    assert found["calibration"] == {"episodes": 16, "successes": 16}
    assert set(found["scores"]) == set(SCORES) == set(read_json(tmp_path / "out" / "bands.json"))
    assert isinstance(FlowModel.from_pretrained(tmp_path / "out" / "observations"), FlowModel)
    for score in found["scores"].values():
        assert set(score["disturbances"]) == {"moved", "order", "frozen", "noisy"}
        assert score["false_alarms"]["of"] == 8
        for row in score["disturbances"].values():
            low, high = row["interval"]
            assert 0 <= low < high <= 1
            assert row["noticed"] <= row["episodes"] == 8
    # who promises to go to one goal and sees another is told by its own density
    moved = found["scores"]["density"]["disturbances"]["moved"]
    assert moved["noticed"] == 8
    assert moved["steps_to_alarm"] <= policy.action_steps
    assert moved["balanced_accuracy"] > 0.8


def test_a_policy_with_cameras_is_judged_by_what_it_sees(tmp_path):
    seen, where = looking(), "tests.seeing:made"
    found = judge(seen, open_store(seeing.store(tmp_path / "seen.zarr")), where, TRIAL, tmp_path / "out")
    assert set(found["scores"]) == set(SCORES)
    assert set(found["scores"]["residual"]["disturbances"]) == {"moved", "order", "frozen", "noisy", "occluded"}
    # who promises to go to the ring that it saw, and sees none, is told by the residual; those who still see it are not
    monitor = Monitor(seen, "residual", TRIAL.draws)
    calm, covered = (list(played_with(kind, range(50, 66), seen, where, TRIAL)) for kind in ("none", "occluded"))
    levels = [trace.scores.max() for trace in traces(monitor, calm) if len(trace.scores)]
    blind = [not _green(played.frames[0]) for played in covered if len(played.steps)]
    first = [trace.scores[0] for trace in traces(monitor, covered) if len(trace.scores)]
    assert any(blind)
    assert min(score for score, hidden in zip(first, blind, strict=True) if hidden) > max(levels)
    assert found["scores"]["residual"]["ms"] > 0


def _green(frames: np.ndarray) -> bool:
    """Say whether the ring is anywhere in the first camera's picture."""
    return bool((frames[0, ..., 1].astype(int) - frames[0, ..., 0] > 20).any())


def test_what_there_is_to_judge(policy):
    assert kinds_for(CONTRACT) == ["none", "moved", "order", "frozen", "noisy"]
    assert "loose" in kinds_for(TASKS["lift"].contract)
    eyes = tuple(Camera(name=name, height=84, width=84) for name in TASKS["lift"].cameras)
    assert {"occluded", "swapped"} < set(kinds_for(TASKS["lift"].view(eyes, objects=False)))
    assert scores_for(policy) == list(SCORES)
    assert scores_for(going(method="euler", steps=1)) == ["variance", "logpzo"]
