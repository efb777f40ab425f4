"""What is written for LeRobot: its statistics, its tables, and that nothing is left of what was not finished."""

import json
from pathlib import Path

import numpy as np
import pytest

from lfm_policy.contract import Camera, Contract, ObservationKey
from lfm_policy.errors import ContractError, DataError
from tests.contracts import JOINTS
from tests.data.lerobot.recorded import episodes, record

pytest.importorskip("pyarrow", reason="LeRobot data sets need the extra lerobot (pyarrow)")
pytest.importorskip("av", reason="LeRobot data sets need the extra lerobot (av)")

import pyarrow.parquet as pq

from lfm_policy.data.lerobot import write
from lfm_policy.data.lerobot.statistics import QUANTILES, joined, of_numbers, of_pictures

SEEN = Contract.model_validate(dict(JOINTS) | {"cameras": (Camera(name="top", height=33, width=32),)})


def test_statistics_of_all_are_those_of_the_rows(tmp_path: Path) -> None:
    made = record(tmp_path / "data", JOINTS)
    stats = json.loads((tmp_path / "data" / "meta" / "stats.json").read_text())
    actions = np.concatenate([episode.action for episode in made]).astype(np.float64)
    for name, expected in {"mean": actions.mean(0), "std": actions.std(0), "min": actions.min(0)}.items():
        np.testing.assert_allclose(stats["action"][name], expected, rtol=1e-6)
    assert stats["action"]["count"] == [len(actions)]
    assert stats["timestamp"]["max"] == [pytest.approx(29 / 30)]
    assert set(stats["action"]) == {"min", "max", "mean", "std", "count", *QUANTILES}
    assert {*JOINTS.columns, "action", "index"} <= set(stats)


def test_statistics_of_one_episode_are_known_answers() -> None:
    found = of_numbers(np.array([[0.0], [1.0], [2.0], [3.0]]))
    assert (found["mean"], found["q50"], found["std"], found["count"]) == ([1.5], [1.5], [np.sqrt(1.25)], [4])
    both = joined([found, of_numbers(np.array([[10.0], [10.0]]))])
    assert both["mean"] == pytest.approx(26 / 6)
    assert both["std"] == pytest.approx(np.std([0, 1, 2, 3, 10, 10]))
    grey = of_pictures(np.full((5, 8, 8, 3), 51, np.uint8))
    assert (grey["mean"].shape, grey["mean"].ravel()[0], grey["count"]) == ((3, 1, 1), pytest.approx(0.2), [5])


def test_full_files_are_followed_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two files; rows, table and videos each begin anew at their limit."""
    for name, value in (("DATA_MB", 0), ("VIDEO_MB", 0), ("CHUNKS_SIZE", 2)):
        monkeypatch.setattr(write.layout, name, value)
    monkeypatch.setattr(write, "NOTED", 1)
    made = record(tmp_path / "data", SEEN)
    names = {str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("chunk-*/*")}
    files = [f"chunk-{n // 2:03d}/file-{n % 2:03d}" for n in range(3)]
    folders = {"data": "parquet", "meta/episodes": "parquet", "videos/observation.images.top": "mp4"}
    assert names == {f"{folder}/{file}.{end}" for folder, end in folders.items() for file in files}
    from lfm_policy.data.lerobot.read import open_dataset

    data = open_dataset(tmp_path / "data")
    read = [episode for episode, _ in data.episodes(data.contract)]
    for ours, theirs in zip(made, read, strict=True):
        np.testing.assert_array_equal(ours.action, theirs.action)
        assert np.abs(ours.frames.astype(int) - theirs.frames).max() <= 2  # type: ignore[union-attr]


def test_indices_and_times_are_those_of_lerobot(tmp_path: Path) -> None:
    record(tmp_path / "data", JOINTS, (3, 2))
    rows = pq.read_table(tmp_path / "data/data/chunk-000/file-000.parquet").to_pydict()
    assert (rows["index"], rows["frame_index"]) == ([0, 1, 2, 3, 4], [0, 1, 2, 0, 1])
    assert (rows["episode_index"], rows["task_index"]) == ([0, 0, 0, 1, 1], [0] * 5)
    np.testing.assert_array_equal(rows["timestamp"], np.array([0, 1 / 30, 2 / 30, 0, 1 / 30], np.float32))


def test_nothing_is_left_of_what_was_not_finished(tmp_path: Path) -> None:
    def interrupted() -> None:
        with write.new_dataset(tmp_path / "data", SEEN) as writer:
            writer.add(episodes(SEEN)[0], "reach")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="no episode to write"), write.new_dataset(tmp_path / "data", SEEN):
        pass
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="is no LeRobot data set"):
        record(tmp_path / "other", JOINTS)


def test_names_that_lerobot_cannot_have(tmp_path: Path) -> None:
    named = Contract.model_validate(
        dict(JOINTS) | {"observations": (ObservationKey(name="observation.a/b", dim=3),), "measured": None}
    )
    with pytest.raises(ContractError, match="no / in their names"):
        record(tmp_path / "data", named)
