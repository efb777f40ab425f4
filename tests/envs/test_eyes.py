import hashlib
import importlib.util
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import lfm_envs
from lfm_envs.tasks import TASKS
from lfm_policy.contract import Camera
from lfm_policy.errors import RolloutError
from lfm_policy.protocols import SeeingEnvironment

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("fast_simplification") is None, reason="no fast-simplification"),
]
CAMERAS = tuple(Camera(name=name, height=84, width=84) for name in TASKS["lift"].cameras)
STEP = np.array([0.3, -0.2, -0.4, 0, 0, 0.1, -1])

ELSEWHERE = """
import hashlib, lfm_envs
from lfm_policy.contract import Camera
cameras = tuple(Camera(name=name, height=84, width=84) for name in ("agentview", "robot0_eye_in_hand"))
env = lfm_envs.make("robosuite/lift", cameras=cameras, objects=False)
env.reset(3)
env.render(64, 48)
print(hashlib.sha256(env.contract.stack(env.look()).tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def lift():
    env = lfm_envs.make("robosuite/lift", cameras=CAMERAS, objects=False)
    env.reset(3)
    try:
        env.look()
    except RolloutError as error:
        pytest.skip(str(error))
    yield env
    env.close()


def test_pictures_are_the_same_bytes_in_every_process(lift):
    lift.reset(7)
    lift.step_delta(STEP)
    lift.reset(3)
    digest = hashlib.sha256(lift.contract.stack(lift.look()).tobytes()).hexdigest()
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == digest


def test_a_picture_is_a_function_of_the_state_and_leaves_the_physics_alone(lift):
    """After a step robosuite's kinematics are 2 ms old: what replays draw must be what an evaluation saw."""
    assert isinstance(lift, SeeingEnvironment)
    seen, states, looking = [], [], lift
    looking.reset(5)
    for _ in range(6):
        looking.step_delta(STEP)
        seen.append(lift.contract.stack(looking.look()))
        states.append(looking.get_state())
    looking.reset(5)
    for state in states:
        looking.step_delta(STEP)
        np.testing.assert_array_equal(looking.get_state(), state)
    for state, frames in zip(states, seen, strict=True):
        looking.move_to(state)
        np.testing.assert_array_equal(lift.contract.stack(looking.look()), frames)
    assert not np.array_equal(seen[0], seen[-1])


def test_coarse_pictures_look_like_full_ones(lift):
    full = lfm_envs.make("robosuite/lift", cameras=[c.model_copy(update={"drawing": "full"}) for c in CAMERAS])
    full.reset(3)
    lift.reset(3)
    for key, ours in lift.look().items():
        theirs = full.look()[key]
        assert ours.dtype == theirs.dtype == np.uint8
        assert np.abs(ours.astype(int) - theirs).mean() < 5  # of 255
    full.close()


def test_the_cube_is_drawn_as_large_as_it_is(lift):
    """Its size is another one in every episode, and the drawing's model is a copy."""
    model = lift.simulation.sim.model._model
    lift.reset(3)
    before = lift.look()["robot0_eye_in_hand_image"]
    geom = model.geom("cube_g0_vis").id
    size = model.geom_size[geom].copy()
    model.geom_size[geom] = 0.04
    after = lift.look()["robot0_eye_in_hand_image"]
    model.geom_size[geom] = size
    red = [int((p[..., 0].astype(int) - p[..., 1] > 60).sum()) for p in (before, after)]
    assert red[1] > 2.5 * red[0] > 0


def test_a_reset_keeps_the_renderer(lift):
    begun = time.process_time()
    lift.reset(4)
    lift.look()
    assert time.process_time() - begun < 0.25  # a new graphics context takes more than a second


def test_unknown_cameras_are_named(lift):
    env = lfm_envs.make("robosuite/lift", cameras=[Camera(name="agentvew", height=8, width=8)])
    env.reset(0)
    with pytest.raises(RolloutError, match="did you mean 'agentview'"):
        env.look()
    env.close()


def test_a_view_is_found_from_its_contract(lift):
    again = lfm_envs.make(lfm_envs.name_for(lift.contract), **lfm_envs.view_for(lift.contract))
    assert again.contract == lift.contract
    assert [key.name for key in again.contract.observations] == [
        "robot0_eef_pos",
        "robot0_eef_quat",
        "robot0_gripper_qpos",
    ]
    assert lfm_envs.view_for(TASKS["lift"].contract) == {}
    again.close()
