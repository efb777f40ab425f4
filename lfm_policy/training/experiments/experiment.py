"""The objects in which one training run differs from another; the script and the loop know no more about it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.flow import FlowChain, Pool, Sample, TimeLaw
from lfm_policy.flow.fit import draw_loss
from lfm_policy.training.loop import Encoder


@runtime_checkable
class Model(Protocol):
    """What is trained: a module around a chain that can write itself into a directory and be read from there."""

    chain: FlowChain

    def write(self, directory: Path) -> None: ...

    def state_dict(self) -> Mapping[str, Tensor]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> Any: ...

    def digest(self) -> str: ...


M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class Experiment(Generic[M]):
    """A model, its data, and what is told about the model at the end."""

    model: M
    """With fresh weights, its normalisers fitted, on the device of the run."""
    pool: Pool
    """Normalised training samples, with or without a condition, on the same device."""
    load: Callable[[Path], M]
    """Reads the trained model back from its run's folder."""
    report: Callable[[M], Mapping[str, Any]]
    """Measurements of the trained model, for the run's summary."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Where the data come from: a run is only continued on the same."""
    encoder: Encoder | None = None
    """Gives the pool's conditions, if it is trained with the chain."""


def shrunk(normalizer: AffineNormalizer, time: float) -> AffineNormalizer:
    """Return the normaliser of data diffused for OU time `time` (Corollary 4.3); `with_diffusion` adds the noise.

    The factor e^{-time} is inverted wherever samples are denormalised; the noise stays in them.
    """
    return normalizer.scaled(shrinkage(time)) if time else normalizer


def shrinkage(time: float) -> float:
    """Return the factor that OU time `time` leaves of data."""
    return math.exp(-time)


@dataclass(frozen=True)
class DiffusedPool:
    """A pool with the noise of OU time `time`, drawn afresh whenever samples are taken: a density and no set of points.

    Samples that are pushed through blocks (Algorithm 1) are taken once, and keep the noise that they got then.
    """

    pool: Pool
    time: float
    seed: int
    """Of the noise of samples that are taken without a generator."""

    def __len__(self) -> int:
        return len(self.pool)

    def take(self, index: Tensor, generator: torch.Generator | None = None) -> Sample:
        """Return the samples at `index` (B,), with noise that the generator decides, or else the first index."""
        sample = self.pool.take(index, generator)
        x = sample.x
        if generator is None:
            generator = torch.Generator(x.device).manual_seed(self.seed + int(index[0]))
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return Sample(x + math.sqrt(-math.expm1(-2 * self.time)) * noise, sample.cond)


def with_diffusion(pool: Pool, time: float, seed: int) -> Pool:
    """Return the pool with the noise of OU time `time`; the same pool for time 0."""
    return DiffusedPool(pool, time, seed) if time else pool


@torch.no_grad()
def evaluation_loss(chain: FlowChain, pool: Pool, batches: int = 8, batch: int = 256) -> dict[str, float]:
    """Return each block's matching loss on OU marginals, with the same samples, noise and times at every call.

    No more than `batches` batches, and no more than draw as many samples as there are.
    """
    totals, batches = [0.0] * len(chain.blocks), min(batches, math.ceil(len(pool) / batch))
    for number in range(batches):
        generator = torch.Generator(next(chain.parameters()).device).manual_seed(number)
        sample = pool.take(_some(len(pool), batch, generator))
        for n in range(len(chain.blocks)):
            totals[n] += draw_loss(chain, n, sample, "marginal", TimeLaw(), generator)().item() / batches
    return {f"block{n}": total for n, total in enumerate(totals)}


def _some(size: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(size, (count,), generator=generator, device=generator.device)
