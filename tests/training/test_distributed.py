"""Several processes train what one process trains: real ones, over gloo."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.flow import FlowChain, Schedule, TensorPool, fit, plan
from lfm_policy.flow.fit import TimeLaw, draw_loss
from lfm_policy.networks import ConditionalUnet1d
from lfm_policy.training.blocks import block_phase
from lfm_policy.training.distributed import Ranks
from lfm_policy.training.log import read_metrics
from tests.training.ranks import launch
from tests.training.runs import TINY, Killed, point_mass_store, run_until


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    store = point_mass_store(tmp_path_factory.mktemp("data") / "points.zarr")
    return [*TINY, f"data.path={store}", "epochs=null", "updates=6", "checkpoint_seconds=0", "logging.every=1"]


@pytest.fixture(scope="module")
def alone(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("alone")
    run_until(None, *common, f"out={out}")
    return out


def _state(out: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoint" / f"{name}.safetensors")


def _assert_same_losses(left: Path, right: Path) -> None:
    """At every update and, of the averaged weights, at the end.

    Single weights may differ: where the exact gradient is zero, as before a normalisation, Adam follows its rounding.
    """
    lines = [read_metrics(out / "metrics.jsonl") for out in (left, right)]
    for ours, theirs in zip(*lines, strict=True):
        names = ["loss", *(f"loss/block{n}" for n in range(4))]
        assert [ours[name] for name in names] == pytest.approx([theirs[name] for name in names], abs=1e-5)
    ours, theirs = (json.loads((out / "summary.json").read_text()) for out in (left, right))
    assert ours["valid_loss"] == pytest.approx(theirs["valid_loss"], abs=1e-5)
    assert ours["digest"] != theirs["digest"], "the sums of two processes have another order: did they share?"


def test_two_processes_share_batches_and_one_goes_on(common: list[str], alone: Path, tmp_path: Path) -> None:
    """Same losses; interrupted in the middle of two, finished by one."""
    run = [*common, f"out={tmp_path}"]
    codes = launch(2, 3, *run)
    assert codes[0] == 9
    assert codes[1] != 0
    assert json.loads((tmp_path / "checkpoint" / "trainer.json").read_text())["updates"] == 2
    run_until(None, *run)
    _assert_same_losses(alone, tmp_path)


@pytest.mark.slow
def test_one_process_is_continued_by_two(common: list[str], alone: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run_until(2, *common, f"out={tmp_path}")
    assert launch(2, None, *common, f"out={tmp_path}") == [0, 0]
    _assert_same_losses(alone, tmp_path)


def test_blocks_of_two_processes_merge_into_the_run_of_one(common: list[str], alone: Path, tmp_path: Path) -> None:
    """Bit for bit; interrupted in one process, continued by two."""
    run = [*common, f"out={tmp_path}", "ranks=blocks"]
    with pytest.raises(Killed):
        run_until(4, *run)
    assert json.loads((tmp_path / "blocks/0/checkpoint/trainer.json").read_text())["updates"] == 3
    assert not (tmp_path / "checkpoint").exists()
    assert launch(2, None, *run) == [0, 0]
    for name in ("model", "ema", "trainer"):
        ours, theirs = _state(tmp_path, name), _state(alone, name)
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    summaries = [json.loads((out / "summary.json").read_text()) for out in (tmp_path, alone)]
    assert summaries[0]["digest"] == summaries[1]["digest"]


def test_a_block_that_is_not_finished_is_not_merged(common: list[str], tmp_path: Path) -> None:
    run = [*common, f"out={tmp_path}", "ranks=blocks"]
    run_until(None, *run)
    record = tmp_path / "blocks/2/checkpoint/trainer.json"
    (tmp_path / "checkpoint").rename(tmp_path / "before")
    record.unlink()
    with pytest.raises(CheckpointError, match="blocks/2/checkpoint"):
        run_until(None, *run)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("changed", ["flow.mode=sequential", "flow.share=true", "snapshots=2"])
def test_runs_whose_blocks_need_each_other_are_refused(common: list[str], tmp_path: Path, changed: str) -> None:
    with pytest.raises(ConfigError, match="use ranks=batch"):
        run_until(None, *common, f"out={tmp_path}", "ranks=blocks", changed)


def test_blocks_do_not_go_on_from_shared_batches(common: list[str], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run_until(2, *common, f"out={tmp_path}")
    with pytest.raises(CheckpointError, match="unfinished run with ranks=batch"):
        run_until(None, *common, f"out={tmp_path}", "ranks=blocks")
    assert not (tmp_path / "blocks").exists()


def test_ranks_share_every_row_once() -> None:
    rows = [row for rank in range(3) for row in range(12)[Ranks(rank, 3).rows(12)]]
    assert sorted(rows) == list(range(12))
    with pytest.raises(ConfigError, match="batch=12 cannot be shared by 5 processes"):
        Ranks(0, 5).rows(12)


def _chain() -> tuple[FlowChain, TensorPool]:
    torch.manual_seed(0)
    blocks = [ConditionalUnet1d(action_dim=4, cond_dim=3, dims=(8,), time_dim=8) for _ in range(3)]
    return FlowChain(blocks, Schedule.geometric(3, 0.2, 1.0)), TensorPool(torch.randn(64, 8, 4), torch.randn(64, 3))


@pytest.mark.parametrize("source", ["marginal", "pushforward"])
def test_the_mean_of_the_shares_is_the_loss_of_the_batch(source: str) -> None:
    """And so is its gradient."""
    chain, pool = _chain()
    sample, weights = pool.take(torch.arange(12)), list(chain.blocks[1].parameters())

    def loss(rows: slice) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        value = draw_loss(chain, 1, sample, source, TimeLaw(), generator, None, rows)()
        return [value.detach(), *torch.autograd.grad(value, weights)]

    shares = [loss(Ranks(rank, 3).rows(12)) for rank in range(3)]
    for *parts, whole in zip(*shares, loss(slice(None)), strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(dim=0), whole, rtol=1e-4, atol=1e-6)


def test_a_blocks_run_draws_what_the_run_of_all_blocks_draws() -> None:
    chain, pool = _chain()
    (phase,) = plan("simulation_free", 3, 1)
    found: dict[str, list[float]] = {}
    for name, part in {"all": phase, **{f"{n}": block_phase(phase, n) for n in range(3)}}.items():

        def optimise(k, phase, losses, name=name) -> None:
            found[name] = [loss().item() for loss in losses(torch.Generator().manual_seed(0))]

        fit(chain, chain, pool, [part], optimise, batch=16)
    assert found["0"] + found["1"] + found["2"] == found["all"]
