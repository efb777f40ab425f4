import errno
import hashlib
import json
import os
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import zarr

from lfm_policy import files
from lfm_policy.contract import ArmController, Contract, ObservationKey
from lfm_policy.data.windows import store as store_module
from lfm_policy.data.windows.store import Episode, open_store, write_store
from lfm_policy.errors import DataError
from lfm_policy.files import digest

CONTRACT = Contract(
    suite_version="1.5.2",
    environment="Lift",
    robots=("Panda",),
    controllers=(ArmController(),),
    action_dim=10,
    observations=(ObservationKey(name="object", dim=4), ObservationKey(name="robot0_eef_pos", dim=3)),
)
SPLIT = {"train": [0, 2], "valid": [1]}


def make_episodes(lengths=(30, 7, 12), seed=0):
    random = np.random.default_rng(seed)
    return [
        Episode(random.normal(size=(n, 7)).astype(np.float32), random.normal(size=(n, 10)).astype(np.float32))
        for n in lengths
    ]


@pytest.fixture
def path(tmp_path):
    write_store(tmp_path / "d.zarr", make_episodes(), CONTRACT, SPLIT, {"files": [{"name": "a.hdf5"}]})
    return tmp_path / "d.zarr"


def test_round_trip(path):
    store, episodes = open_store(path), make_episodes()
    assert store.contract == CONTRACT
    assert store.source == {"files": [{"name": "a.hdf5"}]}
    assert (len(store), store.steps) == (3, 49)
    assert store.episode_end.tolist() == [30, 37, 49]
    for index, episode in enumerate(episodes):
        read = store.episode(index)
        assert np.array_equal(read.observation, episode.observation)
        assert np.array_equal(read.action, episode.action)
    observation, action, ends = store.read("train")
    assert np.array_equal(observation, np.concatenate([episodes[0].observation, episodes[2].observation]))
    assert np.array_equal(action, np.concatenate([episodes[0].action, episodes[2].action]))
    assert ends.tolist() == [30, 42]
    assert store.read("valid")[2].tolist() == [7]


def test_is_plain_zarr_3(path):
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == 3
    assert group.attrs["format"] == "lfm-data/1"
    assert group["observation"].shards is not None


def test_streams_across_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "CHUNK_ROWS", 4)
    monkeypatch.setattr(store_module, "SHARD_ROWS", 16)
    episodes = make_episodes([40, 1, 7, 16])
    write_store(tmp_path / "d.zarr", iter(episodes), CONTRACT, {"train": range(4)}, {})
    assert np.array_equal(
        open_store(tmp_path / "d.zarr").read("train")[1], np.concatenate([e.action for e in episodes])
    )


def spoilt(field, change):
    episodes = make_episodes()
    arrays = {"observation": episodes[1].observation, "action": episodes[1].action}
    arrays[field] = change(arrays[field])
    return [episodes[0], Episode(**arrays)]


def with_nan(array):
    array[3, 2] = np.nan
    return array


@pytest.mark.parametrize(
    ("episodes", "split", "message"),
    [
        ([], {}, "no episode"),
        (spoilt("action", lambda a: a[:, :7]), {}, r"episode 1: expected action of shape .*10"),
        (spoilt("observation", lambda a: a[:-1]), {}, "episode 1: expected observation"),
        ([Episode(np.zeros((0, 7)), np.zeros((0, 10)))], {}, "episode 0"),
        (spoilt("observation", with_nan), {}, "NaN or infinity, first in row 3"),
        (make_episodes(), {"train": [3]}, r"split 'train' names episodes \[3\]"),
    ],
)
def test_bad_episodes_leave_the_old_data_set(path, episodes, split, message):
    with pytest.raises(DataError, match=message):
        write_store(path, episodes, CONTRACT, split, {})
    assert np.array_equal(open_store(path).read("valid")[0], make_episodes()[1].observation)
    assert [p.name for p in path.parent.iterdir()] == ["d.zarr"]


def test_interrupted_write_leaves_nothing(tmp_path):
    def interrupted():
        yield make_episodes()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "d.zarr", interrupted(), CONTRACT, {"train": [0]}, {})
    assert list(tmp_path.iterdir()) == []


def test_never_replaces_what_is_not_a_data_set(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("precious")
    with pytest.raises(DataError, match="not a prepared data set"):
        write_store(tmp_path / "thesis", make_episodes(), CONTRACT, SPLIT, {})
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "precious"


def edit_metadata(change):
    def edit(path):
        metadata = json.loads((path / "zarr.json").read_text())
        change(metadata["attributes"])
        (path / "zarr.json").write_text(json.dumps(metadata))

    return edit


def old(path):
    """As earlier versions wrote it, without checksums."""
    edit_metadata(lambda a: (a.pop("sha256"), a.pop("content")))(path)


def split_changed(path):
    zarr.open_array(path / "train", mode="r+")[1] = 1


def shard(path, name):
    return path / name / "c" / "0" / "0"


def flip_a_byte(path):
    data = bytearray(shard(path, "action").read_bytes())
    data[50] ^= 0xFF
    shard(path, "action").write_bytes(data)


def truncate(path):
    data = shard(path, "action").read_bytes()
    shard(path, "action").write_bytes(data[: len(data) // 2])


DAMAGE = {
    "gone": (shutil.rmtree, "no data set at"),
    "no metadata": (lambda p: (p / "zarr.json").unlink(), "not a prepared data set"),
    "metadata cut off": (lambda p: (p / "zarr.json").write_text((p / "zarr.json").read_text()[:99]), "damaged"),
    "plain zarr": (edit_metadata(lambda a: a.clear()), "expected format 'lfm-data/1', found None"),
    "newer format": (edit_metadata(lambda a: a.update(format="lfm-data/9")), "found 'lfm-data/9'"),
    "no contract": (edit_metadata(lambda a: a.pop("contract")), "damaged.*contract"),
    "bad contract": (edit_metadata(lambda a: a["contract"].pop("environment")), "damaged.*contract"),
    "other contract": (edit_metadata(lambda a: a["contract"]["observations"].pop()), "damaged.*contract"),
    "other provenance": (edit_metadata(lambda a: a["source"]["files"][0].update(name="b.hdf5")), "damaged.*provenance"),
    "other checksums": (edit_metadata(lambda a: a["content"].update(action="0")), "damaged.*checksums"),
    "split changed": (split_changed, r"damaged.*\['train'\] are not what was written"),
    "array gone": (lambda p: shutil.rmtree(p / "action"), "'action' is missing"),
    "index gone": (lambda p: shutil.rmtree(p / "train" / "c"), "damaged.*'train'"),
    "shard gone": (lambda p: shard(p, "action").unlink(), "'action' has missing rows"),
    "shard truncated": (truncate, "'action' cannot be read"),
    "bit flipped": (flip_a_byte, "'action' cannot be read"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_found_and_named(path, damage, message):
    damage(path)
    with pytest.raises(DataError, match=f"(?s){message}"):
        open_store(path).read("train")


def test_rows_that_are_claimed_and_not_there_take_no_memory(path):
    group = zarr.open_group(path, mode="a")
    ends = group["episode_end"]
    ends[-1] = 10**12
    for name in ("observation", "action"):
        group[name].resize((10**12, group[name].shape[1]))
    edit_metadata(lambda a: a["content"].update(episode_end=hashlib.sha256(ends[:].data).hexdigest()))(path)
    edit_metadata(lambda a: a.update(sha256=digest({key: a[key] for key in store_module.DIGESTED})))(path)
    with pytest.raises(DataError, match="'observation' has 1 of 7629395 parts"):
        open_store(path)


def test_the_same_data_set_may_stay_where_nothing_can_be_written(path, monkeypatch, capsys):
    @contextmanager
    def refusing(path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        yield

    monkeypatch.setattr(files, "atomic_directory", refusing)  # as root, no permission keeps from writing
    write_store(path, make_episodes(), CONTRACT, SPLIT, {"files": [{"name": "a.hdf5"}]})
    assert "is left as it was, and is the same: Read-only file system" in capsys.readouterr().err
    with pytest.raises(OSError, match="Read-only"):
        write_store(path, make_episodes(seed=1), CONTRACT, SPLIT, {"files": [{"name": "a.hdf5"}]})
    with pytest.raises(OSError, match="Read-only"):
        write_store(path.with_name("new.zarr"), make_episodes(), CONTRACT, SPLIT, {})


def test_stores_of_earlier_versions_are_read(path):
    new = open_store(path)
    old(path)
    store = open_store(path)
    assert np.array_equal(store.read("train")[0], new.read("train")[0])
    assert store.identity["contract"] == CONTRACT.model_dump(mode="json")
    split_changed(path)
    assert store.digest not in (new.digest, open_store(path).digest)


def test_the_digest_tells_rows_apart(tmp_path):
    digests = set()
    for seed in (0, 0, 1):
        write_store(tmp_path / f"{len(digests)}.zarr", make_episodes(seed=seed), CONTRACT, SPLIT, {})
        digests.add(open_store(tmp_path / f"{len(digests)}.zarr").digest)
    assert len(digests) == 2
