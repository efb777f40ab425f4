import fcntl
import json

import h5py
import numpy as np
import pytest

from lfm_policy.contract import ArmController, Contract, ObservationKey
from lfm_policy.data.demos.file import open_demos
from lfm_policy.errors import DataError
from tests.data.demos.recordings import RAW, V15, V15_PART, V141, composite, env_args

WIDTHS = {"object": 10, "robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}
CONTRACT = Contract(
    suite_version="1.5.2",
    environment="Lift",
    robots=("Panda",),
    controllers=(ArmController(),),
    action_dim=10,
    observations=tuple(ObservationKey(name=name, dim=dim) for name, dim in WIDTHS.items()),
)
CONTRACTS = {"Lift": CONTRACT, "ToolHang": CONTRACT.model_copy(update={"environment": "ToolHang"})}


def write(path, kind="robomimic", lengths=(12, 9, 20), text=V15):
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        if kind == "raw":
            data.attrs.update(env_info=RAW, repository_version="1.4.1", env="Lift")
        else:
            data.attrs.update(env_args=text, total=sum(lengths))
        for index, length in enumerate(lengths):
            demo = data.create_group(f"demo_{index}")
            demo.attrs.update(model_file="<mujoco/>", num_samples=length)
            demo["actions"] = random.uniform(-1, 1, (length, 7))
            demo["states"] = random.normal(size=(length, 32))
            if kind != "raw":
                for name, dim in WIDTHS.items():
                    demo[f"obs/{name}"] = random.normal(size=(length, dim))
            if kind == "native":
                demo["actions_abs"] = random.normal(size=(length, 7))
        if kind == "native":
            data.attrs["contract"] = CONTRACT.model_dump_json()
    return path


def read_all(path):
    with open_demos(path, CONTRACTS) as file:
        return file, [file.read(index) for index in range(len(file))]


@pytest.mark.parametrize(("kind", "text"), [("native", V15), ("robomimic", V15), ("robomimic", V141), ("raw", RAW)])
def test_kinds(tmp_path, kind, text):
    path = write(tmp_path / "d.hdf5", kind, text=text)
    file, demos = read_all(path)
    assert file.kind == kind
    assert file.contract == CONTRACT
    assert [len(demo.actions) for demo in demos] == [12, 9, 20]
    assert all((demo.actions_abs is not None) == (kind == "native") for demo in demos)
    with h5py.File(path) as raw:
        assert np.array_equal(demos[1].states, raw["data/demo_1/states"][()])
        if kind == "raw":
            assert demos[1].observation is None
        else:
            parts = [raw[f"data/demo_1/obs/{name}"][()] for name in WIDTHS]
            assert np.array_equal(demos[1].observation, np.hstack(parts).astype(np.float32))


def test_order_is_numerical_and_every_tenth_is_held_out(tmp_path):
    file, _ = read_all(write(tmp_path / "d.hdf5", lengths=[3] * 21))
    assert file.names == tuple(f"demo_{index}" for index in range(21))
    assert file.split["valid"] == (9, 19)
    assert set(file.split["train"]) == set(range(21)) - {9, 19}


def test_masks_are_the_split(tmp_path):
    path = write(tmp_path / "d.hdf5")
    with h5py.File(path, "a") as file:
        file["mask/train"] = np.array([b"demo_2", b"demo_0"])
        file["mask/valid"] = np.array([b"demo_1"])
    assert read_all(path)[0].split == {"train": (0, 2), "valid": (1,)}


@pytest.mark.parametrize("kind", ["native", "robomimic", "raw"])
def test_actions_beyond_one_are_clipped_and_counted_in_every_kind_of_file(tmp_path, kind):
    path = write(tmp_path / "d.hdf5", kind)
    with h5py.File(path, "a") as file:
        file["data/demo_0/actions"][3, :2] = 3.75, -1.2
    demo = read_all(path)[1][0]
    assert demo.clipped == 2
    assert demo.actions[3, :2].tolist() == [1.0, -1.0]


def test_source_names_the_file_and_its_checksum(tmp_path):
    source = read_all(write(tmp_path / "d.hdf5", text=V141))[0].source()
    assert (source["file"], source["kind"], len(source["sha256"])) == ("d.hdf5", "robomimic", 64)
    assert source["recorded"]["suite_version"] == "1.4.1"
    json.dumps(source)


@pytest.mark.parametrize("stored", ["<f4", ">f8", ">f4", "<i2", ">i8", "u1"])
@pytest.mark.parametrize("layout", [{}, {"chunks": (2, 3), "compression": "gzip"}])
def test_numbers_of_any_type_and_layout_are_read_as_they_are(tmp_path, stored, layout):
    path = write(tmp_path / "d.hdf5")
    values = np.random.default_rng(1).uniform(0, 1.5, (9, 7)).astype(stored)
    with h5py.File(path, "a") as file:
        del file["data/demo_1/actions"]
        file["data/demo_1"].create_dataset("actions", data=values, **layout)
    with open_demos(path, CONTRACTS) as file:
        array = file.array(1, "actions")
        assert array.dtype == np.float64
        assert np.array_equal(array, values)
        assert np.array_equal(file.read(1).actions, np.clip(values.astype(np.float64), -1, 1))


def test_arrays_and_models_that_are_not_there(tmp_path):
    path = write(tmp_path / "d.hdf5", "native")
    with h5py.File(path, "a") as file:
        del file["data/demo_1/states"]
        del file["data/demo_1"].attrs["model_file"]
    with open_demos(path, CONTRACTS) as file:
        assert file.read(1).states is None
        assert file.array(1, "states") is None
        assert file.array(1, "obs/nothing") is None
        assert file.array(1, "nothing/object") is None
        assert file.model_xml(1) is None
        assert file.model_xml(0) == "<mujoco/>"


def put(key, change):
    """Replace a data set of demo_1 with a changed copy."""

    def edit(file):
        demo = file["data/demo_1"]
        value = change(demo[key][()])
        del demo[key]
        demo[key] = value

    return edit


def as_bools(array):
    return array > 0


def outside(file):
    """Let a data set be made of the bytes of another file."""
    del file["data/demo_1/states"]
    file["data/demo_1"].create_dataset("states", (9, 32), "f8", external=[("/etc/passwd", 0, 9 * 32 * 8)])


def linked(name):
    """Let a group or data set be that of another HDF5 file."""

    def edit(file):
        with h5py.File(f"{file.filename}.other", "w") as other:
            file.copy(name, other, "there")
        del file[name]
        file[name] = h5py.ExternalLink(f"{file.filename}.other", "there")

    return edit


def virtual(file):
    """Let a data set be put together from another file's."""
    with h5py.File(f"{file.filename}.other", "w") as other:
        file.copy("data/demo_1/states", other, "there")
    layout = h5py.VirtualLayout(file["data/demo_1/states"].shape, "f8")
    layout[:] = h5py.VirtualSource(f"{file.filename}.other", "there", shape=layout.shape)
    del file["data/demo_1/states"]
    file["data/demo_1"].create_virtual_dataset("states", layout)


def claiming(file):
    """Claim ten thousand million rows and hold none."""
    del file["data/demo_1/actions"]
    file["data/demo_1"].create_dataset("actions", (10**10, 7), "f4", chunks=(10**5, 7))


def drop(*keys):
    def edit(file):
        for key in keys:
            del file[key]

    return edit


def attribute(name, value):
    return lambda file: file["data"].attrs.__setitem__(name, value)


def with_nan(array):
    array[5, 1] = np.nan
    return array


def empty_episode(file):
    for key in ("actions", "states", *(f"obs/{name}" for name in WIDTHS)):
        put(key, lambda array: array[:0])(file)


BAD = {
    "no data": (drop("data"), r"expected a group 'data'.*found \[\]"),
    "no env_args": (lambda f: f["data"].attrs.__delitem__("env_args"), r"expected env_args.*found \['total'\]"),
    "env_args not JSON": (attribute("env_args", "{"), "as JSON"),
    "env_args null": (attribute("env_args", "null"), "settings as JSON.*found None"),
    "no demonstrations": (drop("data/demo_0", "data/demo_1", "data/demo_2"), "expected demonstrations"),
    "unknown environment": (
        attribute("env_args", env_args(composite(V15_PART), environment="ToolHanging")),
        "'ToolHanging'.*did you mean 'ToolHang'",
    ),
    "other controller": (attribute("env_args", env_args(composite(V15_PART | {"kp": 50}))), "kp: file 50.0"),
    "missing actions": (drop("data/demo_1/actions"), r"demo_1: missing \['actions'\]; found \['obs/object'"),
    "missing states": (drop("data/demo_1/states"), r"demo_1: missing \['states'\]"),
    "missing observation": (drop("data/demo_1/obs/object"), r"missing \['obs/object'\]; found .*robot0_eef_pos"),
    "NaN in actions": (put("actions", with_nan), "demo_1/actions has NaN or infinity in 1 row.*row 5"),
    "NaN in states": (put("states", with_nan), "demo_1/states has NaN"),
    "infinity in observation": (put("obs/object", lambda a: a / 0.0), "demo_1/obs/object has NaN or infinity"),
    "no steps": (empty_episode, "demo_1 has no steps"),
    "lengths of observation": (put("obs/object", lambda a: a[:-1]), "obs/object has 8 rows, actions 9"),
    "lengths of states": (put("states", lambda a: a[1:]), "states has 8 rows, actions 9"),
    "num_samples": (lambda f: f["data/demo_1"].attrs.__setitem__("num_samples", 7), "num_samples says 7"),
    "wrong action width": (put("actions", lambda a: a[:, :6]), "expected actions of width 7, found 6"),
    "wrong observation width": (put("obs/object", lambda a: a[:, 1:]), "expected obs/object of width 10, found 9"),
    "not a matrix": (put("actions", lambda a: a[:, 0]), "expected numbers of shape"),
    "text": (put("actions", lambda a: np.full(a.shape, b"x")), "expected numbers"),
    "bools": (put("actions", as_bools), "expected numbers.*found bool"),
    "no data space": (put("actions", lambda a: h5py.Empty("f8")), "expected numbers"),
    "far out of range": (put("actions", lambda a: 40 * a), r"within \[-1, 1\].*absolute poses"),
    "external storage": (outside, r"demo_1/states lies outside of the file, in '/etc/passwd'"),
    "link to a data set": (linked("data/demo_1/states"), r"'data/demo_1/states' is a link to another file, .*other"),
    "link to a group": (linked("data/demo_1"), r"'data/demo_1' is a link to another file"),
    "link to everything": (linked("data"), r"'data' is a link to another file"),
    "a claim of size": (claiming, r"demo_1/actions claims 5.6e\+11 bytes"),
    "virtual": (virtual, r"demo_1/states is put together from other files"),
    "mask of others": (lambda f: f.create_dataset("mask/train", data=[b"demo_7"]), "demo_7.*not in the file"),
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD.keys())
def test_bad_files_get_one_clear_error(tmp_path, spoil, message):
    path = write(tmp_path / "d.hdf5")
    with h5py.File(path, "a") as file:
        spoil(file)
    with pytest.raises(DataError, match=f"(?s){message}") as error:
        read_all(path)
    assert str(path) in str(error.value)


def test_own_files_need_a_readable_contract_and_absolute_actions(tmp_path):
    path = write(tmp_path / "d.hdf5", "native")
    with h5py.File(path, "a") as file:
        del file["data/demo_2/actions_abs"]
    with pytest.raises(DataError, match=r"demo_2: missing \['actions_abs'\]"):
        read_all(path)
    with h5py.File(path, "a") as file:
        file["data"].attrs["contract"] = "{}"
    with pytest.raises(DataError, match="contract cannot be read"):
        read_all(path)


def test_raw_collections_may_not_hold_poses_either(tmp_path):
    path = write(tmp_path / "d.hdf5", "raw")
    with h5py.File(path, "a") as file:
        put("actions", lambda array: 40 * array)(file)
    with pytest.raises(DataError, match=r"within \[-1, 1\]"):
        read_all(path)


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
def test_truncated_file(tmp_path, kept):
    path = write(tmp_path / "d.hdf5")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match="truncated"):
        read_all(path)


def test_what_is_no_demonstration_is_passed_over_and_told(tmp_path):
    path = write(tmp_path / "d.hdf5")
    with h5py.File(path, "a") as file:
        file["data/demo_notes"] = "recorded on Monday"
        file["data"].create_group("demo_meta\x1b[31m")
        file["data/demo_3"] = h5py.SoftLink("/nowhere")
        file["data/demo_extra"] = h5py.SoftLink("/data/demo_1")
    file, demos = read_all(path)
    assert file.names == ("demo_extra", "demo_0", "demo_1", "demo_2")
    assert len(demos[0].actions) == 9
    (note,) = file.own_notes
    assert note == "data/demo_meta\\x1b[31m, data/demo_notes, data/demo_3 passed over: no demonstrations"


def test_a_file_that_its_recorder_still_holds_is_called_so(tmp_path):
    path = write(tmp_path / "d.hdf5")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as HDF5 does, in another process
        with pytest.raises(DataError, match="still open in the program that writes it"):
            read_all(path)


def test_a_file_without_permission_is_called_so(tmp_path, monkeypatch):
    path = write(tmp_path / "d.hdf5")

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(h5py, "File", refuse)  # root may read everything
    with pytest.raises(DataError, match="must not be read by this user"):
        read_all(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip file", b"<html>404</html>" * 99])
def test_not_hdf5(tmp_path, content):
    (tmp_path / "d.hdf5").write_bytes(content)
    with pytest.raises(DataError, match="not an HDF5 file"):
        read_all(tmp_path / "d.hdf5")


def test_not_found(tmp_path):
    for path in (tmp_path / "none.hdf5", tmp_path):
        with pytest.raises(DataError, match="no demonstration file at"):
            read_all(path)


@pytest.mark.parametrize("key", ["actions", "states", "obs/object"])
def test_damaged_header_is_named(tmp_path, key):
    path = write(tmp_path / "d.hdf5")
    with h5py.File(path) as file:
        at = h5py.h5o.get_info(file[f"data/demo_1/{key}"].id).addr
    content = bytearray(path.read_bytes())
    content[at : at + 16] = b"\xff" * 16
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_all(path)


def test_damage_inside_is_named(tmp_path):
    path = write(tmp_path / "d.hdf5")
    with h5py.File(path, "a") as file:
        actions = file["data/demo_1/actions"][()]
        del file["data/demo_1/actions"]
        packed = file["data/demo_1"].create_dataset("actions", data=actions, compression="gzip")
        chunk = packed.id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_all(path)
