import importlib.util

import numpy as np
import pytest

import lfm_envs
from lfm_envs.episodes import perform
from lfm_envs.experts import expert
from lfm_envs.experts.base import CLOSED, Command, nearest_turn, top_down
from lfm_policy.errors import ConfigError

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]


@pytest.fixture(scope="module")
def lift():
    env = lfm_envs.make("robosuite/lift")
    yield env
    env.close()


def test_the_lift_expert_succeeds_and_its_episodes_hold_the_success(lift):
    episodes = [perform(lift, expert("lift"), seed) for seed in range(6)]
    assert all(episode.success for episode in episodes)
    for episode in episodes:
        assert 25 <= len(episode.steps) <= 60
        assert all(step["rewards"] == 1 for step in episode.steps[-5:])
        assert episode.steps[-1]["dones"] == 1
        assert len(episode.observations) == len(episode.steps) + 1


def test_noise_is_executed_and_not_recorded(lift):
    noisy, clean = (perform(lift, expert("lift"), 3, noise) for noise in (1.0, 0.0))
    spread = np.std([step["actions_executed"] - step["actions"] for step in noisy.steps], axis=0)
    assert np.all(spread[:6] > 0.02)
    assert spread[6] == 0
    for step in clean.steps:
        np.testing.assert_array_equal(step["actions"], step["actions_executed"])
    assert clean.success


def test_episodes_are_a_function_of_the_seed_and_differ_in_style(lift):
    first = perform(lift, expert("lift"), 7)
    perform(lift, expert("lift"), 8)
    again = perform(lift, expert("lift"), 7)
    np.testing.assert_array_equal(*(np.stack([step["states"] for step in e.steps]) for e in (first, again)))
    assert len({len(perform(lift, expert("lift"), seed).steps) for seed in range(5)}) > 1


def test_the_lift_expert_recovers_when_the_cube_is_knocked_away(lift):
    lift.reset(2)
    rng, knocked, success_after = np.random.default_rng(0), False, False
    for command in expert("lift")(lift, rng):
        data = lift.simulation.sim.data
        if not knocked and command.action[6] == CLOSED:
            cube = data.get_joint_qpos("cube_joint0").copy()
            data.set_joint_qpos("cube_joint0", np.concatenate([cube[:3] + np.array([0.06, 0.05, 0.005]), cube[3:]]))
            knocked = True
        success_after = lift.step_delta(command.action).success
        assert lift.simulation.timestep < 200
    assert knocked
    assert success_after


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least"), [("lift", 98), ("can", 97), ("square", 97), ("transport", 92), ("tool_hang", 95)]
)
def test_success_rate_over_100_seeds(name, least):
    env = lfm_envs.make(f"robosuite/{name}")
    successes = sum(perform(env, expert(name), seed).success for seed in range(1000, 1100))
    env.close()
    assert successes >= least


def test_commands_stay_within_the_action_space():
    command = Command(np.full(7, 0.99), np.full(7, 0.5))
    assert np.abs(command.disturbed(np.random.default_rng(0))).max() <= 1


def test_hand_geometry():
    down = top_down(0.3)
    np.testing.assert_allclose(down @ down.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(down) == pytest.approx(1)
    np.testing.assert_array_equal(down[:, 2], [0, 0, -1])
    assert nearest_turn(0.1, 1.5, np.pi / 2) == pytest.approx(0.1 + np.pi / 2)
    assert nearest_turn(-3.0, 3.0, 2 * np.pi) == pytest.approx(2 * np.pi - 3)


def test_a_task_without_an_expert_is_refused():
    with pytest.raises(ConfigError, match="unknown task 'lfit': did you mean 'lift'"):
        expert("lfit")
    with pytest.raises(ConfigError, match=r"no scripted expert for task 'tests\..*:STACK': give its Task an expert"):
        expert("tests.envs.test_registry:STACK")
