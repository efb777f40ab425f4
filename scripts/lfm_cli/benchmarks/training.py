"""Windows per second in training, and one chunk's time at inference, against the same network written plainly.

On a machine with CUDA also the whole loop against Diffusion Policy's, and all blocks at once against one by one.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lfm_cli.benchmarks import Ratio, Settings, Skipped, alternate
from lfm_cli.benchmarks.plain_unet1d import PlainUnet1d
from lfm_policy.flow import FlowChain, Schedule, TensorPool, fit, plan
from lfm_policy.networks import ConditionalUnet1d
from lfm_policy.processes import usable_cores
from lfm_policy.training.loop import Trainer
from lfm_policy.training.memory import keep_freed_memory, peak_memory
from lfm_policy.training.settings import OptimiserSettings

BATCH, STEPS, ACTION, COND, BLOCKS = 256, 16, 10, 38, 4
DIMS = (64, 128, 256)
"""Lift's windows, and blocks of half the paper's width."""

SMALL, SMALL_BATCH = (32, 64, 128), 64
"""Blocks and batches of size=small."""


def measure(settings: Settings) -> Iterator[Ratio | Skipped]:
    """Yield the suite's ratios."""
    keep_freed_memory()  # as the trainer does; the plain network profits too
    yield from _updates(settings)
    yield from _small(settings)
    yield _inference(settings)
    yield _blocks(settings)
    if torch.cuda.is_available():
        from lfm_cli.benchmarks import training_gpu

        yield from training_gpu.measure(settings)
    else:
        for name in ("gpu_vs_diffusion_policy", "gpu_blocks_at_once"):
            yield Skipped(f"training.{name}", "torch finds no CUDA device")


def _updates(settings: Settings) -> Iterator[Ratio]:
    plain, ours = _networks(DIMS)
    inputs = _inputs(BATCH)
    sides = [
        _step(ours, inputs),
        _step(plain, inputs),
        _step(ours, inputs, bf16=True),
        _step(plain, inputs, bf16=True),
    ]
    fast, slow, fast_bf16, slow_bf16 = (BATCH / s for s in alternate(sides, settings.repeats, settings.seconds))
    peak = peak_memory(torch.device("cpu"))
    note = f"forward and backward, batch {BATCH}, dims {list(DIMS)}; peak memory of the process {peak:.0f} MB"
    yield Ratio("training.cpu_vs_plain", fast / slow, 1.5, fast, slow, "windows/s", note)
    yield Ratio("training.cpu_bf16_vs_plain", fast_bf16 / slow, None, fast_bf16, slow, "windows/s", "theirs in fp32")
    note = "both in bf16"
    yield Ratio("training.cpu_bf16_vs_plain_bf16", fast_bf16 / slow_bf16, None, fast_bf16, slow_bf16, "windows/s", note)


def _small(settings: Settings) -> Iterator[Ratio]:
    plain, ours = _networks(SMALL)
    inputs = _inputs(SMALL_BATCH)
    sides = [_step(ours, inputs), _step(plain, inputs)]
    fast, slow = (SMALL_BATCH / s for s in alternate(sides, settings.repeats, settings.seconds))
    note = f"size=small: batch {SMALL_BATCH}, dims {list(SMALL)}"
    yield Ratio("training.cpu_small_vs_plain", fast / slow, None, fast, slow, "windows/s", note)


def _step(network: nn.Module, inputs: tuple[Tensor, Tensor, Tensor], bf16: bool = False) -> Callable[[], None]:
    """Run forward and backward."""

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = network(*inputs).float().square().mean()
        loss.backward()
        network.zero_grad()

    return run


def _inference(settings: Settings) -> Ratio:
    plain, ours = (network.eval() for network in _networks(DIMS))
    inputs = _inputs(1)
    with torch.inference_mode():
        sides = [lambda: ours(*inputs), lambda: plain(*inputs)]
        fast, slow = (1000 * s for s in alternate(sides, settings.repeats, settings.seconds))
    return Ratio("training.inference_vs_plain", slow / fast, 1.5, fast, slow, "ms", "one evaluation at batch 1")


def _blocks(settings: Settings) -> Ratio:
    cores = usable_cores()
    update = [_update(cores), _update(1)]
    fast, slow = (BATCH * BLOCKS / s for s in alternate(update, settings.repeats, settings.seconds))
    note = f"updates of {BLOCKS} blocks, {cores} side by side in threads; theirs one after the other"
    return Ratio("training.cpu_blocks_at_once", fast / slow, None, fast, slow, "windows/s", note)


def _update(parallel: int) -> Callable[[], None]:
    """Make one update of all blocks by the trainer: batch, losses, gradients, AdamW, moving average."""
    torch.manual_seed(0)
    chain = FlowChain([_networks(DIMS)[1] for _ in range(BLOCKS)], Schedule.geometric(BLOCKS, 0.15, 1.25))
    pool = TensorPool(torch.randn(4096, STEPS, ACTION), torch.randn(4096, COND))
    phases = plan("simulation_free", BLOCKS, 1)

    def run() -> None:
        trainer.restore(start)
        fit(chain, trainer.ema.chain, pool, phases, trainer.optimise, batch=BATCH)

    trainer = Trainer(
        chain, phases, OptimiserSettings(), 0, lambda report: None, lambda trainer, *, force: None, parallel
    )
    start = trainer.state()
    return run


def _networks(dims: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain, ours = PlainUnet1d(ACTION, COND, dims), ConditionalUnet1d(ACTION, COND, dims)
    ours.load_state_dict(plain.state_dict())
    return plain, ours


def _inputs(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(batch, STEPS, ACTION), torch.rand(batch), torch.randn(batch, COND)
