"""Environments in threads: the results of Gymnasium's own vector, steps at the same time, errors that come through."""

import sys
import threading

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

import lfm_envs
from lfm_envs.point_mass import PointMass
from lfm_envs.to_gymnasium import LFMEnv
from lfm_envs.vector import ThreadVectorEnv
from lfm_policy.errors import RolloutError

POINT = "lfm/PointMass-v0"


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_the_results_are_those_of_gymnasiums_own_vector(mode):
    """Through successes, time limits and the resets after them."""
    ours = gymnasium.make_vec(POINT, 3, threads=2, autoreset_mode=mode)
    assert isinstance(ours, ThreadVectorEnv)
    theirs = gymnasium.make_vec(POINT, 3, "sync", vector_kwargs={"autoreset_mode": mode})
    assert data_equivalence(ours.reset(seed=4), theirs.reset(seed=4))
    seen, ended = ours.reset(seed=4)[0], 0
    theirs.reset(seed=4)
    for step in range(130):
        goals = seen[:, 2:] if step % 2 else seen[:, 2:] + np.array([[0.0], [0.0], [5.0]])
        result = ours.step(goals.astype(np.float64))
        assert data_equivalence(result, theirs.step(goals.astype(np.float64)))
        seen, ended = result[0], ended + int(result[2].sum() + result[3].sum())
    assert ended > 3
    ours.close()
    theirs.close()


class Meeting(PointMass):
    """Steps only when another one steps at the same time."""

    barrier = threading.Barrier(2)

    def step(self, action):
        self.barrier.wait(timeout=20)
        return super().step(action)


class Broken(PointMass):
    def step(self, action):
        raise RolloutError("the simulator lost the cube")


def _vector(kind: type) -> ThreadVectorEnv:
    lfm_envs.register(kind.__name__, kind, kind().contract)
    return ThreadVectorEnv([lambda: LFMEnv(kind.__name__)] * 2, threads=2)


def test_members_step_at_the_same_time():
    vector = _vector(Meeting)
    vector.reset(seed=0)
    for _ in range(3):
        observations, *_ = vector.step(np.zeros((2, 2)))
        assert len(observations) == 2
    assert not Meeting.barrier.broken  # a member that stepped alone would have waited in vain
    vector.close()


def test_errors_of_a_member_come_through():
    vector = _vector(Broken)
    vector.reset(seed=0)
    with pytest.raises(RolloutError, match="lost the cube"):
        vector.step(np.zeros((2, 2)))
    vector.close()


@pytest.mark.sim
def test_a_compiled_step_lets_other_threads_run():
    """With switches between threads forbidden, this one runs beside a long step only if the step allows it."""
    pytest.importorskip("robosuite")
    from lfm_envs.fast.osc import control_step

    environment = lfm_envs.make("robosuite/lift")
    environment.reset(0)
    stepper = environment.simulation._stepper
    arguments = (stepper._simulation, stepper._arms, stepper._servo, 5000, stepper._lite)
    stepping, counted = threading.Event(), 0

    def long_step() -> None:
        stepping.set()
        control_step(*arguments)

    before = sys.getswitchinterval()
    sys.setswitchinterval(5)
    try:
        thread = threading.Thread(target=long_step)
        thread.start()
        stepping.wait()
        while thread.is_alive() and counted <= 1000:
            counted += 1
    finally:
        sys.setswitchinterval(before)
    thread.join()
    environment.close()
    assert counted > 1000


@pytest.mark.sim
def test_physics_in_threads_has_the_bits_of_one_environment():
    pytest.importorskip("robosuite")
    vector = gymnasium.make_vec("lfm/Lift-v0", 2, threads=2)
    alone = lfm_envs.make("robosuite/lift")
    seen, _ = vector.reset(seed=[7, 8])
    actions = np.concatenate([seen[:, :3], np.tile([1.0, 0, 0, 0, -1, 0, 1], (2, 1))], axis=1).astype(np.float64)
    actions[:, 2] += 0.05
    rows = np.stack([vector.step(actions)[0] for _ in range(15)])
    vector.close()
    for member, seed in enumerate((7, 8)):
        alone.reset(seed)
        expected = [alone.contract.flatten(alone.step(actions[member]).observation) for _ in range(15)]
        np.testing.assert_array_equal(rows[:, member], np.stack(expected))
    alone.close()
