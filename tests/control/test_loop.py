"""The control loop without real time, then with it: deadlines, late actions, refusals, stops, seams."""

import functools
import time

import numpy as np
import pytest

from lfm_envs.point_mass import CONTRACT, PointMass
from lfm_policy.chunks.band import Band
from lfm_policy.chunks.horizon import RecedingHorizon
from lfm_policy.control.clock import MonotonicClock
from lfm_policy.control.inference import Delay, Inference
from lfm_policy.control.limits import Limits
from lfm_policy.control.loop import ControlLoop, ControlOptions, describe, refusal_event
from lfm_policy.control.robot import SimulatedRobot
from lfm_policy.control.safety import Gate
from lfm_policy.control.stops import EmergencyStop
from lfm_policy.errors import ConfigError, ContractError, RolloutError, ServingError
from lfm_policy.protocols import ChunkBatch
from lfm_policy.rollout.runner import Runner, RunnerOptions
from tests.control.robots import FREE, FakeClock, Later, Lockstep, Taking, at_once, control
from tests.rollout.scripted import Straight, needs_a_licence

SEEDS = [101, 102, 103, 104]


class TestWithoutLatency:
    @pytest.mark.parametrize("inference", ["sync", "async"])
    def test_the_loop_does_what_the_runner_does(self, inference):
        results = Runner(Straight(), PointMass, RunnerOptions(workers=1)).run(SEEDS)
        for result in results:
            episode = control(seed=result.seed, inference=inference)
            assert (episode.success, len(episode.commands), episode.chunks) == (
                result.success,
                result.steps,
                result.chunks,
            )
            found = describe(episode, Straight())
            assert found["seam_jerk"] == pytest.approx(result.seam_jerk, rel=1e-3)
            assert (found["missed"], found["dropped"], found["held"]) == (0, 0, 0)

    def test_async_sends_the_commands_of_sync(self):
        one, other = (control(inference=mode).commands for mode in ("sync", "async"))
        np.testing.assert_array_equal(one, other)


class TestLatency:
    def test_async_keeps_every_deadline_and_drops_late_actions(self):
        episode = control(inference="async", submit=Later(2))
        assert episode.pace.missed == 0
        assert episode.dropped == 2 * (episode.chunks - 1)
        assert episode.held == 0, "the chunk before covers two more steps"

    def test_async_holds_where_the_answer_comes_after_the_last_chunk_is_over(self):
        events = []
        episode = control(inference="async", submit=Later(6), gate=Gate(CONTRACT, FREE, report=events.append))
        # chunks of 8 with 2 observations reach 7 steps; asked for after 4, the answer comes after 10
        assert episode.held >= 3 * (episode.chunks - 2)
        assert {event.reason for event in events} == {"stale"}
        assert refusal_event(events[0])["step"] == 7

    def test_sync_misses_the_deadlines_that_inference_takes(self):
        clock = FakeClock()
        events = []
        episode = control(Taking(clock, 0.12), clock=clock, inference="sync", record=events.append)
        later = episode.chunks - 1
        assert episode.pace.summary()["late_ms_max"] == pytest.approx(120, abs=1)
        assert len([event for event in events if event["event"] == "late"]) == later
        assert episode.pace.skipped == 2 * later, "and two whole periods pass without a command"
        assert episode.dropped == 0, "who waits executes the chunk from its beginning"

    def test_a_late_wake_up_is_counted_with_how_late(self):
        events = []
        episode = control(clock=FakeClock({5: 0.03}), record=events.append)
        assert episode.pace.missed == 1
        assert episode.pace.summary()["late_ms_max"] == pytest.approx(30, abs=1)
        assert events == [{"event": "late", "seed": 101, "step": 5, "late_ms": pytest.approx(30, abs=1), "skipped": 0}]

    def test_skipped_ticks_skip_their_actions(self):
        plain, late = control(), control(clock=FakeClock({1: 0.12}))
        assert late.pace.skipped == 1
        np.testing.assert_array_equal(late.commands[1], plain.commands[1])
        np.testing.assert_array_equal(late.commands[2], plain.commands[3])


class TestLoss:
    def test_the_loop_asks_again(self):
        events = []
        episode = control(delay=Delay(packet_loss=0.5, seed=1), record=events.append)
        assert episode.lost == len(events) > 0
        assert {event["reason"] for event in events} == {"lost on the way (simulated)"}
        assert episode.chunks > 0
        again = control(delay=Delay(packet_loss=0.5, seed=1))
        np.testing.assert_array_equal(again.commands, episode.commands)

    def test_a_server_that_is_gone_for_a_while_is_a_lost_answer(self):
        class Flaky(Straight):
            def predict(self, histories, noise):
                if len(self.batches) == 2:
                    self.batches.append(0)
                    raise ServingError("no answer from the policy server")
                return super().predict(histories, noise)

        events = []
        episode = control(Flaky(), record=events.append)
        assert episode.lost == 1
        assert events[0]["reason"] == "no answer from the policy server"

    def test_other_errors_of_the_policy_end_the_episode(self):
        class Broken(Straight):
            def predict(self, histories, noise):
                raise RolloutError("the weights are damaged")

        with pytest.raises(RolloutError, match="weights"):
            control(Broken())


class TestSafety:
    def test_numbers_that_are_none_never_reach_the_robot(self):
        class Diverged(Straight):
            def predict(self, histories, noise):
                batch = super().predict(histories, noise)
                if len(self.batches) == 2:
                    batch.actions[:] = np.nan
                return batch

        robot = Lockstep()
        episode = control(Diverged(), robot)
        assert episode.refusals == {"not finite": 4}
        assert np.isfinite(robot.commands).all()
        np.testing.assert_array_equal(robot.commands[4:8], [robot.commands[3]] * 4)

    def test_the_emergency_stop_stops_the_robot_once_and_nothing_follows(self):
        stop, events = EmergencyStop(), []
        gate = Gate(CONTRACT, FREE, stop=stop)
        robot = Lockstep(on_send=lambda step: stop.pull("the operator") if step == 3 else None)
        episode = control(robot=robot, gate=gate, record=events.append)
        assert episode.stopped == "the operator"
        assert (len(robot.commands), robot.stops) == (3, 1)
        assert events == [{"event": "stopped", "seed": 101, "step": 3, "reason": "the operator"}]
        robot.reset = lambda seed: pytest.fail("a robot that was stopped is left alone")
        again = control(robot=robot, gate=gate)
        assert (again.commands, again.stopped, robot.stops) == ([], "the operator", 1), "it stays pulled"

    def test_a_stop_that_is_pulled_while_a_command_is_judged_takes_it_back(self):
        class Raced(Gate):
            def admit(self, action, age_s, step):
                if step == 3:
                    self.stop.pull("another thread")
                return super().admit(action, age_s, step)

        robot = Lockstep()
        control(robot=robot, gate=Raced(CONTRACT, FREE))
        assert (len(robot.commands), robot.stops) == (3, 1)

    def test_a_function_of_the_users_is_asked_before_every_command(self):
        robot = Lockstep()
        gate = Gate(CONTRACT, FREE, stop=EmergencyStop(lambda: len(robot.commands) == 5 and "the light barrier"))
        assert control(robot=robot, gate=gate).stopped == "the light barrier"
        assert (len(robot.commands), robot.stops) == (5, 1)

    def test_a_robot_that_refuses_stands_until_the_next_chunk(self):
        tight = Limits(speed_m_s=2.5, acceleration_m_s2=None, jerk_m_s3=None)
        episode = control(Straight(noise_m=0.3), limits=tight)
        assert 0 < episode.refusals["speed"] == episode.held < len(episode.commands)
        steps = np.linalg.norm(np.diff(episode.commands, axis=0), axis=1)
        assert steps.max() <= 2.5 / 20 + 1e-6


class TestMonitor:
    def test_scores_what_was_promised_under_the_newest_observation(self):
        judged = []

        def judge(history, chunk):
            judged.append((history, chunk))
            return float(len(judged))

        events = []
        episode = control(judge=judge, alarm=level(2.5), record=events.append)
        assert len(judged) == len(episode.scores) == episode.chunks - 1, "the first chunk follows none"
        history, chunk = judged[0]
        assert (history.shape, chunk.shape) == ((2, 4), (8, 2))
        np.testing.assert_allclose(chunk[1:4], control_chunk(101)[5:8], rtol=1e-6)
        assert [event["event"] for event in events] == ["unusual"] * (episode.chunks - 3)
        assert episode.alarms == episode.chunks - 3

    def test_can_stop_the_robot(self):
        episode = control(judge=lambda history, chunk: 1.0, alarm=level(0.5), alarm_stops=True)
        assert episode.stopped == "unusual: score 1, alarm 0.5"
        assert episode.chunks == 2


def level(value):
    """An alarm level that is the same at all steps."""
    return Band(score="variance", draws=2, false_alarms=0.1, steps=(0,), levels=(value,), episodes=(5, 9))


def control_chunk(seed):
    """The first chunk of an episode."""
    horizon = RecedingHorizon(Straight(), seed)
    horizon.observe(Lockstep().reset(seed).rows)
    return Straight().predict(horizon.history[None], horizon.noise[None]).actions[0]


class TestRefusals:
    def test_another_contract(self):
        class Other(Straight):
            contract = CONTRACT.model_copy(update={"control_hz": 10.0})

        with pytest.raises(ContractError, match="control_hz: the policy has"):
            control(Other())

    def test_a_warm_start_without_a_chain(self):
        with pytest.raises(ConfigError, match="seam=warm"):
            control(seam="warm")


class TestRealTime:
    def run(self, tmp_path, policy, options, delay=None, seeds=SEEDS[:2], gate=None):
        factory = functools.partial(PointMass)
        with (
            SimulatedRobot(factory, options.rate_hz, tmp_path / "robot.log") as robot,
            Inference(policy, delay) as inference,
        ):
            gate = gate or Gate(CONTRACT, FREE, options.rate_hz)
            loop = ControlLoop(policy, robot, inference, gate, options, clock=MonotonicClock())
            started = time.monotonic()
            episodes = [loop.run(seed) for seed in seeds]
            return episodes, robot.counts, time.monotonic() - started

    def test_the_simulator_keeps_its_own_time(self, tmp_path):
        options = ControlOptions(rate_hz=20, inference="async", tolerance_ms=45)
        episodes, counts, seconds = self.run(tmp_path, Straight(noise_m=0), options, Delay(latency_ms=30))
        assert all(episode.success for episode in episodes)
        ticks = [len(episode.pace.late_ms) + episode.pace.skipped for episode in episodes]
        assert seconds > 0.9 * (sum(ticks) - 2) / options.rate_hz
        assert abs(counts["steps"] + counts["left_out"] - ticks[-1]) <= 3, "both went through the same time"

    def test_it_goes_on_with_the_last_command_when_none_comes(self, tmp_path):
        with SimulatedRobot(PointMass, 50.0, tmp_path / "robot.log") as robot:
            first = robot.reset(101).rows[0]
            time.sleep(0.1)
            assert len(robot.read().rows) == 0, "nothing moves before the first command"
            robot.send(first[2:].astype(np.float64), time.monotonic())
            rows = []
            deadline = time.monotonic() + 10
            while not (reading := robot.read()).over and time.monotonic() < deadline:
                rows.extend(reading.rows)
                time.sleep(0.01)
            assert reading.success
            assert robot.counts["held"] == robot.counts["steps"] - 1
            again = robot.reset(102).rows
            assert again.shape == (1, 4)

    def test_an_environment_that_cannot_be_made(self, tmp_path):
        with pytest.raises(RolloutError, match="no licence file found"):
            SimulatedRobot(needs_a_licence, 20.0, tmp_path / "robot.log")


def test_batches_are_of_one():
    policy = Straight()
    control(policy, submit=at_once)
    assert set(policy.batches) == {1}
    assert isinstance(policy.predict(np.ones((1, 2, 4)), np.zeros((1, 8, 2))), ChunkBatch)
