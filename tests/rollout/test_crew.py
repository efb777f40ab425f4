"""Workers that stay play for one runner after the other, and end with their crew."""

import multiprocessing

from lfm_envs.point_mass import PointMass
from lfm_policy.rollout.crew import Crew


def test_members_stay_until_they_are_dismissed() -> None:
    before = {process.pid for process in multiprocessing.active_children()}
    with Crew(PointMass) as crew:
        (first,) = crew.members(1)
        both = crew.members(2)
        assert both[0] is first
        assert crew.members(1) == [first]
        started = {process.pid for process in multiprocessing.active_children()} - before
        assert len(started) == 2
        crew.dismiss()
        assert not started & {process.pid for process in multiprocessing.active_children()}
        assert crew.members(1)[0] is not first
    assert {process.pid for process in multiprocessing.active_children()} <= before
