"""LeRobot data sets become stores with the same numbers, whoever wrote them; what cannot be read is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lfm_cli import command_line as cli
from lfm_cli import prepare as command
from lfm_envs.point_mass import CONTRACT as POINT
from lfm_envs.tasks import TASKS
from lfm_policy.contract import Camera, Contract
from lfm_policy.data.windows.store import Store, open_store
from lfm_policy.errors import ConfigError, ContractError, DataError
from tests.contracts import JOINTS
from tests.data.lerobot.recorded import LENGTHS, as_v21, edit_info, edit_rows, record, strangers
from tests.hub import elsewhere, hub, online

pytest.importorskip("pyarrow", reason="LeRobot data sets need the extra lerobot (pyarrow)")
pytest.importorskip("av", reason="LeRobot data sets need the extra lerobot (av)")

from lfm_policy.data.lerobot import pictures
from lfm_policy.data.lerobot.names import Meaning
from lfm_policy.data.lerobot.prepare import View, prepare

SIDE = 32
SEEN = tuple(Camera(name=name, height=SIDE, width=SIDE) for name in ("top", "wrist"))


def contract(**changes: object) -> Contract:
    return Contract.model_validate(dict(JOINTS) | changes)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with two cameras; tests copy what they change."""
    folder = tmp_path_factory.mktemp("recorded") / "arm"
    record(folder, contract(cameras=SEEN))
    return folder


def same(store: Store, made: list) -> None:
    assert len(store) == len(made)
    for index, episode in enumerate(made):
        np.testing.assert_array_equal(store.episode(index).observation, episode.observation)
        np.testing.assert_array_equal(store.episode(index).action, episode.action)


@pytest.mark.parametrize("form", [TASKS["lift"].contract, TASKS["transport"].contract, JOINTS], ids=lambda c: c.space)
def test_what_was_written_is_read_to_the_last_bit(form: Contract, tmp_path: Path) -> None:
    made = record(tmp_path / "data", form)
    prepare([tmp_path / "data"], tmp_path / "d.zarr")
    store = open_store(tmp_path / "d.zarr")
    assert store.contract == form
    same(store, made)
    assert (store.train.tolist(), store.valid.tolist()) == ([0, 1, 2], [])


def test_what_others_write_is_described_by_its_features(tmp_path: Path) -> None:
    """LeRobot's arms name their motors; robomimic's keys come back from the numbered names."""
    named = contract(actions=[{"name": n, "unit": ""} for n in ("pan.pos", "lift [deg].pos", "gripper.pos")])
    made = record(tmp_path / "arm", named)
    prepare([strangers(tmp_path / "arm")], tmp_path / "arm.zarr", meaning=Meaning(unit=("deg",)))
    store = open_store(tmp_path / "arm.zarr")
    found = store.contract
    same(store, made)
    assert (found.space, found.measured, found.control_hz, found.robots) == (
        "joints",
        "observation.state",
        30,
        ("so100",),
    )
    assert [(a.name, a.unit, a.gripper) for a in found.actions] == [
        ("pan.pos", "deg", False),
        ("lift [deg].pos", "deg", False),
        ("gripper.pos", "%", True),
    ]
    record(tmp_path / "lift", TASKS["lift"].contract)
    prepare([strangers(tmp_path / "lift")], tmp_path / "lift.zarr")
    entries = [(key.name, key.dim) for key in open_store(tmp_path / "lift.zarr").contract.observations]
    assert entries == [("object", 10), ("robot0_eef_pos", 3), ("robot0_eef_quat", 4), ("robot0_gripper_qpos", 2)]


def test_units_are_said_for_all_or_one_by_one(tmp_path: Path) -> None:
    """A unit for all is none of a gripper; LeRobot's own arms have theirs in percent."""
    named = contract(actions=[{"name": n, "unit": ""} for n in ("pan", "slide", "gripper")])
    record(tmp_path / "arm", named)
    source, out = f"source={strangers(tmp_path / 'arm')}", f"out={tmp_path / 'arm.zarr'}"
    for unit, expected in (("deg", ["deg", "deg", ""]), ("[deg,mm,%]", ["deg", "mm", "%"])):
        command.main(cli.load("prepare", [source, out, f"unit={unit}"]))
        assert [number.unit for number in open_store(tmp_path / "arm.zarr").contract.actions] == expected
    with pytest.raises(DataError, match=r"2 units for 3 numbers"):
        command.main(cli.load("prepare", [source, out, "unit=[deg,mm]"]))


def test_data_of_an_environment_get_its_contract(tmp_path: Path) -> None:
    """So that what is trained on them can be evaluated there."""
    made = record(tmp_path / "data", POINT)
    source, out = f"source={strangers(tmp_path / 'data')}", f"out={tmp_path / 'd.zarr'}"
    command.main(cli.load("prepare", [source, out, "environment=point_mass"]))
    store = open_store(tmp_path / "d.zarr")
    assert store.contract == POINT
    same(store, made)
    with pytest.raises(DataError, match=r"other data than the environment says: expected action of 10 numbers.* \[2\]"):
        command.main(cli.load("prepare", [source, out, "environment=robosuite/lift"]))
    with pytest.raises(ConfigError, match="space= and unit= are for"):
        command.main(cli.load("prepare", [source, out, "environment=point_mass", "space=joints"]))


@pytest.mark.parametrize("video", [True, False], ids=["video", "image"])
@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_pictures_are_those_of_their_time(video: bool, version: str, tmp_path: Path) -> None:
    made = record(tmp_path / "data", contract(cameras=SEEN), video=video)
    source = tmp_path / "data" if version == "v3.0" else as_v21(tmp_path / "data", tmp_path / "old")
    summary = prepare([source], tmp_path / "d.zarr", View("images", cameras=("wrist", "top")))
    store = open_store(tmp_path / "d.zarr")
    assert [camera.name for camera in store.contract.cameras] == ["wrist", "top"]
    assert [key.name for key in store.contract.observations] == ["observation.state"]
    assert summary["sources"][0]["version"] == version
    for index, episode in enumerate(made):
        assert episode.frames is not None
        frames = store.episode(index).frames
        assert frames is not None
        difference = np.abs(frames.astype(int) - episode.frames[:, ::-1])
        assert difference.max() <= (2 if video else 0)  # a time step is 4 grey values


def test_pictures_that_are_many_are_kept_in_a_file(
    seeing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare([seeing], tmp_path / "memory.zarr", View("images"))
    monkeypatch.setattr(pictures, "LARGEST_IN_MEMORY", 0)
    prepare([seeing], tmp_path / "file.zarr", View("images"))
    assert open_store(tmp_path / "memory.zarr").digest == open_store(tmp_path / "file.zarr").digest


def test_pictures_are_scaled(seeing: Path, tmp_path: Path) -> None:
    prepare([seeing], tmp_path / "d.zarr", View("images", image_size=16))
    assert open_store(tmp_path / "d.zarr").contract.frames_shape == (2, 16, 16, 3)
    with pytest.raises(ConfigError, match="observations=images"):
        prepare([seeing], tmp_path / "d.zarr", View(image_size=16))
    with pytest.raises(DataError, match=r"no pictures of \['side'\]: found \['top', 'wrist'\]"):
        prepare([seeing], tmp_path / "d.zarr", View("images", cameras=("side",)))


def test_several_data_sets_become_one_store(tmp_path: Path) -> None:
    made = record(tmp_path / "a", JOINTS) + record(tmp_path / "b", JOINTS, (9, 40))
    prepare([tmp_path / "a", tmp_path / "b"], tmp_path / "d.zarr")
    same(open_store(tmp_path / "d.zarr"), made)
    with pytest.raises(DataError, match="more than once"):
        prepare([tmp_path / "a", f"{tmp_path}/a/"], tmp_path / "d.zarr")
    old = as_v21(strangers(tmp_path / "b"), tmp_path / "old")
    with pytest.raises(ContractError, match=r"suite: .*'arm'.*'lerobot'"):  # one says what it is, and one does not
        prepare([tmp_path / "a", old], tmp_path / "d.zarr")
    prepare([strangers(tmp_path / "a"), old], tmp_path / "d.zarr")
    same(open_store(tmp_path / "d.zarr"), made)


def renamed(info: dict) -> None:
    info["features"]["observation.states"] = info["features"].pop("observation.state")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.update(fps=20), r"a has 30 frames per second and .*b 20"),
        (renamed, r"different features: only the first has \['observation.state'\], only the second"),
        (lambda info: info.update(robot_type="koch"), r"robots: .*so100.*koch"),
    ],
)
def test_data_that_mean_different_things_are_not_merged(change: Callable, message: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        record(tmp_path / name, JOINTS)
        strangers(tmp_path / name)
    edit_info(tmp_path / "b", change)
    with pytest.raises((DataError, ContractError), match=message):
        prepare([tmp_path / "a", tmp_path / "b"], tmp_path / "d.zarr")
    assert not (tmp_path / "d.zarr").exists()


def nan_in_frame_7(values: np.ndarray) -> np.ndarray:
    values[7, 1] = np.nan
    return values


def without_frame_5(values: np.ndarray) -> np.ndarray:
    values[5:] += 1
    return values


VIDEO = "videos/observation.images.top/chunk-000/file-000.mp4"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "info": (lambda d: (d / "meta/info.json").unlink(), "is no LeRobot data set: expected meta/info.json"),
    "damaged info": (lambda d: (d / "meta/info.json").write_text("{"), "info.json cannot be read"),
    "version": (lambda d: edit_info(d, lambda i: i.update(codebase_version="v1.6")), r"v3\.0 or v2\.1, found 'v1\.6'"),
    "no fps": (lambda d: edit_info(d, lambda i: i.update(fps=0)), "fps: Input should be greater than 0"),
    "wrong fps": (lambda d: edit_info(strangers(d), lambda i: i.update(fps=10)), "says fps 10, .* 30 per second"),
    "other contract": (lambda d: edit_info(d, lambda i: i.update(fps=10)), "holds other data than meta/lfm.json says"),
    "no action": (lambda d: edit_info(d, lambda i: i["features"].pop("action")), "expected a feature 'action'"),
    "path": (lambda d: edit_info(d, lambda i: i.update(data_path="../{file_index}")), "leads out of the data set"),
    "template": (lambda d: edit_info(d, lambda i: i.update(data_path="{no}.parquet")), "cannot be filled"),
    "shard": (lambda d: shutil.rmtree(d / "data/chunk-000"), r"file-000\.parquet of 3 files missing"),
    "damaged shard": (
        lambda d: (d / "data/chunk-000/file-000.parquet").write_bytes(b"PAR1"),
        "cannot be read as parquet",
    ),
    "table": (lambda d: shutil.rmtree(d / "meta/episodes"), "expected meta/episodes/chunk-000"),
    "not whole": (lambda d: edit_info(d, lambda i: i.update(total_episodes=4)), "says 4 episodes .* table has 3"),
    "NaN": (lambda d: edit_rows(d, "action", nan_in_frame_7), "episode 0: action has NaN.* frame 7"),
    "gap of frames": (
        lambda d: edit_rows(d, "frame_index", without_frame_5),
        "frame_index has a gap: expected 5, found 6",
    ),
    "gap of episodes": (
        lambda d: edit_rows(d, "episode_index", lambda v: np.where(v == 1, 5, v)),
        "expected episode 1 next, found 5",
    ),
    "lost rows": (lambda d: edit_rows(d, "index", lambda v: v[:-3]), "episode 2: expected 25 frames, found 22"),
    "column": (
        lambda d: edit_info(
            strangers(d), lambda i: i["features"].update({"observation.v": {"dtype": "float32", "shape": [2]}})
        ),
        r"names the columns \['observation\.v'\]",
    ),
    "lost video": (lambda d: (d / VIDEO).unlink(), "videos/observation.images.top.* missing"),
    "damaged video": (lambda d: (d / VIDEO).write_bytes(b"nothing"), "cannot be read as a video"),
    "codec": (
        lambda d: (d / VIDEO).write_bytes((d / VIDEO).read_bytes().replace(b"avc1", b"zzzz")),
        "its codec is not available",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named(fault: str, seeing: Path, tmp_path: Path) -> None:
    damage, message = FAULTS[fault]
    shutil.copytree(seeing, tmp_path / "arm")
    damage(tmp_path / "arm")
    with pytest.raises(DataError, match=message) as raised:
        prepare([tmp_path / "arm"], tmp_path / "d.zarr", View("images"))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "d.zarr").exists()


def test_a_gap_in_the_table_of_episodes(seeing: Path, tmp_path: Path) -> None:
    old = as_v21(seeing, tmp_path / "old")
    lines = (old / "meta" / "episodes.jsonl").read_text().splitlines()
    (old / "meta" / "episodes.jsonl").write_text("\n".join([lines[0], lines[2]]))
    with pytest.raises(DataError, match="episodes have a gap: expected episode 1, found 2"):
        prepare([old], tmp_path / "d.zarr")


def test_a_video_that_ends_early(seeing: Path, tmp_path: Path) -> None:
    shutil.copytree(seeing, tmp_path / "arm")
    record(tmp_path / "short", contract(cameras=SEEN), (30, 12, 20))
    shutil.copyfile(tmp_path / "short" / VIDEO, tmp_path / "arm" / VIDEO)
    with pytest.raises(DataError, match=r"expected a picture at 2\.0667 s \(30 per second\), found its end"):
        prepare([tmp_path / "arm"], tmp_path / "d.zarr", View("images"))


def test_failures_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    made = record(tmp_path / "data", JOINTS, success=(True, False, True))
    summary = prepare([tmp_path / "data"], tmp_path / "d.zarr")
    same(open_store(tmp_path / "d.zarr"), [made[0], made[2]])
    assert summary["sources"][0]["failures"] == 1
    assert any("1 episodes without success" in note for note in summary["sources"][0]["notes"])
    prepare([tmp_path / "data"], tmp_path / "d.zarr", View(failures=True))
    same(open_store(tmp_path / "d.zarr"), made)


def test_the_split_of_robomimic_is_kept(tmp_path: Path) -> None:
    record(tmp_path / "data", JOINTS)
    masks = {"demo_keys": ["demo_0", "demo_1", "demo_2"], "masks": {"train": [0, 2], "valid": [1]}}
    (tmp_path / "data" / "meta" / "robomimic_masks.json").write_text(json.dumps(masks))
    prepare([tmp_path / "data"], tmp_path / "d.zarr")
    store = open_store(tmp_path / "d.zarr")
    assert (store.train.tolist(), store.valid.tolist()) == ([0, 2], [1])


def test_a_data_set_comes_from_the_hub(seeing: Path, tmp_path: Path) -> None:
    command = ("-m", "lfm_cli", "prepare", "source=user/arm", f"out={tmp_path / 'd.zarr'}")
    cache = tmp_path / "cache"
    with hub(seeing, "user/arm", "datasets") as address:
        lost = elsewhere(*command, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(cache))
        assert (lost.returncode, "its cache holds no user/arm" in lost.stderr) == (2, True)
        found = elsewhere(*command, **online(address, cache))
    assert found.returncode == 0, found.stderr
    assert open_store(tmp_path / "d.zarr").steps == sum(LENGTHS)
    assert not list(cache.rglob("*.mp4"))  # nobody asked for pictures
    again = elsewhere(*command, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(cache))
    assert again.returncode == 0, again.stderr
