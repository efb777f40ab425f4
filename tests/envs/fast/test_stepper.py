"""The compiled step meets robosuite's to the last bit: one step from recorded states, whole episodes, every setting."""

import importlib.util
from contextlib import ExitStack, closing
from itertools import count

import numpy as np
import pytest

import lfm_envs
from lfm_envs.experts import expert
from lfm_envs.tasks import TASKS, task
from lfm_policy.errors import ConfigError

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]


def pair(stack, name):
    kinds = ("compiled", "robosuite")
    return [stack.enter_context(closing(lfm_envs.make(f"robosuite/{name}", simulation=kind))) for kind in kinds]


def assert_same_step(ours, theirs):
    assert ours.observation.keys() == theirs.observation.keys()
    for key, value in theirs.observation.items():
        np.testing.assert_array_equal(ours.observation[key], value, err_msg=key)
        assert ours.observation[key].dtype == value.dtype
    assert (ours.reward, ours.success) == (theirs.reward, theirs.success)


@pytest.mark.parametrize(("name", "steps"), [("lift", 400), ("can", 60), ("square", 60), ("tool_hang", 40)])
@pytest.mark.parametrize("form", ["delta", "absolute"])
def test_an_experts_episode_is_the_same_bits(name, steps, form):
    with ExitStack() as stack:
        fast, plain = pair(stack, name)
        for _, (ours, theirs, difference) in zip(range(steps), lockstep(fast, plain, name, 5, form), strict=False):
            assert difference == 0
            assert_same_step(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["delta", "absolute"])
@pytest.mark.parametrize("name", TASKS)
def test_one_step_from_each_of_2000_states(name, form):
    """States of an expert's noisy episodes; success and reward agree all along."""
    largest, states, episodes = 0.0, 0, []
    with ExitStack() as stack:
        fast, plain = pair(stack, name)
        for seed in count(2000):
            ours = theirs = None
            for ours, theirs, difference in lockstep(fast, plain, name, seed, form):
                assert_same_step(ours, theirs)
                largest, states = max(largest, difference), states + 1
                assert largest <= 1e-10
                if states == 2000:
                    break
            assert ours is not None
            assert theirs is not None
            episodes.append(ours.success == theirs.success)
            if states == 2000:
                break
    assert all(episodes)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_100_expert_episodes_agree(name):
    """From the first step to the last the same bits, so the same outcome whichever simulation is asked for."""
    successes = 0
    with ExitStack() as stack:
        fast, plain = pair(stack, name)
        for seed in range(3000, 3100):
            succeeded = [False, False]
            for ours, theirs, difference in lockstep(fast, plain, name, seed, "delta"):
                assert difference == 0
                succeeded = [succeeded[0] or ours.success, succeeded[1] or theirs.success]
            assert succeeded[0] == succeeded[1]
            successes += succeeded[0]
    assert successes >= 90


def lockstep(fast, plain, name, seed, form):
    """Yields both results of each step and the largest difference of the states after it."""
    fast.reset(seed)
    plain.reset(seed)
    rng = np.random.default_rng([seed, 1])
    for _, command in zip(range(fast.horizon), expert(name)(fast, rng), strict=False):
        action = command.disturbed(rng)
        if form == "absolute":
            goal = fast.goal_of(action)
            ours, theirs = fast.step(goal), plain.step(goal)
        else:
            ours, theirs = fast.step_delta(action), plain.step_delta(action)
        yield ours, theirs, float(np.abs(fast.get_state() - plain.get_state()).max())


@pytest.mark.slow
def test_400_steps_in_free_space():
    rng = np.random.default_rng(0)
    with ExitStack() as stack:
        fast, plain = pair(stack, "lift")
        fast.reset(0)
        plain.reset(0)
        for index in range(400):
            action = np.append(rng.uniform(-0.3, 0.3, 6), -1.0) + 0.2 * (np.arange(7) == 2) * (index < 40)
            fast.step_delta(action)
            plain.step_delta(action)
            np.testing.assert_allclose(fast.get_state(), plain.get_state(), rtol=0, atol=1e-8)


VARIANTS = {
    "base frame": {"input_ref_frame": "base"},
    "coupled": {"uncouple_pos_ori": False},
    "stiffness": {"kp": [120, 130, 140, 150, 160, 170], "damping_ratio": 0.8},
    "absolute in the base frame": {"input_type": "absolute", "input_ref_frame": "base"},
    "full physics": {"lite_physics": False},
}


@pytest.mark.parametrize("name", ["lift", "transport"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_setting_of_the_controller_is_the_same_bits(name, variant):
    if name == "transport" and variant not in ("base frame", "full physics"):
        pytest.skip("one arm shows it")
    fast, plain = (simulation(name, kind, VARIANTS[variant]) for kind in ("compiled", "robosuite"))
    rng = np.random.default_rng(0)
    for environment in (fast, plain):
        environment.reset()
        for robot in environment.robots:  # as RobosuiteEnvironment does after every reset
            robot.part_controllers["right"].new_update = True
    for _ in range(6):
        action = rng.uniform(-1, 1, fast.action_dim)
        fast.step(action)
        plain.step(action)
        np.testing.assert_array_equal(fast.sim.get_state().flatten(), plain.sim.get_state().flatten())


def simulation(name, kind, changes):
    from lfm_envs.simulator import make_simulation

    entry = task(name)
    kwargs = entry.env_kwargs("delta") | {"horizon": 400, "renderer": "mujoco", "seed": 1}
    configs = kwargs["controller_configs"] if entry.arms > 1 else [kwargs["controller_configs"]]
    for config in configs:
        config["body_parts"]["right"] |= {key: value for key, value in changes.items() if key not in kwargs}
    return make_simulation(entry.environment, kwargs | {k: v for k, v in changes.items() if k in kwargs}, kind)


def test_a_controller_it_does_not_know_is_refused():
    with pytest.raises(ConfigError, match=r"impedance_mode 'fixed' only, found 'variable_kp': use simulation='rob"):
        simulation("lift", "compiled", {"impedance_mode": "variable_kp"})


def test_an_unknown_simulation_is_refused():
    with pytest.raises(ConfigError, match="unknown simulation 'robosuit': did you mean 'robosuite'"):
        lfm_envs.make("robosuite/lift", simulation="robosuit")
