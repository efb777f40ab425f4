import numpy as np
import pytest
import torch

from lfm_policy.contract import ArmController, Contract, ObservationKey
from lfm_policy.data.windows.memory import WindowIndex, Windows
from lfm_policy.data.windows.store import Episode, open_store, write_store
from lfm_policy.errors import DataError


def window_rows(*arguments):
    index = WindowIndex.of(*arguments)
    return index.rows(torch.arange(len(index)))


def brute_force(lengths, horizon, observation_steps, action_steps):
    """Pad each episode by repetition, slide a window over it, one row at a time."""
    windows, begin = [], 0
    for length in lengths:
        rows = list(range(begin, begin + length))
        padded = [rows[0]] * (observation_steps - 1) + rows + [rows[-1]] * (action_steps - 1)
        windows += [padded[start : start + horizon] for start in range(len(padded) - horizon + 1)]
        begin += length
    return torch.tensor(windows).reshape(-1, horizon)


@pytest.mark.parametrize(
    ("horizon", "observation_steps", "action_steps"), [(16, 2, 8), (16, 1, 16), (8, 4, 2), (1, 1, 1)]
)
@pytest.mark.parametrize("lengths", [[30], [8, 40, 9], [3, 20, 1, 16], [1, 2]])
def test_rows_equal_brute_force(lengths, horizon, observation_steps, action_steps):
    rows = window_rows(torch.tensor(lengths).cumsum(0), horizon, observation_steps, action_steps)
    assert torch.equal(rows, brute_force(lengths, horizon, observation_steps, action_steps))


@pytest.mark.parametrize("length", [8, 15, 50, 400])
def test_diffusion_policy_count_is_length_minus_7(length):
    assert len(window_rows(torch.tensor([length]), 16, 2, 8)) == length - 7


@pytest.mark.parametrize(("observation_steps", "action_steps"), [(0, 8), (2, 0), (2, 16), (17, 1)])
def test_impossible_steps_are_refused(observation_steps, action_steps):
    with pytest.raises(DataError, match="observation_steps"):
        window_rows(torch.tensor([30]), 16, observation_steps, action_steps)


@pytest.fixture
def store(tmp_path):
    contract = Contract(
        suite_version="1.5.2",
        environment="Lift",
        robots=("Panda",),
        controllers=(ArmController(),),
        action_dim=10,
        observations=(ObservationKey(name="object", dim=3),),
    )
    episodes = [
        Episode(np.full((n, 3), e) + np.arange(n)[:, None] / 100, np.full((n, 10), -e) - np.arange(n)[:, None] / 100)
        for e, n in enumerate([12, 5, 20, 30], start=1)
    ]
    write_store(tmp_path / "d.zarr", episodes, contract, {"train": [0, 1, 3], "valid": [2]}, {})
    return open_store(tmp_path / "d.zarr")


def test_from_store_takes_only_the_split_and_never_mixes_episodes(store):
    windows = Windows.from_store(store)
    assert len(windows) == 5 + 0 + 23
    batch = windows.gather(torch.arange(len(windows)))
    assert batch.observation.shape == (28, 2, 3)
    assert batch.action.shape == (28, 16, 10)
    episode = batch.action.neg().floor()
    assert (episode == episode[:, :1, :1]).all()
    assert set(episode.unique().tolist()) == {1.0, 4.0}
    assert len(Windows.from_store(store, "valid")) == 13


def test_window_pads_with_first_and_last_rows(store):
    windows = Windows.from_store(store)
    first, last = windows.gather(torch.tensor([0])), windows.gather(torch.tensor([len(windows) - 1]))
    assert torch.equal(first.observation[0, 0], first.observation[0, 1])
    assert torch.equal(first.action[0, :, 0], -1 - torch.tensor([0, *range(12), 11, 11, 11]) / 100)
    assert torch.equal(last.action[0, :, 0], -4 - torch.tensor([*range(21, 30), *[29] * 7]) / 100)
    # the observations are the first To rows of the same window
    assert torch.equal(last.observation[0, :, 0], -last.action[0, :2, 0])


def test_gather_returns_what_was_asked_for_in_that_order(store):
    windows = Windows.from_store(store).to("cpu")
    index = torch.tensor([7, 0, 7])
    batch = windows.gather(index)
    assert torch.equal(batch.action, windows.action[windows.rows[index]])
    assert torch.equal(batch.action[0], batch.action[2])


def test_split_without_windows_is_an_error(store):
    with pytest.raises(DataError, match="no window"):
        Windows.from_store(store, horizon=64)
