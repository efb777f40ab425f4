"""One rule for masks, filter keys, overlaps and empty splits."""

import h5py
import numpy as np
import pytest

from lfm_policy.data.demos.masks import choose
from lfm_policy.errors import ConfigError, DataError

NAMES = [f"demo_{index}" for index in range(12)]
ALL_BUT_NINE = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]


def names(*indices):
    return np.array([f"demo_{index}" for index in indices], "S10")


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        yield file


def chosen(file, wanted=None):
    split = choose(file, NAMES, "d.hdf5", wanted)
    return [[NAMES.index(name) for name in split[kind]] for kind in ("train", "valid")]


@pytest.mark.parametrize(
    ("masks", "wanted", "train", "valid"),
    [
        ({}, None, ALL_BUT_NINE, [9]),
        ({"train": (3, 1), "valid": (2,)}, None, [1, 3], [2]),
        ({"train": (3, 1)}, None, [1, 3], []),
        ({"valid": (9,)}, None, ALL_BUT_NINE, [9]),
        ({"train": (3, 1), "valid": ()}, None, [1, 3], []),
        ({"20_percent": (4, 5)}, None, ALL_BUT_NINE, [9]),
        ({"20_percent": (4, 5)}, "20_percent", [4, 5], []),
        ({"20_percent": (4, 5), "train": (4, 6), "valid": (5, 7)}, "20_percent", [4], [5]),
        ({"20_percent_train": (4, 5), "20_percent_valid": (1,), "train": (2,)}, "20_percent", [4, 5], [1]),
        ({"20_percent_train": (4, 5)}, "20_percent", [4, 5], []),
    ],
)
def test_the_split(file, masks, wanted, train, valid):
    for name, indices in masks.items():
        file[f"mask/{name}"] = names(*indices)
    assert chosen(file, wanted) == [train, valid]


def test_text_of_any_kind_is_read(file):
    file["mask/train"] = ["demo_1", "demo_2"]
    file["mask/valid"] = np.zeros(0)
    assert chosen(file) == [[1, 2], []]


NO_LIST = "mask/train: expected a list of names of demonstrations, found a"


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (
            {"train": names(1, 2, 3), "valid": names(3, 2)},
            r"\['demo_2', 'demo_3'\] \(2 in all\) are for training",
        ),
        ({"train": names()}, "no demonstration is left to train on"),
        ({"valid": names(*range(12))}, "no demonstration is left to train on"),
        ({"train": names(1, 40)}, r"mask/train names \['demo_40'\], which are not in the file \(12 episodes\)"),
        ({"train": names(1, 1)}, r"mask/train names \['demo_1'\] more than once"),
        ({"train": np.arange(3)}, f"{NO_LIST} data set of int64"),
        ({"train/deep": names(1)}, f"{NO_LIST} Group"),
    ],
)
def test_masks_that_cannot_be_used_are_refused(file, masks, message):
    for name, value in masks.items():
        file[f"mask/{name}"] = value
    with pytest.raises(DataError, match=message):
        chosen(file)


def test_a_mask_that_is_no_group_is_refused(file):
    file["mask"] = names(1)
    with pytest.raises(DataError, match="expected a group 'mask' with lists of demonstrations, found a data set"):
        chosen(file)


def test_filter_keys_are_listed_when_the_one_wanted_is_not_there(file):
    with pytest.raises(ConfigError, match="no filter key '20_percent': it has none"):
        chosen(file, "20_percent")
    for name in ("20_percent", "50_percent_train", "50_percent_valid", "train"):
        file[f"mask/{name}"] = names(1)
    with pytest.raises(ConfigError, match="no filter key 'human'; known: 20_percent, 50_percent"):
        chosen(file, "human")
