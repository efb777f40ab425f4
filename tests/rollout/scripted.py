"""Real parts for the tests of rollouts: a scripted chunk policy, and point masses that break at a given seed."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from lfm_envs.point_mass import CONTRACT, SPEED_M, PointMass
from lfm_policy.protocols import ChunkBatch, Environment, Observation, StepResult
from lfm_policy.rollout.evaluation import Evaluation, run
from lfm_policy.rollout.report import Report, write_report
from lfm_policy.rollout.runner import RunnerOptions
from lfm_policy.rollout.video import film

OBSERVATION_STEPS, ACTION_STEPS, HORIZON = 2, 4, 8


class Straight:
    """Goes straight to the goal, with noise that differs per chunk; some slow episodes run out of steps."""

    contract = CONTRACT
    observation_steps = OBSERVATION_STEPS
    action_steps = ACTION_STEPS
    noise_shape = (HORIZON, 2)

    def __init__(self, noise_m: float = 0.1, gain: float = 0.5) -> None:
        self.noise_m, self.gain = noise_m, gain
        self.batches: list[int] = []

    def predict(self, histories: np.ndarray, noise: np.ndarray) -> ChunkBatch:
        self.batches.append(len(histories))
        position, goal = histories[:, -1, None, :2], histories[:, -1, None, 2:]
        way = goal - position
        unit = way / np.linalg.norm(way, axis=-1, keepdims=True).clip(1e-9)
        ahead = np.clip(np.arange(HORIZON) - OBSERVATION_STEPS + 2, 0, None)[:, None] * SPEED_M * self.gain
        return ChunkBatch(position + unit * ahead + self.noise_m * noise, nfe=3)


class Portable(Straight):
    """Says that it may be copied, and can continue chunks."""

    portable = True

    def resume(self, histories, noise, running):
        return self.predict(histories, 0.1 * noise)


class Pondering(Portable):
    """Takes far longer than the environment."""

    def predict(self, histories, noise):
        time.sleep(0.01)
        return super().predict(histories, noise)


class Failing(Straight):
    """Cannot predict."""

    def predict(self, histories, noise):
        raise ValueError("the weights are gone")


class Counted(PointMass):
    """Leaves a file for each one that is made."""

    def __init__(self, folder: str):
        super().__init__()
        open(f"{folder}/{time.monotonic_ns()}", "x").close()


class Breaking(PointMass):
    """A point mass that breaks at step 3 of the episode of `seed`; only the first time if `once` names a file."""

    def __init__(self, how: str, seed: int, once: str | None = None) -> None:
        super().__init__()
        self._how, self._bad_seed, self._once = how, seed, once

    def reset(self, seed: int) -> Observation:
        assert "torch" not in sys.modules, "a worker imported torch"
        self._seed, self._steps = seed, 0
        return super().reset(seed)

    def step(self, action: np.ndarray) -> StepResult:
        self._steps += 1
        if self._seed == self._bad_seed and self._steps == 3 and not self._done_before():
            self._break()
        return super().step(action)

    def _done_before(self) -> bool:
        if self._once is None:
            return False
        before = Path(self._once).exists()
        Path(self._once).touch()
        return before

    def _break(self) -> None:
        match self._how:
            case "raise":
                raise ValueError("the simulator lost the cube")
            case "kill":
                print("about to die")
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                self._hang_in_contact_solver()

    def _hang_in_contact_solver(self) -> None:
        time.sleep(3600)


def short_lift() -> Environment:
    """robosuite's Lift, over after 20 steps."""
    import lfm_envs

    environment = lfm_envs.make("robosuite/lift")
    environment.horizon = 20  # pyright: ignore[reportAttributeAccessIssue]
    return environment


def needs_a_licence() -> PointMass:
    """A factory that cannot make its environment."""
    raise OSError("no licence file found")


class Sided(PointMass):
    """Tells on which side the goal is, once the point is near it, and `nearby` where that is too little to tell."""

    contract = CONTRACT.model_copy(update={"modes": ("east", "west")})

    def mode(self) -> str | None:
        if np.linalg.norm(self._goal - self._position) > 0.3:
            return None
        return "nearby" if abs(self._goal[0]) < 0.1 else "east" if self._goal[0] > 0 else "west"


class ToSided(Portable):
    """Knows the two sides."""

    contract = Sided.contract


class Slow(PointMass):
    """A point mass whose control step takes 20 ms."""

    def step(self, action: np.ndarray) -> StepResult:
        time.sleep(0.02)
        return super().step(action)


def evaluate(policy, factory, seeds, out, identity, *, options=RunnerOptions(), videos=0, console=None) -> Report:  # noqa: B008
    """The three calls of an evaluation."""
    evaluation = Evaluation(policy, factory, identity, options=options)
    results = run(evaluation, seeds, out, console=console)
    report = write_report(evaluation, results, out, console)
    film(evaluation, results, out, videos, console)
    return report
