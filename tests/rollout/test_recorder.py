"""Recorded rollouts: what is in the data set happens again when its actions are executed."""

from pathlib import Path

import numpy as np
import pytest

from lfm_envs.point_mass import PointMass
from lfm_policy.contract import Camera, Contract
from lfm_policy.errors import RolloutError
from lfm_policy.protocols import ChunkBatch
from lfm_policy.rollout.evaluation import Evaluation, run
from lfm_policy.rollout.runner import RunnerOptions
from tests.rollout.scripted import Straight
from tests.seeing import CONTRACT as SEEING
from tests.seeing import SeeingPointMass

pytest.importorskip("pyarrow", reason="LeRobot data sets need the extra lerobot (pyarrow)")
pytest.importorskip("av", reason="LeRobot data sets need the extra lerobot (av)")

from lfm_policy.data.lerobot.prepare import prepare
from lfm_policy.data.lerobot.read import open_dataset
from lfm_policy.rollout.recorder import PARTS, Recorder

SEEDS = range(100, 105)


def evaluation(noise_m: float = 0.1) -> Evaluation:
    return Evaluation(Straight(noise_m), PointMass, {"environment": "point_mass"}, options=RunnerOptions(workers=1))


def test_an_interrupted_evaluation_is_recorded_as_a_whole(tmp_path: Path) -> None:
    """Its first episodes were played when nobody recorded."""
    asked = evaluation()
    run(asked, SEEDS[:2], tmp_path)
    recorder = Recorder(tmp_path)
    results = run(asked, SEEDS, tmp_path, subscribers=[recorder])
    assert sorted(path.stem for path in (tmp_path / PARTS).iterdir()) == ["102", "103", "104"]
    data = open_dataset(recorder.write(asked, results, tmp_path))
    assert not (tmp_path / PARTS).exists()
    assert data.contract == asked.policy.contract
    env, outcomes = PointMass(), {result.seed: result.success for result in results}
    assert set(outcomes.values()) == {True, False}
    for (episode, success), seed in zip(data.episodes(data.contract), SEEDS, strict=True):
        observation = env.reset(seed)
        for row, action in zip(episode.observation, episode.action, strict=True):
            np.testing.assert_allclose(env.contract.flatten(observation), row, atol=1e-6)  # actions are float32
            result = env.step(action)
            observation = result.observation
        assert result.success == success == outcomes[seed]
    before = (tmp_path / "rollouts" / "meta" / "info.json").stat().st_mtime_ns
    Recorder(tmp_path).write(asked, results, tmp_path)
    assert (tmp_path / "rollouts" / "meta" / "info.json").stat().st_mtime_ns == before
    summary = prepare([tmp_path / "rollouts"], tmp_path / "d.zarr")
    assert summary["sources"][0]["failures"] == list(outcomes.values()).count(False)


SHARP = Contract.model_validate(dict(SEEING) | {"cameras": (Camera(name="above", height=96, width=96),)})


class Sharp(SeeingPointMass):
    """Sees three pixels and more where the point moves in one step."""

    contract = SHARP

    def look(self) -> dict[str, np.ndarray]:
        return {"above_image": self.render(96, 96)}


def point(picture: np.ndarray) -> np.ndarray:
    """Where the dark disc is, in pixels."""
    return np.argwhere(picture.max(axis=-1) < 110).mean(axis=0)


class Wandering(Straight):
    """Goes wherever the noise says, and has eyes."""

    contract = SHARP

    def predict(self, histories: np.ndarray, noise: np.ndarray, frames: np.ndarray | None = None) -> ChunkBatch:
        return ChunkBatch(histories[:, -1, None, :2] + 0.3 * noise, nfe=1)


def test_pictures_are_those_that_the_actions_lead_to(tmp_path: Path) -> None:
    asked = Evaluation(Wandering(), Sharp, {"environment": "seeing"}, options=RunnerOptions(workers=1))
    recorder = Recorder(tmp_path)
    data = open_dataset(recorder.write(asked, run(asked, [7], tmp_path, subscribers=[recorder]), tmp_path))
    assert data.contract == SHARP
    env = Sharp()
    env.reset(7)
    (episode, _), *others = data.episodes(data.contract)
    assert not others
    assert episode.frames is not None
    for frame, action in zip(episode.frames, episode.action, strict=True):
        assert np.abs(point(frame[0]) - point(env.look()["above_image"])).max() < 1
        env.step(action)


def test_what_goes_differently_is_not_passed_off_as_what_was_counted(tmp_path: Path) -> None:
    results = run(evaluation(), SEEDS[:1], tmp_path)
    with pytest.raises(RolloutError, match=r"seeds \[100\] go differently"):
        Recorder(tmp_path).write(evaluation(noise_m=0.2), results, tmp_path)
