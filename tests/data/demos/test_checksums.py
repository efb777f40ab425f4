"""Demonstrations are what was recorded, or refused."""

import h5py
import numpy as np
import pytest

from lfm_policy.data.demos.checksums import GROUP, SEAL, demo_checksums, seal, write_data_checksum
from lfm_policy.data.demos.file import open_demos
from lfm_policy.errors import DataError
from tests.data.demos.test_file import CONTRACTS, write


def sealed(path):
    write(path, "native")
    with h5py.File(path, "a") as file:
        for name, demo in file["data"].items():
            file[f"{GROUP}/{name}"] = demo_checksums(demo)
        write_data_checksum(file)
    return path


def read_all(path):
    with open_demos(path, CONTRACTS) as file:
        return [(file.read(index), file.array(index, "actions"), file.model_xml(index)) for index in range(len(file))]


def a_bit(key):
    def change(file):
        values = file[f"data/demo_1/{key}"][()]
        values.view(np.uint8)[3, 5] ^= 1
        file[f"data/demo_1/{key}"][...] = values

    return change


def remove(key):
    return lambda file: file.__delitem__(key)


def describe(file):
    file["data"].attrs["contract"] = file["data"].attrs["contract"].replace("1.5.2", "1.4.1")


CHANGES = {
    "actions": (a_bit("actions"), "demo_1/actions"),
    "poses": (a_bit("actions_abs"), "demo_1/actions_abs"),
    "states": (a_bit("states"), "demo_1/states"),
    "observation": (a_bit("obs/object"), "demo_1/obs/object"),
    "states gone": (remove("data/demo_1/states"), "demo_1/states"),
    "model": (lambda file: file["data/demo_1"].attrs.__setitem__("model_file", "<other/>"), "the model_file of demo_1"),
    "contract": (describe, "what it says about its contract"),
    "checksums of one gone": (remove(f"{GROUP}/demo_1"), "demo_1, whose checksums cannot be read"),
}


@pytest.mark.parametrize(("change", "what"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_refused_and_named(tmp_path, change, what):
    path = sealed(tmp_path / "d.hdf5")
    before = read_all(path)
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(DataError, match=f"is damaged or was edited: {what}.* does not fit its checksum"):
        read_all(path)
    with h5py.File(path, "a") as file:
        del file[GROUP]
    assert len(read_all(path)) == len(before)  # as the message says


def test_a_sealed_file_is_refused_before_hdf5_sees_it(tmp_path, monkeypatch):
    path = sealed(tmp_path / "d.hdf5")
    seal(path)
    before = [demo.actions.tobytes() for demo, *_ in read_all(path)]
    content = path.read_bytes()
    opened = h5py.File
    monkeypatch.setattr(h5py, "File", lambda *arguments: pytest.fail("opened"))
    for place in (9, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="does not fit the checksum at its end"):
            read_all(path)
    monkeypatch.setattr(h5py, "File", opened)
    path.write_bytes(content)
    with h5py.File(path, "a") as file:
        file["data"].attrs["note"] = "edited on purpose"
    assert SEAL not in path.read_bytes()  # HDF5 takes it off
    assert [demo.actions.tobytes() for demo, *_ in read_all(path)] == before


def test_what_others_add_or_copy_is_theirs(tmp_path):
    path = sealed(tmp_path / "d.hdf5")
    with h5py.File(path, "a") as file, h5py.File(tmp_path / "copy.hdf5", "w") as copy:
        file["mask/train"] = np.array([b"demo_2", b"demo_0"])
        file["data/demo_1/obs/extra"] = np.zeros((9, 2))
        file.copy("data", copy)
        copy["data/demo_0/actions"][0] = 0.5
    assert len(read_all(path)) == len(read_all(tmp_path / "copy.hdf5")) == 3
