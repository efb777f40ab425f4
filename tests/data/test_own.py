import numpy as np
import pytest

from lfm_policy.data.own import Demonstration, store_demonstrations
from lfm_policy.data.windows.store import open_store
from lfm_policy.errors import DataError
from tests.contracts import JOINTS

STATE, WORLD = "observation.state", "observation.environment_state"


def demonstrations(count, named=True):
    generator = np.random.default_rng(0)
    for number in range(count):
        length = 5 + number
        parts = {STATE: generator.normal(size=(length, 3)), WORLD: generator.normal(size=(length, 4))}
        seen = parts if named else np.hstack([parts[WORLD], parts[STATE]])
        yield Demonstration(seen, generator.normal(size=(length, 3)), success=number != 1)


@pytest.mark.parametrize("named", [True, False], ids=["by name", "in order"])
def test_a_generator_becomes_a_data_set(tmp_path, named):
    counts = store_demonstrations(
        tmp_path / "own.zarr", demonstrations(12, named), JOINTS, hold_out=4, source={"from": "a test"}
    )
    assert counts == {"episodes": 11, "steps": sum(range(5, 17)) - 6, "valid": 2, "failures": 1}
    store = open_store(tmp_path / "own.zarr")
    assert store.contract == JOINTS
    assert store.source == {"kind": "own", "from": "a test"}
    assert store.valid.tolist() == [3, 7]
    assert sorted([*store.train, *store.valid]) == list(range(11))
    kept = [demonstration for demonstration in demonstrations(12) if demonstration.success]
    for index, demonstration in enumerate(kept):
        episode = store.episode(index)
        expected = np.hstack([demonstration.observations[WORLD], demonstration.observations[STATE]])
        assert np.array_equal(episode.observation, expected.astype(np.float32))
        assert np.array_equal(episode.action, demonstration.actions.astype(np.float32))


def test_failures_may_be_kept(tmp_path):
    assert store_demonstrations(tmp_path / "own.zarr", demonstrations(3), JOINTS, failures=True)["episodes"] == 3


@pytest.mark.parametrize(
    ("seen", "actions", "message"),
    [
        ({STATE: np.zeros((5, 3))}, np.zeros((5, 3)), f"episode 0: observation '{WORLD}' is missing"),
        ({STATE: np.zeros((5, 2)), WORLD: np.zeros((5, 4))}, np.zeros((5, 3)), "expected width 3"),
        ({STATE: np.zeros((4, 3)), WORLD: np.zeros((5, 4))}, np.zeros((5, 3)), "as many rows everywhere"),
        (np.zeros((5, 7)), np.zeros((5, 4)), "expected action of shape"),
        (np.full((5, 7), np.nan), np.zeros((5, 3)), "NaN"),
        (np.zeros((0, 7)), np.zeros((0, 3)), "L > 0"),
    ],
)
def test_what_the_contract_does_not_say_is_refused(tmp_path, seen, actions, message):
    with pytest.raises(DataError, match=message):
        store_demonstrations(tmp_path / "own.zarr", [Demonstration(seen, actions)], JOINTS)
    assert not (tmp_path / "own.zarr").exists()


def test_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="no episode"):
        store_demonstrations(tmp_path / "own.zarr", [], JOINTS)
