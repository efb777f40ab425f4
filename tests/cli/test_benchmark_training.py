"""The GPU's comparison, on this processor with small networks."""

import jaxtyping
import pytest
import torch

from lfm_cli.benchmarks import training_gpu as GPU


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own compiler
def test_the_comparison_of_training_loops_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # cannot be compiled
    traced = torch.compile  # without the C compiler, which takes minutes
    monkeypatch.setattr(torch, "compile", lambda f, mode, dynamic: traced(f, backend="aot_eager", dynamic=dynamic))
    ratios = list(GPU.compare(torch.device("cpu"), GPU.Sizes((8,), (8, 16), batch=16, windows=64), updates=4))
    assert [ratio.name for ratio in ratios] == [
        "training.gpu_vs_diffusion_policy",
        "training.gpu_blocks_at_once",
        "training.gpu_compiled_vs_eager",
    ]
    assert all(0 < ratio.value < float("inf") for ratio in ratios)
