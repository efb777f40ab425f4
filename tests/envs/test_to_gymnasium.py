"""Our tasks as environments of Gymnasium: its own checks, its vectors, and the bits of our environments."""

import numpy as np
import pytest

import lfm_envs
from lfm_envs.tasks import TASKS

gymnasium = pytest.importorskip("gymnasium")
check_env = pytest.importorskip("gymnasium.utils.env_checker").check_env
POINT = "lfm/PointMass-v0"
RECOMMENDATIONS = ("ignore:.*symmetric and normalized", "ignore:.*minimum value is", "ignore:.*maximum value is")
"""Advice for learning from scratch: actions are in metres, as demonstrations have them, observations have no bounds."""


def test_every_task_is_registered():
    for task in TASKS.values():
        spec = gymnasium.spec(f"lfm/{task.environment}-v0")
        assert spec.max_episode_steps == task.horizon


@pytest.mark.filterwarnings(*RECOMMENDATIONS)
@pytest.mark.parametrize("obs_type", ["state", "dict"])
def test_gymnasiums_checks_pass(obs_type):
    check_env(gymnasium.make(POINT, obs_type=obs_type, render_mode="rgb_array").unwrapped)


def test_success_terminates_and_the_horizon_truncates():
    env = gymnasium.make(POINT)
    observation, info = env.reset(seed=4)
    assert info == {"is_success": False, "seed": 4}
    ends = []
    while not ends:
        observation, reward, terminated, truncated, info = env.step(observation[2:].astype(np.float64))
        ends = [(terminated, truncated)] if terminated or truncated else []
        assert info["is_success"] == terminated == (reward == 1)
    assert ends == [(True, False)]
    start, _ = env.reset(seed=4)
    for _ in range(60):
        *_, terminated, truncated, info = env.step(start[:2].astype(np.float64))
    assert (terminated, truncated, info["is_success"]) == (False, True, False)


def test_without_a_seed_episodes_follow_from_the_last_one():
    env = gymnasium.make(POINT)
    runs = [[env.reset(seed=seed)[0]] + [env.reset()[0] for _ in range(3)] for seed in (7, 7)]
    assert np.array_equal(*runs)
    assert len({tuple(row) for row in runs[0]}) == 4


@pytest.mark.sim
def test_lift_has_the_bits_of_our_environment():
    pytest.importorskip("robosuite")
    ours, theirs = lfm_envs.make("robosuite/lift"), gymnasium.make("lfm/Lift-v0", obs_type="dict")
    named, (seen, _) = ours.reset(11), theirs.reset(seed=11)
    position, matrix = ours.grip_poses()[0]
    action = np.concatenate([position + np.array([0.02, 0.01, -0.03]), matrix[:2].ravel(), [1.0]])
    for step in range(8):
        assert all(np.array_equal(seen[name], values) for name, values in named.items()), f"step {step}"
        result = ours.step(action)
        seen, reward, terminated, _, info = theirs.step(action)
        named = result.observation
        assert (reward, terminated, info["is_success"]) == (result.reward, result.success, result.success)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("context", [None, "spawn"])
def test_vectors_are_their_environments_side_by_side(context):
    options = {"vectorization_mode": "sync"}
    if context:
        options = {"vectorization_mode": "async", "vector_kwargs": {"context": context}}
    vector = gymnasium.make_vec(POINT, num_envs=2, **options)
    alone = [gymnasium.make(POINT) for _ in range(2)]
    seen, _ = vector.reset(seed=[3, 5])
    assert np.array_equal(seen, [env.reset(seed=seed)[0] for env, seed in zip(alone, (3, 5), strict=True)])
    for _ in range(3):
        seen, *_ = vector.step(np.zeros((2, 2)))
        assert np.array_equal(seen, [env.step(np.zeros(2))[0] for env in alone])
    vector.close()
