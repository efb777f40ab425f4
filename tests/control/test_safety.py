"""Every reason that a command may be refused for, and that a refusal holds the robot still."""

import numpy as np
import pytest
from pydantic import ValidationError

from lfm_envs.point_mass import CONTRACT as POINT
from lfm_envs.tasks import TASKS
from lfm_policy.control.safety import EmergencyStop, Gate, Limits, limits_of, start_positions
from lfm_policy.errors import ConfigError

LIFT = TASKS["lift"].contract
LIMITS = Limits(
    low_m=(-0.3, -0.3, 0.8), high_m=(0.3, 0.3, 1.3), speed_m_s=1.0, acceleration_m_s2=12.0, jerk_m_s3=300.0, stale_s=0.5
)
HOME = (0.0, 0.0, 1.0)


def pose(position=HOME, gripper=-1.0) -> np.ndarray:
    return np.array([*position, 1, 0, 0, 0, 1, 0, gripper])


def moved(x: float) -> np.ndarray:
    return pose((x, 0, 1))


def gate(**changes) -> Gate:
    found = Gate(LIFT, LIMITS.model_copy(update=changes))
    observation = np.zeros(LIFT.observation_dim)
    observation[10:13] = HOME
    found.reset(observation)
    return found


def refused_for(checked: Gate) -> list[str]:
    return list(checked.refused.elements())


class TestRefusals:
    @pytest.mark.parametrize(
        ("action", "age_s", "reason"),
        [
            (None, 0.0, "stale"),
            (pose(), 0.6, "stale"),
            (pose()[:9], 0.0, "shape"),
            (pose((0, np.nan, 1)), 0.0, "not finite"),
            (pose(gripper=np.inf), 0.0, "not finite"),
            (pose((0.31, 0, 1)), 0.0, "workspace"),
            (pose((0, 0, 0.79)), 0.0, "workspace"),
            (pose(gripper=1.6), 0.0, "gripper"),
            (pose(gripper=-1.6), 0.0, "gripper"),
            (moved(0.06), 0.0, "speed"),
            (moved(0.04), 0.0, "acceleration"),
        ],
    )
    def test_each_has_its_reason(self, action, age_s, reason):
        checked = gate()
        assert not checked.admit(action, age_s, 7)
        assert refused_for(checked) == [reason]

    def test_jerk_alone(self):
        checked = gate(acceleration_m_s2=None)
        assert not checked.admit(moved(0.04), 0.0, 0), "0.04 m from rest in one period: 320 m/s³"
        assert refused_for(checked) == ["jerk"]
        assert gate(acceleration_m_s2=None, jerk_m_s3=None).admit(moved(0.04), 0.0, 0)

    def test_what_keeps_the_limits_passes(self):
        checked = gate()
        times = np.arange(1, 60) / 20
        assert all(checked.admit(moved(0.1 * (1 - np.cos(2 * t))), 0.1, k) for k, t in enumerate(times))
        assert not checked.refused

    def test_a_refused_command_is_not_where_the_robot_is(self):
        checked = gate(acceleration_m_s2=None, jerk_m_s3=None)
        assert checked.admit(moved(0.04), 0.0, 0)
        assert not checked.admit(moved(0.2), 0.0, 1)
        assert checked.admit(moved(0.08), 0.0, 2), "0.04 m from where it holds"

    def test_to_hold_takes_the_speed_out(self):
        going = gate(jerk_m_s3=None)
        assert all(going.admit(moved(x), 0.0, k) for k, x in enumerate([0.02, 0.05, 0.09]))
        stopped = gate(jerk_m_s3=None)
        assert stopped.admit(moved(0.02), 0.0, 0)
        assert stopped.admit(moved(0.05), 0.0, 1)
        stopped.hold(3)
        assert not stopped.admit(moved(0.09), 0.0, 5), "from rest, 0.04 m is too much acceleration"
        assert refused_for(stopped) == ["acceleration"]

    def test_says_what_was_found_and_what_is_allowed(self):
        said = []
        checked = Gate(LIFT, LIMITS, report=said.append)
        checked.admit(pose((0.5, 0, 1)), 0.0, 42)
        assert said[0].step == 42
        assert said[0].found == "[[0.5, 0.0, 1.0]] m, limits (-0.3, -0.3, 0.8) to (0.3, 0.3, 1.3)"


class TestEmergencyStop:
    def test_is_a_latch(self):
        stop = EmergencyStop()
        checked = Gate(LIFT, LIMITS, stop=stop)
        assert checked.admit(pose(), 0.0, 0)
        stop.pull("a person in the cell")
        stop.pull("something else")
        assert not any(checked.admit(pose(), 0.0, k) for k in range(1, 4))
        assert refused_for(checked) == ["emergency stop"] * 3
        assert stop.reason == "a person in the cell"


class TestLimits:
    @pytest.mark.parametrize(
        "values",
        [{"low_m": (0, 0, 0)}, {"low_m": (0, 0, 1), "high_m": (1, 1, 1)}, {"speed_m_s": 0.0}, {"speed": 1.0}],
    )
    def test_refuse_nonsense(self, values):
        with pytest.raises(ValidationError):
            Limits(**values)

    def test_of_demonstrations_let_them_pass_and_little_more(self):
        generator = np.random.default_rng(0)
        steps = generator.uniform(-0.02, 0.02, (3, 40, 3))
        episodes = []
        for path in steps.cumsum(axis=1) + HOME:
            observation = np.zeros((40, LIFT.observation_dim))
            observation[:, 10:13] = HOME
            episodes.append((observation, np.stack([pose(tuple(p)) for p in path])))
        limits = limits_of(LIFT, episodes, margin=1.01)
        for observation, actions in episodes:
            checked = Gate(LIFT, limits)
            checked.reset(observation[0])
            assert all(checked.admit(action, 0.0, k) for k, action in enumerate(actions))
            checked.reset(observation[0])
            wild = actions[0].copy()
            wild[:3] += 0.05
            assert not checked.admit(wild, 0.0, 0)

    def test_need_positions(self):
        delta = LIFT.model_copy(update={"action_form": "delta"})
        with pytest.raises(ConfigError, match="expected absolute actions"):
            Gate(delta, Limits())
        with pytest.raises(ConfigError, match="found 2 numbers"):
            Gate(POINT, LIMITS)


def test_the_start_is_read_from_the_observation():
    observation = np.arange(59.0)
    assert start_positions(TASKS["transport"].contract, observation).tolist() == [[41, 42, 43], [50, 51, 52]]
    assert start_positions(POINT, np.zeros(4)) is None
