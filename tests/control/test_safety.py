"""Every reason that a command may be refused for, and that a refusal holds the robot still."""

import numpy as np
import pytest
from pydantic import ValidationError

from lfm_envs.point_mass import CONTRACT as POINT
from lfm_envs.tasks import TASKS
from lfm_policy.actions.poses import rot6d_to_matrix, rotation_distance
from lfm_policy.control.limits import Limits, NumberLimits, limits_of, start_positions
from lfm_policy.control.safety import Gate
from lfm_policy.control.stops import EmergencyStop
from lfm_policy.errors import ConfigError
from tests.contracts import JOINTS

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
            (moved(0.06), 0.0, "speed"),
            (moved(0.04), 0.0, "acceleration"),
        ],
    )
    def test_each_has_its_reason(self, action, age_s, reason):
        checked = gate()
        assert checked.admit(action, age_s, 7) is None
        assert refused_for(checked) == [reason]

    def test_grippers_are_clipped_as_the_simulator_does_and_sent(self):
        """The shipped student of Lift asks for 1.512."""
        checked = Gate(LIFT, Limits())
        asked = pose(gripper=1.512).astype(np.float32)
        sent = checked.admit(asked, 0.0, 0)
        assert sent is not None
        assert sent[9] == 1.0
        assert np.array_equal(sent[:9], asked[:9])
        assert checked.admit(pose(gripper=-7), 0.0, 1) is not None

    def test_jerk_alone(self):
        checked = gate(acceleration_m_s2=None)
        assert checked.admit(moved(0.04), 0.0, 0) is None, "0.04 m from rest in one period: 320 m/s³"
        assert refused_for(checked) == ["jerk"]
        assert gate(acceleration_m_s2=None, jerk_m_s3=None).admit(moved(0.04), 0.0, 0) is not None

    def test_what_keeps_the_limits_passes(self):
        checked = gate()
        times = np.arange(1, 60) / 20
        assert all(checked.admit(moved(0.1 * (1 - np.cos(2 * t))), 0.1, k) is not None for k, t in enumerate(times))
        assert not checked.refused

    def test_a_refused_command_is_not_where_the_robot_is(self):
        checked = gate(acceleration_m_s2=None, jerk_m_s3=None)
        assert checked.admit(moved(0.04), 0.0, 0) is not None
        assert checked.admit(moved(0.2), 0.0, 1) is None
        assert checked.admit(moved(0.08), 0.0, 2) is not None, "0.04 m from where it holds"

    def test_to_hold_takes_the_speed_out(self):
        going = gate(jerk_m_s3=None)
        assert all(going.admit(moved(x), 0.0, k) is not None for k, x in enumerate([0.02, 0.05, 0.09]))
        stopped = gate(jerk_m_s3=None)
        assert stopped.admit(moved(0.02), 0.0, 0) is not None
        assert stopped.admit(moved(0.05), 0.0, 1) is not None
        stopped.hold(3)
        assert stopped.admit(moved(0.09), 0.0, 5) is None, "from rest, 0.04 m is too much acceleration"
        assert refused_for(stopped) == ["acceleration"]

    def test_says_what_was_found_and_what_is_allowed(self):
        said = []
        checked = Gate(LIFT, LIMITS, report=said.append)
        checked.admit(pose((0.5, 0, 1)), 0.0, 42)
        assert said[0].step == 42
        assert said[0].found == "[[0.5, 0.0, 1.0]] m, limits (-0.3, -0.3, 0.8) to (0.3, 0.3, 1.3)"


class TestEmergencyStop:
    def test_nothing_passes_a_pulled_one(self):
        stop = EmergencyStop()
        checked = Gate(LIFT, LIMITS, stop=stop)
        assert checked.admit(pose(), 0.0, 0) is not None
        stop.pull("a person in the cell")
        assert all(checked.admit(pose(), 0.0, k) is None for k in range(1, 4))
        assert refused_for(checked) == ["emergency stop"] * 3


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
            assert all(checked.admit(action, 0.0, k) is not None for k, action in enumerate(actions))
            checked.reset(observation[0])
            wild = actions[0].copy()
            wild[:3] += 0.05
            assert checked.admit(wild, 0.0, 0) is None

    def test_need_positions(self):
        delta = LIFT.model_copy(update={"action_form": "delta"})
        with pytest.raises(ConfigError, match="expected absolute actions"):
            Gate(delta, Limits())
        with pytest.raises(ConfigError, match="found 2 numbers"):
            Gate(POINT, LIMITS)


PER_JOINT = Limits(
    numbers=(
        NumberLimits(name="pan", low=-90, high=90, speed=60),
        NumberLimits(name="lift", low=0, high=45, step=1.0, acceleration=600, jerk=1e5),
        NumberLimits(name="gripper", low=0, high=100),
    )
)


class TestJoints:
    @pytest.mark.parametrize(
        ("action", "reason", "found"),
        [
            ((0, 0, 50), None, ""),
            ((1.9, 0.5, 50), None, ""),
            ((2.1, 0.0, 50), "speed", "pan 63, limit 60"),
            ((0, 1.1, 50), "step", "lift 1.1, limit 1"),
            ((0, -0.1, 50), "range", "lift -0.1, limits 0 to 45"),
            ((0, 0.7, 50), "acceleration", "lift 630, limit 600"),
        ],
    )
    def test_each_has_limits_of_its_own(self, action, reason, found):
        said = []
        checked = Gate(JOINTS, PER_JOINT, report=said.append)
        checked.reset(np.zeros(7))
        sent = checked.admit(np.array(action, float), 0.0, 0)
        if reason is None:
            assert np.array_equal(sent, action)
        else:
            assert sent is None
            assert [(refusal.reason, refusal.found) for refusal in said] == [(reason, found)]

    def test_grippers_are_clipped_to_their_range_and_jump_as_they_like(self):
        checked = Gate(JOINTS, PER_JOINT)
        checked.reset(np.zeros(7))
        assert checked.admit(np.array([0, 0, 120.0]), 0.0, 0).tolist() == [0, 0, 100]

    def test_limits_are_learned_from_demonstrations(self):
        generator = np.random.default_rng(1)
        episodes = []
        for _ in range(3):
            path = generator.uniform(-1, 1, (50, 3)).cumsum(0)
            measured = np.vstack([np.zeros(3), path[:-1]])
            episodes.append((np.hstack([np.zeros((50, 4)), measured]), path))
        limits = limits_of(JOINTS, episodes, margin=1.01, room=0.0)
        assert [entry.name for entry in limits.numbers] == ["pan", "lift", "gripper"]
        assert limits.numbers[0].speed == pytest.approx(30 * limits.numbers[0].step)
        for observation, actions in episodes:
            checked = Gate(JOINTS, limits)
            checked.reset(observation[0])
            assert all(checked.admit(action, 0.0, k) is not None for k, action in enumerate(actions))
            checked.reset(observation[0])
            assert checked.admit(actions[0] + [3.0, 0, 0], 0.0, 0) is None

    def test_a_gate_without_limits_is_none(self):
        with pytest.raises(ConfigError, match=r"expected limits for the numbers .*'pan'.* found none"):
            Gate(JOINTS, Limits())
        with pytest.raises(ConfigError, match="found 2 numbers of 'joints' in 'deg'"):
            Gate(JOINTS, LIMITS)


class TestRamp:
    def test_the_first_move_begins_where_the_robot_rests(self):
        checked = Gate(JOINTS, PER_JOINT.model_copy(update={"ramp_s": 1.0}))
        checked.reset(np.array([0, 0, 0, 0, 10.0, 20.0, 0.0]))
        goal = np.array([20.0, 25.0, 80.0])
        sent = [checked.admit(goal, 0.0, k) for k in range(40)]
        assert all(command is not None for command in sent), "a jump of 10 degrees, made slow enough"
        pan = np.array(sent)[:, 0]
        assert 10 < pan[0] < 10.1
        assert (np.diff(pan) >= 0).all()
        assert pan[28] < pan[29] == 20
        assert sent[0][2] == 80, "grippers need no ramp"

    @pytest.mark.parametrize("share", [0.25, 1.0])
    @pytest.mark.parametrize(
        ("limit", "order"), [({"step": 1.5}, 1), ({"speed": 45}, 1), ({"acceleration": 90}, 2), ({"jerk": 400}, 3)]
    )
    def test_a_long_way_takes_as_long_as_its_share_of_a_limit_asks_for(self, limit, order, share):
        numbers = (NumberLimits(name="pan", low=-90, high=90, **limit), *PER_JOINT.numbers[1:])
        checked = Gate(JOINTS, Limits(numbers=numbers, ramp_s=0.1, ramp_share=share))
        checked.reset(np.array([0, 0, 0, 0, -80.0, 20.0, 0.0]))
        sent = [checked.admit(np.array([80.0, 20.0, 0.0]), 0.0, k) for k in range(900)]
        assert all(command is not None for command in sent)
        path = np.concatenate([[-80.0] * 3, np.array(sent)[:, 0]])
        (allowed,) = limit.values()
        fastest = np.abs(np.diff(path, n=order)).max() * (1 if "step" in limit else 30**order)
        assert 0.9 * share * allowed < fastest <= share * allowed * (1 + 1e-9)
        assert path[-1] == 80

    def test_a_robot_that_rests_outside_its_range_may_come_in_and_not_go_further_out(self):
        checked = Gate(JOINTS, PER_JOINT.model_copy(update={"ramp_s": 1.0}))
        inwards = np.array([0.0, 5.0, 0.0])
        for goal, passes in ((inwards, True), (np.array([0.0, -20.0, 0.0]), False)):
            checked.reset(np.array([0, 0, 0, 0, 0.0, -3.0, 0.0]))
            sent = [checked.admit(goal, 0.0, k) for k in range(60)]
            assert [command is not None for command in sent] == [passes] * 60
        assert set(refused_for(checked)) == {"range"}
        without = Gate(JOINTS, PER_JOINT)
        without.reset(np.array([0, 0, 0, 0, 0.0, -3.0, 0.0]))
        assert without.admit(np.array([0.0, -2.5, 0.0]), 0.0, 0) is None, "asked for without a ramp, it is out of range"

    def test_a_robot_that_was_held_begins_again(self):
        """Held while it moved, it is left behind by what is asked for; the ramp lets it catch up within its limits."""
        asked = [np.array([1.5 * k, 0.0, 0.0]) for k in range(20)]
        asked[8] = np.array([40.0, 0.0, 0.0])
        sent = {}
        for ramp_s in (0.0, 0.5):
            checked = Gate(JOINTS, PER_JOINT.model_copy(update={"ramp_s": ramp_s}))
            checked.reset(np.zeros(7))
            sent[ramp_s] = [checked.admit(action, 0.0, k) for k, action in enumerate([*asked, *[asked[-1]] * 40])]
        assert all(command is None for command in sent[0.0][8:])
        last = [command[0] for command in sent[0.5] if command is not None]
        assert sent[0.5][8] is None
        assert last[-1] == asked[-1][0]
        assert np.abs(np.diff(last)).max() <= 60 / 30 + 1e-9, "60 degrees per second"

    def test_poses_turn_on_the_way(self):
        checked = Gate(LIFT, Limits(ramp_s=1.0))
        observation = np.zeros(LIFT.observation_dim)
        observation[10:17] = [*HOME, 1, 0, 0, 0]
        checked.reset(observation)
        goal = pose((0.1, 0, 1))
        sent = [checked.admit(goal, 0.0, k) for k in range(20)]
        assert all(command is not None for command in sent)
        angles = rotation_distance(rot6d_to_matrix(np.array(sent)[:, 3:9]), rot6d_to_matrix(goal[3:9]))
        assert (np.diff(angles) < 0).all()
        assert np.array_equal(sent[-1], goal)

    def test_needs_to_know_where_the_robot_rests(self):
        with pytest.raises(ConfigError, match="which no observation tells"):
            Gate(POINT, Limits(ramp_s=1.0))


def test_the_start_is_read_from_the_observation():
    observation = np.arange(59.0)
    assert start_positions(TASKS["transport"].contract, observation).tolist() == [[41, 42, 43], [50, 51, 52]]
    assert start_positions(POINT, np.zeros(4)) is None
