"""A reset that keeps the model equals robosuite's, which builds it anew: model, state, observation, XML."""

import importlib.util
from contextlib import closing

import numpy as np
import pytest

import lfm_envs
from lfm_envs.tasks import TASKS

SOME_AT_ONCE = [name if name in ("lift", "transport") else pytest.param(name, marks=pytest.mark.slow) for name in TASKS]
"""One arm and two in the normal run; the others take as long again."""

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]


def model_bytes(env):
    import mujoco  # not before robosuite: the environment chooses how mujoco renders first

    model = env.simulation.sim.model._model
    content = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, content)
    return content


def assert_same_start(ours, theirs, seed):
    first, expected = ours.reset(seed), theirs.reset(seed)
    assert first.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(first[key], value, err_msg=key)
    np.testing.assert_array_equal(ours.get_state(), theirs.get_state())
    np.testing.assert_array_equal(model_bytes(ours), model_bytes(theirs))
    assert ours.model_xml == theirs.model_xml
    for field in ("qacc_warmstart", "qacc", "ctrl", "xpos", "xquat", "qM"):
        ours_now, theirs_now = (getattr(env.simulation.sim.data._data, field) for env in (ours, theirs))
        np.testing.assert_array_equal(ours_now, theirs_now, err_msg=field)


@pytest.mark.parametrize("name", SOME_AT_ONCE)
def test_keeping_the_model_changes_no_bit(name):
    rng = np.random.default_rng(0)
    with (
        closing(lfm_envs.make(f"robosuite/{name}")) as ours,
        closing(lfm_envs.make(f"robosuite/{name}", simulation="robosuite")) as theirs,
    ):
        for seed in (4, 5):
            kept = ours.simulation.sim
            assert_same_start(ours, theirs, seed)
            assert ours.simulation.sim is kept
            for action in rng.uniform(-1, 1, (3, 7 * ours.task.arms)):
                ours.step_delta(action)
                theirs.step_delta(action)
            np.testing.assert_array_equal(ours.get_state(), theirs.get_state())


def test_a_recorded_model_in_between_is_left_behind():
    with (
        closing(lfm_envs.make("robosuite/lift")) as ours,
        closing(lfm_envs.make("robosuite/lift", simulation="robosuite")) as theirs,
    ):
        ours.reset(1)
        recorded, state = ours.model_xml, ours.get_state()
        ours.reset(2)
        ours.reset_to(state, recorded)
        assert ours.model_xml == recorded
        for seed in (3, 4):
            assert_same_start(ours, theirs, seed)
