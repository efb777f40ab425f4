"""The suite of the simulation measures what is played, and changes nothing of it."""

import importlib.util
from contextlib import closing

import numpy as np
import pytest

import lfm_envs
from lfm_cli.benchmarks.simulation import SEED, beside_physics

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]


def test_physics_measured_beside_an_episode_leaves_it_as_it_is():
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 7))
    with closing(lfm_envs.make("robosuite/lift", simulation="compiled")) as env:
        whole, bare = beside_physics(env, actions)
        measured = env.get_state()
        env.reset(SEED)
        for action in actions:
            env.step_delta(action)
        np.testing.assert_array_equal(measured, env.get_state())
    assert 0 < bare < whole
