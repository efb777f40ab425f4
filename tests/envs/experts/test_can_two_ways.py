"""Two ways to grasp a can: taken by a coin from the same starts, told apart, and carried along to who evaluates."""

import importlib.util
import json
from itertools import pairwise

import h5py
import numpy as np
import pytest

import lfm_envs
from lfm_envs.collect import FILE, IDENTITY, Recipe, collect
from lfm_envs.episodes import record
from lfm_envs.experts.can import can
from lfm_envs.experts.can_two_ways import LEFT, MODES, RIGHT, can_two_ways, drawn, told
from lfm_envs.modes import BETWEEN
from lfm_envs.prepare import prepare
from lfm_envs.tasks import TASKS
from lfm_policy.data.windows.store import open_store
from lfm_policy.errors import ConfigError

SIMULATED = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]
CONTRACT = TASKS["can"].view(modes=MODES.names)


def rows_of(episode) -> np.ndarray:
    return np.stack([CONTRACT.flatten(observation) for observation in episode.observations])


def side_of(seed: int) -> str:
    return LEFT if drawn(np.random.default_rng([seed, 1])).turn > 0 else RIGHT


def test_a_fair_coin_takes_the_side():
    sides = [side_of(seed) for seed in range(4000)]
    squared = sum((sides.count(name) - 2000) ** 2 / 2000 for name in (LEFT, RIGHT))
    assert squared < 10.83, "chi-squared with one degree of freedom, at one in a thousand"
    # and it says nothing about the side that comes next
    same = sum(one == other for one, other in pairwise(sides))
    assert abs(same - 1999.5) < 3.3 * np.sqrt(3999) / 2


@pytest.fixture(scope="module")
def env():
    pytest.importorskip("robosuite")
    env = lfm_envs.make("robosuite/can", modes=MODES.names)
    yield env
    env.close()


class TestInSimulation:
    pytestmark = SIMULATED

    def test_from_one_start_the_expert_succeeds_both_ways_and_they_are_told_apart(self, env):
        modes, starts = [], []
        for seed in (next(seed for seed in range(20) if side_of(seed) == side) for side in (LEFT, RIGHT)):
            generator = np.random.default_rng([seed, 1])
            episode = record(env, env.reset(4), can_two_ways(env, generator), 4, generator, noise=1.0)
            assert episode.success
            rows = rows_of(episode)
            modes.append(told(CONTRACT, rows))
            starts.append(rows[0])
            assert env.mode() == modes[-1]
            assert told(CONTRACT, rows[:10]) is None
        assert modes == [LEFT, RIGHT]
        np.testing.assert_array_equal(*starts)

    def test_one_way_is_between_them(self, env):
        generator = np.random.default_rng([0, 1])
        episode = record(env, env.reset(0), can(env, generator), 0, generator, noise=1.0)
        assert told(CONTRACT, rows_of(episode)) == env.mode() == BETWEEN

    def test_a_collection_says_that_it_has_modes_and_holds_them(self, tmp_path):
        recipe = Recipe("can", episodes=3, seed=1, modes=2)
        summary = collect(recipe, tmp_path, workers=1)
        assert summary["modes"] == json.loads((tmp_path / IDENTITY).read_text())["modes"] == 2
        with h5py.File(tmp_path / FILE) as file:
            found = [file[f"data/demo_{n}"].attrs["seed"] for n in range(3)]
        prepare([tmp_path / FILE], tmp_path / "can.zarr")
        store = open_store(tmp_path / "can.zarr")
        assert store.contract.modes == MODES.names
        assert [told(store.contract, store.episode(n).observation) for n in range(3)] == [side_of(n) for n in found]
        name, factory = lfm_envs.factory_for(store.contract)
        environment = factory()
        assert (name, environment.contract) == ("robosuite/can", store.contract)
        environment.close()


def test_one_way_is_the_collection_that_it_was():
    assert "modes" not in Recipe("can", episodes=3, seed=1).identity()
    assert Recipe("can", episodes=3, seed=1).expert is can
    assert Recipe("can", episodes=3, seed=1).names == ()


def test_ways_that_are_not_known_are_refused():
    with pytest.raises(ConfigError, match="one way is known to do task 'lift': expected modes=1, found 2"):
        _ = Recipe("lift", episodes=3, seed=1, modes=2).expert
    with pytest.raises(ConfigError, match=r"task 'can': expected 2, \('left', 'right'\), or one, found 3"):
        _ = Recipe("can", episodes=3, seed=1, modes=3).expert
