"""Control by what cameras see: every request carries the picture of its newest observation."""

import numpy as np

from lfm_policy.control.inference import Inference
from lfm_policy.control.loop import ControlLoop, ControlOptions
from lfm_policy.control.robot import DryRun, Reading, SimulatedRobot
from lfm_policy.control.safety import Gate
from lfm_policy.protocols import ChunkBatch
from lfm_policy.rollout.play import seen_now
from tests import seeing
from tests.control.robots import FREE, FakeClock, at_once
from tests.rollout.scripted import Straight


class Looking(Straight):
    """Finds the goal in the picture, where its ring is brightest, and goes straight to it."""

    contract = seeing.CONTRACT

    def predict(self, histories: np.ndarray, noise: np.ndarray, frames: np.ndarray) -> ChunkBatch:
        place = np.linspace(-1.1, 1.1, seeing.SIDE)
        green = (frames[:, 0, ..., 1].astype(int) - frames[:, 0, ..., 0] > 20).astype(float)
        total = green.sum((1, 2)).clip(1)
        goal = np.stack([green.sum(1) @ place / total, green.sum(2) @ place[::-1] / total], axis=1)
        rows = np.concatenate([histories, np.repeat(goal[:, None], histories.shape[1], 1)], axis=2)
        return super().predict(rows.astype(np.float32), noise)


class Lockstep:
    """A seeing point mass that moves when it is commanded."""

    contract = seeing.CONTRACT

    def __init__(self):
        self._environment = seeing.SeeingPointMass()

    def reset(self, seed: int) -> Reading:
        self._steps = 0
        self._reading = Reading(self._row(self._environment.reset(seed)), frames=seen_now(self._environment))
        return self._reading

    def read(self) -> Reading:
        return self._reading

    def send(self, action: np.ndarray, due: float) -> None:
        result, self._steps = self._environment.step(action), self._steps + 1
        over = result.success or self._steps >= 60
        self._reading = Reading(self._row(result.observation), result.success, over, seen_now(self._environment))

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _row(self, observation):
        return self.contract.flatten(observation)[None]


def test_a_policy_that_looks_reaches_what_only_the_camera_sees():
    robot, successes = Lockstep(), []
    for seed in range(5):
        with Inference(Looking(noise_m=0.0, gain=1.0), submit=at_once) as inference:
            gate = Gate(seeing.CONTRACT, FREE)
            loop = ControlLoop(Looking(), robot, inference, gate, ControlOptions(), clock=FakeClock())
            successes.append(loop.run(seed).success)
    assert all(successes)


def test_a_dry_run_passes_on_what_is_seen():
    robot = Lockstep()
    robot.reset(3)
    dry = DryRun(robot, steps=5)
    np.testing.assert_array_equal(dry.reset(3).frames, robot.read().frames)
    np.testing.assert_array_equal(dry.read().frames, robot.read().frames)


def test_the_simulated_robot_shows_its_newest_picture(tmp_path):
    with SimulatedRobot(seeing.SeeingPointMass, 50.0, tmp_path / "log") as robot:
        environment = seeing.SeeingPointMass()
        environment.reset(4)
        np.testing.assert_array_equal(robot.reset(4).frames, seen_now(environment))
        assert robot.read().frames is None  # nothing new
