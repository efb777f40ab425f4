"""The trainer on a GPU, windows resident and all blocks in one compiled call, against Diffusion Policy's loop.

Theirs is its network, eager and in fp32, with batches from a DataLoader. Every figure is the median of a run's later
updates: batch, losses, gradients, AdamW, moving average.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lfm_cli.benchmarks import Ratio, Settings
from lfm_cli.benchmarks.plain_unet1d import PlainUnet1d
from lfm_policy.flow import FlowChain, Phase, Schedule, TensorPool, fit
from lfm_policy.networks import ConditionalUnet1d
from lfm_policy.training.loop import StepReport, Trainer
from lfm_policy.training.memory import peak_memory
from lfm_policy.training.settings import OptimiserSettings

STEPS, ACTION, COND, BLOCKS = 16, 10, 38, 4
UPDATES = 40
"""Updates of each run, for each of the suite's repeats; compilation and capture fall into the first half."""


@dataclass(frozen=True)
class Sizes:
    """By default those of the paper's Lift model and of Diffusion Policy's network, with as many parameters."""

    ours: tuple[int, ...] = (128, 256, 512)
    """Dims of one of four blocks."""
    theirs: tuple[int, ...] = (256, 512, 1024)
    batch: int = 256
    windows: int = 65536


def measure(settings: Settings) -> Iterator[Ratio]:
    """Yield the suite's ratios on the first CUDA device."""
    yield from compare(torch.device("cuda"), Sizes(), UPDATES * settings.repeats)


def compare(device: torch.device, sizes: Sizes, updates: int) -> Iterator[Ratio]:
    """Yield the ratios from runs of so many updates."""
    data = TensorDataset(torch.randn(sizes.windows, STEPS, ACTION), torch.randn(sizes.windows, COND))
    pool = TensorPool(*(part.to(device) for part in data.tensors))
    together, alone = [tuple(range(BLOCKS))], [(n,) for n in range(BLOCKS)]
    at_once = 1 / _seconds(pool, sizes, together, updates, compiled=True)
    peak = peak_memory(device)
    in_turn = 1 / _seconds(pool, sizes, alone, updates, compiled=True)
    eager = 1 / _seconds(pool, sizes, together, updates, compiled=False)
    theirs = 1 / _diffusion_policy(data, sizes, updates, device)
    note = f"updates of all blocks against eager fp32 updates of {list(sizes.theirs)} from a DataLoader; "
    ours, unit, note = at_once * sizes.batch, "windows/s", f"{note}peak {peak:.0f} MB"
    yield Ratio("training.gpu_vs_diffusion_policy", at_once / theirs, 5.0, ours, theirs * sizes.batch, unit, note)
    note = f"{BLOCKS} blocks in one call; theirs one after the other; both compiled, as CUDA graphs"
    yield Ratio("training.gpu_blocks_at_once", at_once / in_turn, 2.0, at_once, in_turn, "updates/s", note)
    note = "the same; theirs with optimiser.compiled=false"
    yield Ratio("training.gpu_compiled_vs_eager", at_once / eager, None, at_once, eager, "updates/s", note)


def _seconds(
    pool: TensorPool, sizes: Sizes, groups: Sequence[tuple[int, ...]], updates: int, *, compiled: bool
) -> float:
    """Return the seconds of one update of every block by the trainer, those of a group together."""
    blocks: list[nn.Module] = [ConditionalUnet1d(ACTION, COND, sizes.ours) for _ in range(BLOCKS)]
    chain = FlowChain(blocks, Schedule.geometric(BLOCKS, 0.15, 1.25)).to(pool.x.device)
    phases = tuple(Phase(group, "marginal", updates) for group in groups)
    seconds: list[list[float]] = [[] for _ in phases]

    def hear(report: StepReport) -> None:
        seconds[report.phase].append(report.seconds)

    trainer = Trainer(chain, phases, OptimiserSettings(compiled=compiled), 0, hear, lambda trainer, *, force: None)
    fit(chain, trainer.ema.chain, pool, phases, trainer.optimise, batch=sizes.batch)
    return sum(median(times[updates // 2 :]) for times in seconds)


def _diffusion_policy(data: TensorDataset, sizes: Sizes, updates: int, device: torch.device) -> float:
    """Return the seconds of one update."""
    network = PlainUnet1d(ACTION, COND, sizes.theirs, time_dim=256).to(device)
    average = [p.detach().clone() for p in network.parameters()]
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    gpu, seconds = device.type == "cuda", []
    workers = {"num_workers": 4, "pin_memory": True, "persistent_workers": True} if gpu else {}
    loader = DataLoader(data, sizes.batch, shuffle=True, drop_last=True, **workers)
    while len(seconds) < updates:
        started = time.perf_counter()
        for batch in loader:
            x, cond = (part.to(device, non_blocking=True) for part in batch)
            noise, t = torch.randn_like(x), torch.rand(len(x), device=device)
            loss = (network(torch.lerp(x, noise, t[:, None, None]), t, cond) - noise).square().mean()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            for mean, p in zip(average, network.parameters(), strict=True):
                mean.lerp_(p.detach(), 0.001)
            loss.item()  # waits for the device, as a loop does that logs its loss
            seconds.append(time.perf_counter() - started)
            started = time.perf_counter()
    return median(seconds[updates // 2 :])
