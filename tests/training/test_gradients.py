"""All blocks in one compiled call learn what they learn one by one."""

from collections.abc import Callable
from pathlib import Path

import jaxtyping
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lfm_policy.errors import ConfigError
from lfm_policy.flow import FlowChain, Schedule, TensorPool, fit, plan
from lfm_policy.flow.fit import Mode
from lfm_policy.networks import ConditionalUnet1d, SharedBlocks, VelocityMlp
from lfm_policy.training.gradients import Compiled
from lfm_policy.training.loop import StepReport, Trainer
from lfm_policy.training.settings import OptimiserSettings
from tests.training.runs import TINY, Killed, point_mass_store, run_until

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own compiler

Outcome = tuple[list[torch.Tensor], list[StepReport]]


@pytest.fixture(autouse=True)
def _traceable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shape checks cannot be compiled; elsewhere they see the same functions."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace as torch.compile does, and leave out the C compiler, which takes minutes."""
    traced = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, mode, dynamic: traced(f, backend="aot_eager", dynamic=dynamic))


def _perceptron() -> nn.Module:
    return VelocityMlp(3, 4, width=8, layers=2)


def _unet() -> nn.Module:
    return ConditionalUnet1d(3, 4, dims=(8,), time_dim=8)


def _train(
    compiled: bool, mode: Mode = "simulation_free", network: Callable[[], nn.Module] = _perceptron, **settings
) -> Outcome:
    torch.manual_seed(0)
    event = (3,) if network is _perceptron else (8, 3)
    chain = FlowChain([network() for _ in range(3)], Schedule.geometric(3, 0.2, 1.0), precondition=True).double()
    pool = TensorPool(torch.randn(64, *event).double(), torch.randn(64, 4).double())
    phases = plan(mode, 3, 4)
    optimiser, seen = OptimiserSettings(warmup_steps=0, compiled=compiled, **settings), []
    trainer = Trainer(chain, phases, optimiser, 0, seen.append, lambda trainer, *, force: None)
    fit(chain, trainer.ema.chain, pool, phases, trainer.optimise, batch=16)
    return [p.detach() for p in (*chain.parameters(), *trainer.ema.chain.parameters())], seen


def _assert_same(ours: Outcome, theirs: Outcome) -> None:
    for weights, expected in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(weights, expected, atol=1e-9, rtol=1e-7)
    for report, other in zip(ours[1], theirs[1], strict=True):
        assert report.losses == pytest.approx(other.losses, rel=1e-6)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("simulation_free", {"accumulate": 2, "gradient_clip": 0.5}),
        ("simulation_free", {"network": _unet}),
        ("combined", {}),
        ("sequential", {}),
    ],
)
def test_compiled_blocks_end_with_the_weights_of_blocks_one_by_one(mode: Mode, settings: dict) -> None:
    _assert_same(_train(True, mode, **settings), _train(False, mode, **settings))


@pytest.mark.slow
def test_so_they_do_in_compiled_code() -> None:
    _assert_same(_train(True, network=_unet), _train(False, network=_unet))


@pytest.mark.usefixtures("_quick")
def test_an_interrupted_compiled_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    store = point_mass_store(tmp_path / "points.zarr")
    common = (*TINY, "network.dims=[8]", f"data.path={store}", "optimiser.compiled=true", "checkpoint_seconds=0")
    run_until(None, *common, f"out={tmp_path / 'whole'}")
    with pytest.raises(Killed):
        run_until(2, *common, f"out={tmp_path / 'parts'}")
    run_until(None, *common, f"out={tmp_path / 'parts'}")
    for name in ("model", "ema"):
        whole, parts = (load_file(tmp_path / run / "checkpoint" / f"{name}.safetensors") for run in ("whole", "parts"))
        assert all(torch.equal(value, parts[key]) for key, value in whole.items())


def test_shared_networks_are_refused() -> None:
    blocks = SharedBlocks(nn.Linear(2, 2), 3)
    with pytest.raises(ConfigError, match=r"flow\.share=false"):
        Compiled(list(blocks))
