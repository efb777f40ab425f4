"""A robot that is only looked at."""

import numpy as np
import pytest

from lfm_envs.point_mass import CONTRACT, PointMass
from lfm_policy.chunks.band import Band
from lfm_policy.control.robot import DryRun, Reading, Robot
from lfm_policy.errors import RolloutError
from tests.control.robots import Lockstep, control


class Watched(Lockstep):
    """A robot whose sensors run by themselves, and which must not be moved."""

    def __init__(self, rows: int = 1) -> None:
        super().__init__()
        self._rows = np.tile(CONTRACT.flatten(PointMass().reset(3)), (rows, 1))

    def read(self) -> Reading:
        return Reading(self._rows)

    def reset(self, seed: int) -> Reading:
        raise AssertionError("a dry run resets nothing")

    def send(self, action: np.ndarray, due: float) -> None:
        raise AssertionError("a dry run sends nothing")


def test_a_dry_run_judges_and_keeps_what_it_would_send():
    robot = DryRun(Watched(), steps=12)
    assert isinstance(robot, Robot)
    episode = control(robot=robot)
    assert len(robot.commands) == len(episode.commands) == 12
    assert np.array_equal(robot.commands, episode.commands)


def test_a_dry_run_stops_nothing():
    watched = Watched()
    band = Band(score="variance", draws=2, false_alarms=0.1, steps=(0,), levels=(0.5,), episodes=(5, 9))
    episode = control(robot=DryRun(watched, steps=12), judge=lambda history, chunk: 1.0, alarm=band, alarm_stops=True)
    assert episode.stopped
    assert watched.stops == 0


def test_a_robot_that_shows_nothing_is_named():
    with pytest.raises(RolloutError, match=r"showed nothing for 0\.01 s"):
        DryRun(Watched(rows=0), steps=1, patience_s=0.01).reset(0)
