import numpy as np
import pytest

from lfm_envs.point_mass import CONTRACT
from lfm_policy.chunks.delayed import Link, LinkedHorizon
from lfm_policy.chunks.horizon import RecedingHorizon
from lfm_policy.errors import RolloutError
from lfm_policy.protocols import ChunkBatch


class Counting:
    """Chunk c is 100 c, 100 c + 1, ...: an action says which chunk and which index it comes from."""

    contract = CONTRACT

    def __init__(self, observation_steps=2, action_steps=8, horizon=16):
        self.observation_steps, self.action_steps, self.noise_shape = observation_steps, action_steps, (horizon, 2)
        self.histories, self.noises = [], []

    def predict(self, histories, noise):
        self.histories.append(histories.copy())
        self.noises.append(noise.copy())
        chunk = 100.0 * (len(self.noises) - 1) + np.arange(self.noise_shape[0])
        return ChunkBatch(np.repeat(chunk[None, :, None], 2, -1), nfe=1)


def observations(count):
    return np.arange(count, dtype=np.float32)[:, None] * np.ones(4, np.float32)


def test_executes_the_indices_of_the_recipe():
    policy = Counting()
    horizon = RecedingHorizon(policy, seed=7)
    actions = [horizon.act(row)[0] for row in observations(18)]
    assert actions == [*range(1, 9), *range(101, 109), 201, 202]


def test_history_repeats_the_first_observation_then_slides():
    policy = Counting(observation_steps=3, action_steps=2, horizon=8)
    horizon = RecedingHorizon(policy, seed=7)
    actions = [horizon.act(row)[0] for row in observations(5)]
    assert actions == [2, 3, 102, 103, 202]
    assert [history[0, :, 0].tolist() for history in policy.histories] == [[0, 0, 0], [0, 1, 2], [2, 3, 4]]
    assert policy.histories[0].dtype == np.float32


def test_noise_is_a_function_of_seed_and_chunk():
    policy = Counting()
    for seed in (5, 6, 5):
        horizon = RecedingHorizon(policy, seed)
        for row in observations(9):
            horizon.act(row)
    first, second, other, _, again, again_second = policy.noises
    expected = np.random.default_rng((5, 1)).standard_normal((16, 2)).astype(np.float32)
    assert np.array_equal(second[0], expected)
    assert np.array_equal(first, again)
    assert np.array_equal(second, again_second)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_refuses_short_chunks_nan_and_no_observation():
    horizon = RecedingHorizon(Counting(), seed=0)
    with pytest.raises(RolloutError, match="observe"):
        _ = horizon.history
    with pytest.raises(RolloutError, match="8 actions is too short"):
        horizon.advance(np.zeros((8, 2)))
    chunk = np.zeros((16, 2))
    chunk[15] = np.nan
    assert len(horizon.advance(chunk).actions) == 8, "what is not executed may be anything"
    chunk[8, 1] = np.inf
    with pytest.raises(RolloutError, match="seed 0 holds NaN"):
        horizon.advance(chunk)


def test_looking_changes_nothing():
    """History, noise and what will be lost are the same however often they are asked for; only `advance` advances."""
    horizon = LinkedHorizon(Counting(), 3, Link(packet_loss=0.5))
    horizon.observe(observations(2))
    lost = []
    for _ in range(20):
        looks = [(horizon.history.tolist(), horizon.noise.tolist(), horizon.lost, horizon.chunks) for _ in range(3)]
        assert looks[0] == looks[1] == looks[2]
        lost.append(horizon.lost)
        executed = horizon.advance(None if horizon.lost else np.ones((16, 2)))
        assert executed.seam == (None if lost[-1] else 0)
    assert horizon.chunks == 20 - sum(lost)
    assert 4 < sum(lost) < 16


def test_an_episode_goes_on_elsewhere_from_its_chunk_number():
    begun, moved = RecedingHorizon(Counting(), 5), RecedingHorizon(Counting(), 5, chunks=2)
    for _ in range(2):
        begun.advance(np.zeros((16, 2)))
    assert np.array_equal(begun.noise, moved.noise)


def test_nothing_to_go_on_with():
    for horizon in (RecedingHorizon(Counting(), 0), LinkedHorizon(Counting(), 0, Link(packet_loss=0.5))):
        with pytest.raises(RolloutError, match="no earlier one"):
            horizon.advance(None)
