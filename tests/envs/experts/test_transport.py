import importlib.util

import numpy as np
import pytest

import lfm_envs
from lfm_envs.episodes import perform
from lfm_envs.experts import expert
from lfm_envs.experts.base import CLOSED, OPEN, Hand, hold, together, unless
from lfm_envs.experts.transport_scene import Scene, facing

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]
SEED = 3


@pytest.fixture(scope="module")
def transport():
    env = lfm_envs.make("robosuite/transport")
    yield env
    env.close()


def test_the_expert_succeeds_with_both_arms_at_work_and_records_until_success_has_lasted(transport):
    episode = perform(transport, expert("transport"), SEED)
    assert episode.success
    assert 250 <= len(episode.steps) <= 470
    assert all(step["rewards"] == 1 for step in episode.steps[-10:])
    actions = np.stack([step["actions"] for step in episode.steps])
    assert actions.shape[1] == 14
    left, right = np.abs(actions[:80, :3]).max(axis=1), np.abs(actions[:80, 7:10]).max(axis=1)
    assert np.mean((left > 0.1) & (right > 0.1)) > 0.8
    assert {actions[-1, 6], actions[-1, 13]} == {OPEN}
    assert not any(Hand(transport, arm).holds("payload") for arm in range(2))


def test_the_expert_picks_the_trash_up_again_when_it_is_knocked_out_of_the_hand(transport):
    transport.reset(SEED)
    scene, data = Scene(transport), transport.simulation.sim.data
    start, knocked = data.get_joint_qpos("trash_joint0").copy(), False
    for command in expert("transport")(transport, np.random.default_rng(0)):
        transport.step_delta(command.action)
        if not knocked and scene.trash().position[2] > 0.92:
            data.set_joint_qpos("trash_joint0", start + np.array([0.03, -0.02, 0.01, 0, 0, 0, 0]))
            knocked = True
        assert transport.simulation.timestep < 250
        if scene.trash_is_out() and scene.trash().position[2] < 0.85:
            break
    assert knocked


def test_the_expert_gives_up_when_the_hammer_is_on_the_floor(transport):
    transport.reset(SEED)
    commands = expert("transport")(transport, np.random.default_rng(0))
    transport.step_delta(next(commands).action)
    data = transport.simulation.sim.data
    hammer = data.get_joint_qpos("payload_joint0").copy()
    data.set_joint_qpos("payload_joint0", np.concatenate([[0.0, 0.0, 0.1], hammer[3:]]))
    assert next(commands, None) is None
    assert not transport.success()


def test_an_arm_that_is_done_rests_until_the_other_is(transport):
    transport.reset(SEED)
    left, right = Hand(transport, 0), Hand(transport, 1)
    parts = (left, hold(left, CLOSED, lambda: False, 2)), (right, hold(right, OPEN, lambda: False, 5))
    commands = list(together(*parts))
    assert len(commands) == 5
    for command in commands:
        assert command.action.shape == command.noise.shape == (14,)
        assert (command.action[6], command.action[13]) == (CLOSED, OPEN)
        np.testing.assert_allclose(np.delete(command.action, [6, 13]), 0, atol=1e-9)


def test_a_skill_is_broken_off_or_says_how_it_ended(transport):
    transport.reset(SEED)
    hand = Hand(transport)
    steps = []

    def ending(broken):
        ended = yield from unless(broken, hold(hand, OPEN, lambda: len(steps) == 3))
        steps.append(ended)

    for _ in ending(lambda: False):
        steps.append(None)
    assert steps == [None, None, None, True]
    steps.clear()
    for _ in ending(lambda: len(steps) == 2):
        steps.append(None)
    assert steps == [None, None, False]


def test_both_hands_lean_towards_the_middle(transport):
    transport.reset(SEED)
    for arm, forward in enumerate((1, -1)):
        approach = facing(Hand(transport, arm), 0.1, lean=0.3)[:, 2]
        assert approach[2] == pytest.approx(-np.cos(0.3))
        assert approach[1] * forward > 0.2
