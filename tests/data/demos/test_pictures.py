import json
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

from lfm_policy.contract import Contract, ObservationKey
from lfm_policy.data.demos.file import open_demos
from lfm_policy.data.demos.pictures import CAMERAS, find_pictures
from lfm_policy.errors import DataError
from tests.data.demos.recordings import V15

LENGTH = 5
CONTRACT = Contract(
    suite_version="1.5.2",
    environment="Lift",
    robots=("Panda",),
    controllers=({},),
    action_dim=10,
    observations=(ObservationKey(name="object", dim=10),),
)


def frames(seed=0, shape=(LENGTH, 8, 6, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@contextmanager
def opened(path, first, second=None, attributes=None):
    """A file in robomimic's layout whose two demonstrations hold these pictures."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = V15
        data.attrs.update(attributes or {})
        for index, pictures in enumerate((first, first if second is None else second)):
            demo = data.create_group(f"demo_{index}")
            demo["actions"], demo["states"] = np.zeros((LENGTH, 7)), np.zeros((LENGTH, 4))
            demo["obs/object"] = np.zeros((LENGTH, 10))
            for key, values in pictures.items():
                demo[f"obs/{key}"] = values
    with open_demos(path, {"Lift": CONTRACT}) as file:
        yield file


def test_official_files_hold_full_drawings(tmp_path):
    pictures = {"agentview_image": frames(0), "robot0_eye_in_hand_image": frames(1)}
    with opened(tmp_path / "image.hdf5", pictures) as file:
        found = find_pictures(file)
        assert [(c.name, c.height, c.width, c.drawing) for c in found.cameras] == [
            ("agentview", 8, 6, "full"),
            ("robot0_eye_in_hand", 8, 6, "full"),
        ]
        np.testing.assert_array_equal(found.read(0), np.stack([frames(0), frames(1)], axis=1))
        chosen = find_pictures(file, ["robot0_eye_in_hand"])
        np.testing.assert_array_equal(chosen.read(1)[:, 0], frames(1))


def test_what_a_file_says_of_its_pictures_counts(tmp_path):
    said = [{"name": "agentview", "height": 8, "width": 6, "drawing": "coarse"}]
    with opened(tmp_path / "own.hdf5", {"agentview_image": frames()}, attributes={CAMERAS: json.dumps(said)}) as file:
        assert find_pictures(file).cameras[0].drawing == "coarse"


def test_channels_first_is_turned_and_said(tmp_path):
    with opened(tmp_path / "chw.hdf5", {"agentview_image": np.moveaxis(frames(), -1, 1)}) as file:
        found = find_pictures(file)
        np.testing.assert_array_equal(found.read(0)[:, 0], frames())
        assert "channels first" in found.notes()[0]


@pytest.mark.parametrize(
    ("first", "second", "names", "message"),
    [
        ({}, None, None, "holds no pictures.*lfm render"),
        ({"agentview_image": frames()}, None, ["agentvew"], "did you mean 'agentview'"),
        ({"agentview_image": frames() / 255.0}, None, None, r"uint8.*float64 \(0"),
        ({"agentview_image": np.full((LENGTH, 8, 6, 3), np.nan, np.float32)}, None, None, "NaN among them"),
        ({"agentview_image": frames(shape=(LENGTH, 8, 6, 4))}, None, None, r"found \(5, 8, 6, 4\)"),
        ({"a_image": frames(), "b_image": frames(shape=(LENGTH, 9, 6, 3))}, None, None, "one size"),
        ({"agentview_image": frames()}, {}, None, "demo_1/obs/agentview_image is missing"),
        ({"agentview_image": frames()}, {"agentview_image": frames(shape=(LENGTH, 9, 6, 3))}, None, "demo_1.*found"),
        ({"agentview_image": frames()}, {"agentview_image": frames(shape=(4, 8, 6, 3))}, None, "demo_1.*found"),
        ({"agentview_image": frames()}, {"agentview_image": frames() / 255.0}, None, "demo_1.*uint8"),
    ],
)
def test_bad_pictures_are_named(tmp_path, first, second, names, message):
    with opened(tmp_path / "bad.hdf5", first, second) as file, pytest.raises(DataError, match=message):
        read_all(file, names)


def read_all(file, names):
    found = find_pictures(file, names)
    return [found.read(index) for index in range(len(file))]
