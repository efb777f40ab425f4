"""The shipped policies through the shipped safety gate, in lockstep: nothing that they command is held."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

import lfm_envs
from lfm_policy.bundles.open import open_policy
from lfm_policy.control.inference import Inference
from lfm_policy.control.limits import Limits
from lfm_policy.control.loop import ControlLoop, ControlOptions
from lfm_policy.control.robot import Reading
from lfm_policy.control.safety import Gate
from lfm_policy.protocols import Environment
from tests.control.robots import FakeClock, at_once

EPISODES = 100


class Stepped:
    """An environment that steps when a command comes."""

    def __init__(self, environment: Environment) -> None:
        self._environment, self.contract = environment, environment.contract

    def reset(self, seed: int) -> Reading:
        self._steps, self._success = 0, False
        self._new = [self.contract.flatten(self._environment.reset(seed))]
        return self.read()

    def read(self) -> Reading:
        rows, self._new = np.array(self._new, np.float32).reshape(-1, self.contract.observation_dim), []
        return Reading(rows, self._success, self._success or self._steps >= self._environment.horizon)

    def send(self, action: np.ndarray, due: float) -> None:
        result = self._environment.step(action)
        self._steps, self._success = self._steps + 1, result.success
        self._new = [self.contract.flatten(result.observation)]

    def stop(self) -> None:
        pass

    def close(self) -> None:
        self._environment.close()


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.parametrize(("name", "least"), [("lift", 0.9), ("can", 0.9), ("square", 0.9), ("tool_hang", 0.8)])
def test_a_hundred_episodes_without_a_refusal(name: str, least: float) -> None:
    policy: Any = open_policy(name, runtime="onnx")
    robot, held, successes = Stepped(lfm_envs.make(f"robosuite/{name}")), Counter(), 0
    for seed in range(100_000, 100_000 + EPISODES):
        with Inference(policy, submit=at_once) as inference:
            gate = Gate(policy.contract, Limits())
            episode = ControlLoop(policy, robot, inference, gate, ControlOptions(), clock=FakeClock()).run(seed)
        held.update(episode.refusals)
        successes += episode.success
    print(f"{name}: {successes} of {EPISODES} succeed, held: {dict(held)}")
    assert held == Counter()
    assert successes >= least * EPISODES
