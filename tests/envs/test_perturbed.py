"""Disturbances do what they say, from the step they say, and leave the rest of the episode alone."""

import numpy as np
import pytest

import lfm_envs
from lfm_envs.perturbed import Perturbed
from lfm_envs.point_mass import PointMass, expert
from lfm_policy.errors import ConfigError


def episode(kind: str, step: int = 3, steps: int = 6, seed: int = 5) -> list[dict]:
    environment = Perturbed(PointMass(), kind, step, distance_m=0.3)
    seen = [environment.reset(seed)]
    for _ in range(steps):
        seen.append(environment.step(np.array([0.9, 0.9])).observation)
    return [dict(row) for row in seen]


@pytest.fixture
def calm():
    return episode("none")


@pytest.mark.parametrize("kind", ["moved", "order", "frozen", "noisy"])
def test_nothing_happens_before_its_step(kind, calm):
    for row, expected in zip(episode(kind)[:3], calm[:3], strict=True):
        np.testing.assert_equal(row, expected)


def test_moved_shifts_the_goal_once(calm):
    shifts = [np.linalg.norm(a["goal"] - b["goal"]) for a, b in zip(episode("moved"), calm, strict=True)]
    assert shifts[:3] == [0, 0, 0]
    assert shifts[3:] == pytest.approx([shifts[3]] * 4)
    assert 0.05 < shifts[3] <= 0.3 + 1e-9, "at most the distance: the goal stays in the square"


def test_order_reverses_the_keys(calm):
    for row, expected in zip(episode("order")[3:], calm[3:], strict=True):
        np.testing.assert_array_equal(row["position"], expected["goal"])
        np.testing.assert_array_equal(row["goal"], expected["position"])


def test_frozen_repeats_the_first_key(calm):
    rows = episode("frozen")
    for row in rows[3:]:
        np.testing.assert_array_equal(row["position"], calm[2]["position"])
    assert not np.array_equal(rows[6]["position"], calm[6]["position"])


def test_noisy_is_white_and_small(calm):
    errors = np.array([a["position"] - b["position"] for a, b in zip(episode("noisy"), calm, strict=True)])
    assert (errors[3:] != 0).all()
    assert 0.02 < errors[3:].std() < 0.15, "0.06: a fifth of the distance"


def test_what_has_no_fingers_cannot_lose_its_grip():
    with pytest.raises(ConfigError, match="has no fingers"):
        Perturbed(PointMass(), "loose", 3)


def test_is_a_function_of_the_seed():
    np.testing.assert_equal(episode("moved"), episode("moved"))
    assert not np.array_equal(episode("moved")[-1]["goal"], episode("moved", seed=6)[-1]["goal"])


def test_the_task_can_still_be_done():
    environment = Perturbed(PointMass(), "moved", 4)
    observation, success = environment.reset(3), False
    for _ in range(environment.horizon):
        result = environment.step(expert(observation))
        observation, success = result.observation, success or result.success
    assert success


def test_unknown_kind():
    with pytest.raises(ConfigError, match="did you mean 'frozen'"):
        Perturbed(PointMass(), "frozn", 3)


@pytest.mark.sim
def test_the_cube_of_lift_is_really_elsewhere():
    environment = Perturbed(lfm_envs.make("robosuite/lift"), "moved", 1, distance_m=0.05)
    try:
        before = environment.reset(0)
        pose = environment._environment.grip_poses()[0]
        action = np.concatenate([pose[0], pose[1][:2].ravel(), [-1.0]])
        after = environment.step(action).observation
        moved = after["object"][:3] - before["object"][:3]
        assert np.linalg.norm(moved[:2]) == pytest.approx(0.05, abs=2e-3)
        assert abs(moved[2]) < 2e-2
    finally:
        environment.close()


@pytest.mark.sim
def test_loose_fingers_stay_open():
    environment = Perturbed(lfm_envs.make("robosuite/lift"), "loose", 3)
    try:
        environment.reset(0)
        pose = environment._environment.grip_poses()[0]
        closing = np.concatenate([pose[0], pose[1][:2].ravel(), [1.0]])
        gaps = [np.ptp(environment.step(closing).observation["robot0_gripper_qpos"]) for _ in range(12)]
        assert gaps[1] < gaps[11], "closing before step 3, open after"
        assert closing[-1] == 1, "the caller's action is left as it is"
    finally:
        environment.close()
