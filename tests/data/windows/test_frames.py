import shutil

import numpy as np
import pytest
import torch

from lfm_policy.contract import Camera, Contract, ObservationKey
from lfm_policy.data.windows import store as module
from lfm_policy.data.windows.disk import StreamedWindows
from lfm_policy.data.windows.frames import frame_bytes, read_frames
from lfm_policy.data.windows.memory import Windows
from lfm_policy.data.windows.store import Episode, open_store, write_store
from lfm_policy.errors import DataError

CONTRACT = Contract(
    suite="test",
    suite_version="1",
    environment="Two",
    robots=(),
    controllers=(),
    rotation="none",
    action_dim=2,
    observations=(ObservationKey(name="position", dim=2),),
    cameras=tuple(Camera(name=name, height=6, width=4) for name in ("front", "wrist")),
)
LENGTHS = (30, 21, 40)


def episodes():
    generator = np.random.default_rng(0)
    for length in LENGTHS:
        numbers = generator.standard_normal((length, 4)).astype(np.float32)
        frames = generator.integers(0, 256, (length, 2, 6, 4, 3), dtype=np.uint8)
        yield Episode(numbers[:, :2], numbers[:, 2:], frames)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FRAME_BYTES", 32 * 2 * 6 * 4 * 3)  # shards of 32 rows
    write_store(tmp_path / "two.zarr", episodes(), CONTRACT, {"train": [0, 2], "valid": [1]}, {})
    return tmp_path / "two.zarr"


def test_a_store_gives_back_every_picture(path):
    store = open_store(path)
    assert len(list((path / "frames" / "c").iterdir())) == 3
    for index, episode in enumerate(episodes()):
        np.testing.assert_array_equal(store.episode(index).frames, episode.frames)
    assert frame_bytes(store) == sum(LENGTHS) * 2 * 6 * 4 * 3
    train = np.concatenate([episode.frames for n, episode in enumerate(episodes()) if n != 1])
    for resident in (True, False):
        np.testing.assert_array_equal(read_frames(store, "train", resident).numpy(), train)


@pytest.mark.parametrize("kind", [Windows, StreamedWindows])
def test_windows_show_the_pictures_of_their_newest_observation(path, kind):
    store = open_store(path)
    windows = kind.from_store(store, "train", frames=read_frames(store, resident=kind is Windows))
    batch = windows.gather(torch.tensor([0, 1, 30, len(windows) - 1]))
    observation, _, _ = store.read("train")
    for row, newest in enumerate(batch.newest):
        np.testing.assert_array_equal(batch.observation[row, -1], observation[newest])
        np.testing.assert_array_equal(batch.frames[row], read_frames(store)[newest])
    assert kind.from_store(store).gather(torch.tensor([0])).frames is None


def test_missing_and_damaged_pictures_are_noticed(path):
    """Bytes have no NaN that would tell."""
    shard = next(file for file in (path / "frames" / "c" / "1").rglob("*") if file.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 255
    shard.write_bytes(content)
    with pytest.raises(DataError, match="'frames' cannot be read"):
        read_frames(open_store(path))
    shutil.rmtree(path / "frames" / "c" / "1")
    with pytest.raises(DataError, match="'frames' has no rows 32"):
        read_frames(open_store(path))


def test_pictures_that_do_not_fit_the_contract_are_refused(tmp_path):
    first, *_ = episodes()
    for frames, found in ((None, "none"), (first.frames[:, :1], "uint8"), (first.frames / 255, "float64")):
        with pytest.raises(DataError, match=f"expected pictures uint8 .*found {found}"):
            write_store(tmp_path / "x.zarr", [Episode(first.observation, first.action, frames)], CONTRACT, {}, {})
    plain = Contract(**dict(CONTRACT) | {"cameras": ()})
    write_store(tmp_path / "plain.zarr", [Episode(first.observation, first.action)], plain, {"train": [0]}, {})
    with pytest.raises(DataError, match="observations=images"):
        read_frames(open_store(tmp_path / "plain.zarr"))
