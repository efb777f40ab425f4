"""Disturbances do what they say, from the step they say, and leave the rest of the episode alone."""

import numpy as np
import pytest

import lfm_envs
from lfm_envs.perturbed import Perturbed
from lfm_envs.point_mass import PointMass, expert
from lfm_policy.contract import Camera
from lfm_policy.errors import ConfigError
from tests import seeing
from tests.rollout.scripted import Sided


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


class TwoCameras(seeing.SeeingPointMass):
    """Sees itself from above, and from behind glass."""

    contract = seeing.CONTRACT.model_copy(
        update={"cameras": tuple(Camera(name=name, height=32, width=32) for name in ("above", "glass"))}
    )

    def look(self) -> dict[str, np.ndarray]:
        return {"above_image": self.render(32, 32), "glass_image": self.render(32, 32) // 2}


def pictures(kind: str, seed: int = 5) -> list[dict[str, np.ndarray]]:
    environment = Perturbed(TwoCameras(), kind, 3)
    environment.reset(seed)
    seen = [environment.look()]
    for _ in range(6):
        environment.step(np.array([0.9, 0.9]))
        seen.append(environment.look())
    return [dict(row) for row in seen]


@pytest.mark.parametrize("kind", ["moved", "occluded", "swapped"])
def test_pictures_are_what_they_are_before_its_step(kind):
    for row, expected in zip(pictures(kind)[:3], pictures("none")[:3], strict=True):
        np.testing.assert_equal(row, expected)


def test_occluded_hides_a_quarter_of_the_first_picture_at_one_place():
    places = []
    for row, expected in zip(pictures("occluded")[3:], pictures("none")[3:], strict=True):
        black = (row["above_image"] == 0).all(axis=2)
        rows, columns = np.flatnonzero(black.any(1)), np.flatnonzero(black.any(0))
        assert (len(rows), len(columns), black.sum()) == (16, 16, 256), "a rectangle"
        np.testing.assert_array_equal(row["above_image"][~black], expected["above_image"][~black])
        np.testing.assert_array_equal(row["glass_image"], expected["glass_image"])
        places.append((rows[0], columns[0]))
    assert len(set(places)) == 1
    other = (pictures("occluded", seed=6)[3]["above_image"] == 0).all(axis=2)
    assert (np.flatnonzero(other.any(1))[0], np.flatnonzero(other.any(0))[0]) not in places


def test_swapped_exchanges_the_cameras():
    for row, expected in zip(pictures("swapped")[3:], pictures("none")[3:], strict=True):
        np.testing.assert_array_equal(row["above_image"], expected["glass_image"])
        np.testing.assert_array_equal(row["glass_image"], expected["above_image"])


def test_the_mode_is_that_of_what_really_happens():
    environment, undisturbed = Perturbed(Sided(), "order", 0), Sided()
    for seed in range(6):
        environment.reset(seed)
        undisturbed.reset(seed)
        undisturbed._position = environment._environment._position = undisturbed._goal.copy()
        assert environment.mode() == undisturbed.mode() is not None


@pytest.mark.parametrize(("kind", "needed"), [("occluded", 1), ("swapped", 2)])
def test_what_has_no_cameras_cannot_lose_its_view(kind, needed):
    with pytest.raises(ConfigError, match=rf"'{kind}' needs {needed} camera\(s\), found 0"):
        Perturbed(PointMass(), kind, 3)


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
