import numpy as np
import pytest

from lfm_policy.chunks.timeline import Timeline, complete


def chunk(number: int, length: int = 8) -> np.ndarray:
    return (100.0 * number + np.arange(length))[:, None] * np.ones(2)


def values(timeline: Timeline, steps: range) -> list[float | None]:
    return [None if (action := timeline.at(step)) is None else float(action[0]) for step in steps]


def test_rows_belong_to_the_steps_from_the_oldest_observation_on():
    timeline = Timeline(observation_steps=3)
    assert timeline.at(0) is None
    assert timeline.add(chunk(0), step=10) == 0
    assert values(timeline, range(10, 18)) == [2, 3, 4, 5, 6, 7, None, None]


def test_late_actions_are_dropped_and_counted():
    timeline = Timeline(2)
    timeline.add(chunk(0), 0)
    assert timeline.add(chunk(1), step=2, arrival=5) == 3
    assert values(timeline, range(2, 10)) == [3, 4, 5, 104, 105, 106, 107, None]
    assert timeline.add(chunk(2), step=10, arrival=30) == 7, "a chunk that comes when all of it is over"
    assert timeline.at(30) is None


@pytest.mark.parametrize("late", [0, 2])
def test_ensemble_neither_begins_nor_ends_with_a_jump(late):
    timeline = Timeline(1, "ensemble")
    timeline.add(np.zeros((20, 1)), 0)
    timeline.add(np.ones((20, 1)), 10, arrival=10 + late)
    blend = np.array([timeline.at(step)[0] for step in range(9, 22)])
    assert blend[0] == 0
    assert blend[-1] == 1
    assert np.abs(np.diff(blend)).max() < 0.25, "a switch jumps by 1"


def test_the_running_chunk_is_shifted_and_ends_standing():
    timeline = Timeline(2, "warm")
    assert timeline.running(0) is None
    timeline.add(chunk(0), 0)
    assert timeline.running(4)[:, 0].tolist() == [4, 5, 6, 7, 7, 7, 7, 7]
    assert timeline.running(7) is None
    timeline.clear()
    assert timeline.at(0) is None


def test_a_promise_is_completed_by_the_fresh_chunk():
    timeline = Timeline(2)
    timeline.add(chunk(0), 0)
    assert complete(timeline.remainder(4), chunk(1))[:, 0].tolist() == [4, 5, 6, 7, 104, 105, 106, 107]
    assert timeline.remainder(7) is None, "nothing was promised for this step"
