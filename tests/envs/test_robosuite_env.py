import importlib.util
import os
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

import lfm_envs
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_envs.tasks import TASKS
from lfm_policy.errors import DataError, RolloutError
from lfm_policy.protocols import Environment

SOME_AT_ONCE = [name if name in ("lift", "transport") else pytest.param(name, marks=pytest.mark.slow) for name in TASKS]
"""One arm and two in the normal run; the others take as long again."""

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]

STEPS = 12


def deltas(arms: int, steps: int = STEPS, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 7 * arms))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@pytest.fixture(scope="module")
def lift():
    env = lfm_envs.make("robosuite/lift")
    yield env
    env.close()


@pytest.fixture(scope="module")
def other_lift():
    env = lfm_envs.make("robosuite/lift")
    yield env
    env.close()


@pytest.mark.parametrize("name", SOME_AT_ONCE)
def test_compiled_code_changes_no_bit(name):
    fast, plain = (lfm_envs.make(f"robosuite/{name}", simulation=kind) for kind in ("compiled", "robosuite"))
    assert isinstance(fast, Environment)
    first = fast.reset(3)
    plain.reset(8)
    assert_same(first, plain.reset(3))
    assert fast.contract.flatten(first).shape == (fast.contract.observation_dim,)
    for action in deltas(TASKS[name].arms):
        ours, theirs = fast.step_delta(action), plain.step_delta(action)
        assert_same(ours.observation, theirs.observation)
        assert (ours.reward, ours.success) == (theirs.reward, theirs.success)
        np.testing.assert_array_equal(fast.get_state(), plain.get_state())
    fast.close()
    plain.close()


def test_the_seed_alone_decides_the_start(lift, other_lift):
    np.random.seed(0)  # noqa: NPY002 - robosuite must not listen to it
    first = lift.reset(11)
    lift.step_delta(deltas(1)[0])
    np.random.seed(1)  # noqa: NPY002
    assert_same(first, lift.reset(11))
    other_lift.reset(2)
    assert_same(first, other_lift.reset(11))
    assert lift.model_xml == other_lift.model_xml
    assert not np.array_equal(first["object"], lift.reset(12)["object"])


def test_the_first_observation_has_poses_relative_to_the_hand():
    """robosuite's own has zeros there; a policy's first chunk would be blind."""
    with closing(lfm_envs.make("robosuite/can")) as env:
        start = env.reset(7)
        assert np.linalg.norm(start["object"][:3]) > 0.05
        again = env.reset_to(env.get_state(), env.model_xml)
        np.testing.assert_allclose(start["object"], again["object"], atol=1e-9)


def test_model_xml_is_this_environments_whatever_was_loaded_last(lift):
    lift.reset(1)
    can = lfm_envs.make("robosuite/can")
    can.reset(1)
    assert "cube_main" in lift.model_xml
    assert "cube_main" not in can.model_xml
    can.close()


@pytest.mark.parametrize("name", ["lift", "transport"])
@pytest.mark.parametrize(("turning", "tolerance"), [(0, 1e-9), (2, 2e-7)])
def test_an_absolute_goal_equals_its_delta_step(name, turning, tolerance):
    """Turning is looser because robosuite rounds a delta's rotation matrix to single precision."""
    by_delta, by_pose = lfm_envs.make(f"robosuite/{name}"), lfm_envs.make(f"robosuite/{name}")
    for seed, action in enumerate(deltas(TASKS[name].arms, steps=3)):
        action = (action.reshape(-1, 7) * [2, 2, 2, *[turning] * 3, 1]).ravel()  # also beyond the clipped range
        by_delta.reset(seed)
        by_pose.reset(seed)
        goal = by_delta.goal_of(action)
        by_delta.step_delta(action)
        by_pose.step(goal)
        np.testing.assert_allclose(by_pose.get_state(), by_delta.get_state(), rtol=0, atol=tolerance)
    by_delta.close()
    by_pose.close()


def test_goals_are_the_controllers_own(lift):
    lift.reset(4)
    for action in deltas(1, steps=5):
        goal = lift.goal_of(action)
        lift.step_delta(action)
        np.testing.assert_array_equal(goal[:3], lift.arms[0].goal_pos)
        np.testing.assert_array_equal(goal[3:9].reshape(2, 3), lift.arms[0].goal_ori[:2])


def test_poses_are_not_clipped(lift):
    lift.reset(0)
    far = lift.goal_of(np.zeros(7))
    far[:3] = [0.3, -0.2, 1.4]
    lift.step(far)
    np.testing.assert_array_equal(lift.arms[0].goal_pos, far[:3])


@pytest.mark.parametrize("name", TASKS)
def test_replay_from_a_recorded_start_is_bit_exact(name):
    env, actions = lfm_envs.make(f"robosuite/{name}"), deltas(TASKS[name].arms)
    env.reset(21)
    start, model = env.get_state(), env.model_xml
    recorded = [(env.step_delta(action).observation, env.get_state()) for action in actions]
    env.reset(22)
    for model_xml in (model, None):  # another model first, then the model it has
        env.reset_to(start, model_xml)
        np.testing.assert_array_equal(env.get_state(), start)
        for action, (observation, state) in zip(actions, recorded, strict=True):
            assert_same(env.step_delta(action).observation, observation)
            np.testing.assert_array_equal(env.get_state(), state)
    env.close()


def test_replay_in_a_fresh_environment_from_mid_episode_is_close(lift, other_lift):
    actions = deltas(1)
    lift.reset(5)
    start, model = lift.get_state(), lift.model_xml
    for action in actions[:6]:
        lift.step_delta(action)
    other_lift.reset_to(lift.get_state(), model, start=start)
    for action in actions[6:]:
        lift.step_delta(action)
        other_lift.step_delta(action)
    np.testing.assert_allclose(other_lift.grip_poses()[0][0], lift.grip_poses()[0][0], atol=1e-3)


def test_looking_does_not_change_the_episode(lift, other_lift):
    lift.reset(6)
    other_lift.reset(6)
    for action in deltas(1, steps=3):
        try:
            image = lift.render(64, 48)
        except RolloutError as error:
            pytest.skip(str(error))
        lift.goal_of(action)
        lift.grip_poses()
        assert_same(lift.step_delta(action).observation, other_lift.step_delta(action).observation)
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    assert image.std() > 10


def test_bad_actions_are_refused(lift):
    lift.reset(0)
    before = lift.get_state()
    with pytest.raises(RolloutError, match=r"shape \(10,\), found shape \(7,\)"):
        lift.step(np.zeros(7))
    with pytest.raises(RolloutError, match="finite"):
        lift.step(np.full(10, np.nan))
    np.testing.assert_array_equal(lift.get_state(), before)


def test_bad_states_and_models_are_refused(lift):
    lift.reset(0)
    with pytest.raises(DataError, match="another task"):
        lift.reset_to(np.zeros(5))
    with pytest.raises(DataError, match="finite"):
        lift.reset_to(np.full(32, np.inf))
    state, broken = lift.get_state(), lift.model_xml.replace("</worldbody>", "</worldboby>")
    with pytest.raises(DataError, match="does not load"):
        lift.reset_to(state, broken)
    lift.reset(0)
    assert isinstance(lift, RobosuiteEnvironment)
    assert not lift.success()


def test_importing_is_quiet_and_a_missing_renderer_is_one_clear_error():
    code = (
        "import lfm_envs; from lfm_policy.errors import RolloutError\n"
        "env = lfm_envs.make('robosuite/lift'); env.reset(0)\n"
        "try: env.render(32, 32)\n"
        "except RolloutError as error: assert 'no headless renderer' in str(error)\n"
        "else: raise SystemExit('rendered without a backend')"
    )
    environment = {**os.environ, "MUJOCO_GL": "disabled"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
