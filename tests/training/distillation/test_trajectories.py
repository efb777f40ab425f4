"""The cache of trajectories: made once, continued, shared, and never mixed up."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lfm_policy.errors import BusyError, DataError
from lfm_policy.flow import FlowChain, Schedule, Solver, TensorPool
from lfm_policy.locks import lock
from lfm_policy.training.distillation.trajectories import PART, Teacher, cached

IDENTITY = {"teacher": "abc", "solver": {"method": "euler", "steps": 2}}


class Drift(nn.Module):
    """v(x, t, cond) = x t + cond; counts its calls, and breaks when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.calls, self.last = 0, 10**9

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        self.calls += 1
        if self.calls > self.last:
            raise KeyboardInterrupt
        assert cond is not None
        return self.weight * x * t[:, None] + cond


def _teacher(inside: bool = False) -> tuple[Teacher, Drift]:
    torch.manual_seed(0)
    block = Drift()
    chain = FlowChain([block, block], Schedule((0.3,)))
    pool = TensorPool(torch.randn(50, 2), torch.randn(50, 2))
    return Teacher(chain, pool, Solver("euler", 2), inside), block


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("inside", [False, True])
def test_what_is_drawn_are_the_teachers_trajectories(tmp_path: Path, inside: bool) -> None:
    teacher, _ = _teacher(inside)
    drawn = cached(tmp_path / "a.zarr", teacher, PART + 1, 0, IDENTITY)(7, _generator())
    assert drawn.states.shape == (5 if inside else 3, 7, 2)
    assert drawn.cond is not None
    end = teacher.chain.to_data(drawn.states[-1], drawn.cond, solver=teacher.solver).x
    torch.testing.assert_close(drawn.states[0], end)


def test_made_once_and_then_read(tmp_path: Path) -> None:
    teacher, block = _teacher()
    first = cached(tmp_path / "a.zarr", teacher, 3 * PART, 0, IDENTITY)(9, _generator())
    calls = block.calls
    assert calls == 3 * 4
    again = cached(tmp_path / "a.zarr", teacher, 3 * PART, 0, IDENTITY)(9, _generator())
    assert block.calls == calls
    assert torch.equal(first.states, again.states)


def test_an_interrupted_cache_is_continued(tmp_path: Path) -> None:
    teacher, block = _teacher()
    whole = cached(tmp_path / "whole.zarr", teacher, 3 * PART, 0, IDENTITY)(400, _generator())
    block.calls, block.last = 0, 4 + 2
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "parts.zarr", teacher, 3 * PART, 0, IDENTITY)
    assert json.loads((tmp_path / "parts.zarr" / "progress.json").read_text())["done"] == 1
    block.calls, block.last = 0, 10**9
    parts = cached(tmp_path / "parts.zarr", teacher, 3 * PART, 0, IDENTITY)(400, _generator())
    assert block.calls == 2 * 4
    assert torch.equal(whole.states, parts.states)


@pytest.mark.parametrize(
    ("seed", "identity", "message"),
    [
        (1, IDENTITY, "seed: there 0, now 1"),
        (0, IDENTITY | {"teacher": "x"}, r"identity\.teacher: there 'abc', now 'x'"),
    ],
)
def test_other_trajectories_are_refused(tmp_path: Path, seed: int, identity: dict, message: str) -> None:
    teacher, _ = _teacher()
    cached(tmp_path / "a.zarr", teacher, PART, 0, IDENTITY)
    with pytest.raises(DataError, match=message):
        cached(tmp_path / "a.zarr", teacher, PART, seed, identity)
    cached(tmp_path / "a.zarr", teacher, PART, 0, IDENTITY)


def test_one_process_at_a_time_makes_them_and_any_number_reads(tmp_path: Path) -> None:
    teacher, _ = _teacher()
    cached(tmp_path / "a.zarr", teacher, PART, 0, IDENTITY)
    holders = [lock(tmp_path / f".{name}.zarr.lock") for name in "ab"]
    cached(tmp_path / "a.zarr", teacher, PART, 0, IDENTITY)
    with pytest.raises(BusyError, match=r"b\.zarr is in use"):
        cached(tmp_path / "b.zarr", teacher, PART, 0, IDENTITY)
    for holder in holders:
        assert holder is not None
        os.close(holder)


def test_a_missing_part_is_noticed(tmp_path: Path) -> None:
    teacher, _ = _teacher()
    cached(tmp_path / "a.zarr", teacher, 2 * PART, 0, IDENTITY)
    shutil.rmtree(tmp_path / "a.zarr" / "states" / "c" / "1")
    with pytest.raises(DataError, match="'states' lacks a part"):
        cached(tmp_path / "a.zarr", teacher, 2 * PART, 0, IDENTITY)
