"""Windows read from disk are the windows held in memory, in little memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lfm_envs.point_mass import CONTRACT
from lfm_policy.data.normalizers.affine import Spread
from lfm_policy.data.windows import store as store_module
from lfm_policy.data.windows.disk import StreamedWindows
from lfm_policy.data.windows.memory import Windows
from lfm_policy.data.windows.store import Episode, Store, open_store, write_store
from lfm_policy.errors import DataError

LENGTHS = [30, 1, 9, 3, 16, 40, 8]


def _write(path: Path, lengths: list[int], valid: list[int]) -> Store:
    random = np.random.default_rng(0)

    def rows(count: int, width: int) -> np.ndarray:
        return random.standard_normal((count, width), dtype=np.float32)

    data = (Episode(rows(n, CONTRACT.observation_dim), rows(n, CONTRACT.action_dim)) for n in lengths)
    train = sorted(set(range(len(lengths))) - set(valid))
    write_store(path, data, CONTRACT, {"train": train, "valid": valid}, {})
    return open_store(path)


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("steps", [(16, 2, 8), (16, 2, 15), (4, 1, 1)])
def test_windows_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split, steps) -> None:
    """All of them, asked for in any order; the store is unpacked in many blocks."""
    monkeypatch.setattr(store_module, "BLOCK_ROWS", 7)
    store = _write(tmp_path / "d.zarr", LENGTHS, [2, 5])
    held, streamed = Windows.from_store(store, split, *steps), StreamedWindows.from_store(store, split, *steps)
    assert len(held) == len(streamed) > 0
    for index in (torch.arange(len(held)), torch.randint(len(held), (64,)), torch.tensor([len(held) - 1])):
        ours, theirs = streamed.gather(index), held.gather(index)
        assert torch.equal(ours.observation, theirs.observation)
        assert torch.equal(ours.action, theirs.action)


def test_a_split_without_windows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no window"):
        StreamedWindows.from_store(_write(tmp_path / "d.zarr", [3, 30], [0]), "valid")


def test_spread_of_blocks_is_the_spread_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 1e-3, 50]) + 7
    found = Spread.of([x[:1], x[1:1], x[1:400], x[400:]])
    torch.testing.assert_close(found.mean, x.mean(dim=0), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.std, x.std(dim=0, correction=0), rtol=1e-10, atol=0)
    assert (found.count, found.low.tolist(), found.high.tolist()) == (1000, x.amin(0).tolist(), x.amax(0).tolist())
    with pytest.raises(DataError, match="found none"):
        Spread.of([x[:0]])


MEMORY = """
import sys, torch
from lfm_policy.data.normalizers.affine import Spread
from lfm_policy.data.windows.store import open_store
from lfm_policy.data.windows.disk import StreamedWindows
from lfm_policy.data.windows.memory import Windows

def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) / 1024

kind = Windows if sys.argv[2] == "held" else StreamedWindows
store = open_store(sys.argv[1])
Spread.of([torch.randn(70000, 4)])  # what a first block costs does not count
before = status("VmRSS")
Spread.of(observation for observation, _ in store.blocks("train"))
windows = kind.from_store(store)
for _ in range(20):
    windows.gather(torch.randint(len(windows), (256,)))
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """Half a million steps take the process a bounded amount more; held in memory they need several times that."""
    _write(tmp_path / "d.zarr", [1000] * 500, [])

    def megabytes(kind: str) -> float:
        command = [sys.executable, "-c", MEMORY, str(tmp_path / "d.zarr"), kind]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    held, streamed = megabytes("held"), megabytes("streamed")
    assert streamed < 64, f"{streamed:.0f} MB"
    assert held > 3 * streamed, f"{held:.0f} MB against {streamed:.0f} MB"
