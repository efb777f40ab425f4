"""A robot and a clock for tests of the control loop: time passes only when somebody sleeps."""

from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from lfm_envs.point_mass import CONTRACT, PointMass
from lfm_policy.control.inference import Answer, Inference
from lfm_policy.control.limits import Limits
from lfm_policy.control.loop import ControlLoop, ControlOptions, Episode
from lfm_policy.control.robot import Reading
from lfm_policy.control.safety import Gate
from lfm_policy.protocols import ChunkBatch
from tests.rollout.scripted import Straight

FREE = Limits(speed_m_s=None, acceleration_m_s2=None, jerk_m_s3=None)


class FakeClock:
    """Sleeping is instant; `delays` makes the sleep before a tick overshoot [s], by the number of the sleep."""

    def __init__(self, delays: dict[int, float] | None = None) -> None:
        self.time, self.sleeps, self._delays = 100.0, 0, delays or {}

    def now(self) -> float:
        return self.time

    def sleep_until(self, moment: float) -> None:
        self.time = max(self.time, moment) + self._delays.get(self.sleeps, 0.0)
        self.sleeps += 1


class Lockstep:
    """A point mass that steps when a command comes: an episode without real time, as the runner has it."""

    contract = CONTRACT

    def __init__(self, on_send: Callable[[int], None] = lambda step: None) -> None:
        self._environment, self._on_send = PointMass(), on_send
        self.commands: list[np.ndarray] = []
        self.stops = 0

    def reset(self, seed: int) -> Reading:
        self.commands.clear()
        self._new = [CONTRACT.flatten(self._environment.reset(seed))]
        self._success = False
        return self.read()

    def read(self) -> Reading:
        rows = np.stack(self._new) if self._new else np.zeros((0, 4), np.float32)
        self._new = []
        return Reading(rows, self._success, self._success or len(self.commands) >= self._environment.horizon)

    def send(self, action: np.ndarray, due: float) -> None:
        result = self._environment.step(action)
        self.commands.append(action)
        self._new.append(CONTRACT.flatten(result.observation))
        self._success = result.success
        self._on_send(len(self.commands))

    def stop(self) -> None:
        self.stops += 1

    def close(self) -> None:
        pass


def at_once(call: Callable[[], Answer]) -> "Future[Answer]":
    """A thread that takes no time."""
    future: Future[Answer] = Future()
    future.set_result(call())
    return future


class Later:
    """A thread whose answers come after a number of polls."""

    def __init__(self, polls: int) -> None:
        self._polls, self.first = polls, True

    def __call__(self, call: Callable[[], Answer]) -> "Future[Answer]":
        if self.first:
            self.first = False
            return at_once(call)
        return _Slow(call(), self._polls)


class _Slow(Future):
    def __init__(self, answer: Answer, polls: int) -> None:
        super().__init__()
        self._left = polls
        self.set_result(answer)

    def done(self) -> bool:
        self._left -= 1
        return self._left < 0


class Taking(Straight):
    """A policy whose call takes some of a fake clock's time [s]."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        super().__init__()
        self._clock, self._seconds = clock, seconds

    def predict(self, histories: np.ndarray, noise: np.ndarray) -> ChunkBatch:
        self._clock.time += self._seconds
        return super().predict(histories, noise)


def control(policy=None, robot=None, limits=FREE, clock=None, submit=at_once, seed=101, **options) -> Episode:
    """Run one episode without real time."""
    policy, robot = policy or Straight(), robot or Lockstep()
    gate = options.pop("gate", None) or Gate(CONTRACT, limits)
    record = options.pop("record", lambda event: None)
    with Inference(policy, options.pop("delay", None), submit, options.pop("judge", None)) as inference:
        loop = ControlLoop(
            policy, robot, inference, gate, ControlOptions(**options), record=record, clock=clock or FakeClock()
        )
        return loop.run(seed)


__all__ = ["FREE", "FakeClock", "Later", "Lockstep", "Taking", "at_once", "control"]
