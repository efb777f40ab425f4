"""Algorithm 1 of arXiv 2410.02548, its simulation-free variant, and the two combined: start reading here.

A plan is a list of phases. A phase trains some blocks, drawing each block's left end either by pushing the data through
the blocks before it (the paper's Algorithm 1) or straight from the OU marginal that exact blocks would produce.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from lfm_policy.flow.chain import FlowChain
from lfm_policy.flow.matching import TimeLaw, matching_loss

Mode = Literal["sequential", "simulation_free", "combined"]


@dataclass(frozen=True)
class Sample:
    """Samples x (B, *event) with what they are conditioned on, (B, C) or None."""

    x: Tensor
    cond: Tensor | None = None


@runtime_checkable
class Pool(Protocol):
    """A set of training samples."""

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> Sample:
        """The samples at `index` (B,)."""
        ...


@dataclass(frozen=True)
class TensorPool:
    """A pool held in memory: x (S, *event), cond (S, C) or None."""

    x: Tensor
    cond: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Tensor) -> Sample:
        """The samples at `index` (B,)."""
        return Sample(self.x[index], None if self.cond is None else self.cond[index])


@dataclass(frozen=True)
class Phase:
    """`steps` updates of each of `blocks`, whose left ends come from `source`."""

    blocks: tuple[int, ...]
    source: Literal["marginal", "pushforward"]
    steps: int
    warm_start: bool = False
    """Begin from the weights of the block before."""


def plan(mode: Mode, blocks: int, steps: int, refine: float = 0.25) -> tuple[Phase, ...]:
    """The phases of a fit in which every block takes `steps` updates, so that all modes cost the same.

    Args:
        mode: "sequential" is Algorithm 1; "simulation_free" trains all blocks at once from OU marginals;
            "combined" spends the last `refine` of the steps on a sequential pass over simulation-free blocks.
        blocks: N.
        steps: updates of each block.
        refine: share of the steps in the sequential pass of "combined".
    """
    all_blocks = tuple(range(blocks))
    match mode:
        case "simulation_free":
            return (Phase(all_blocks, "marginal", steps),)
        case "sequential":
            return tuple(Phase((n,), "pushforward", steps, warm_start=n > 0) for n in all_blocks)
        case "combined":
            pass_steps = round(refine * steps)
            start = Phase(all_blocks, "marginal", steps - pass_steps)
            return (start, *(Phase((n,), "pushforward", pass_steps) for n in all_blocks))


Loss = Callable[[], Tensor]
"""A scalar loss that is still to be computed, on a batch that has been drawn."""

Losses = Callable[[torch.Generator], Iterator[Loss]]
"""Draws one batch a block, as the generator decides; the losses may then be computed side by side."""

Optimise = Callable[[int, Phase, Losses], None]
"""Carries out phase number k: the warm start, then `phase.steps` updates of its blocks; may resume in the middle."""


def fit(
    chain: FlowChain,
    sampler: FlowChain,
    pool: Pool,
    phases: Sequence[Phase],
    optimise: Optimise,
    *,
    batch: int,
    time_law: TimeLaw = TimeLaw(),
) -> None:
    """Fit every block of `chain` (Algorithm 1).

    Args:
        chain: the networks that are trained.
        sampler: the networks that push samples forward: the trained ones themselves or their moving average.
        pool: the data, samples of p_0.
        phases: what to train in which order, from `plan`.
        optimise: the optimiser's loop, called once a phase.
        batch: samples in one update.
        time_law: the law of t.
    """
    position, current = 0, pool  # samples of p_position

    def samples(phase: Phase) -> Pool:
        """Pushed on when a batch is drawn: a resumed run skips the phases that are done."""
        nonlocal position, current
        if phase.source == "marginal":
            return pool
        if position < phase.blocks[0]:
            current = pushed(sampler, current, start=position, stop=phase.blocks[0])
            position = phase.blocks[0]
        return current

    for k, phase in enumerate(phases):

        def losses(generator: torch.Generator, phase: Phase = phase) -> Iterator[Loss]:
            index = torch.randint(len(pool), (batch,), generator=generator, device=generator.device)
            sample = samples(phase).take(index)
            for n in phase.blocks:
                yield draw_loss(chain, n, sample, phase.source, time_law, generator)

        optimise(k, phase, losses)


def draw_loss(
    chain: FlowChain,
    n: int,
    sample: Sample,
    source: Literal["marginal", "pushforward"],
    time_law: TimeLaw,
    generator: torch.Generator,
) -> Loss:
    """Block n's matching loss: its left end from `sample`, its right end one OU step further from that same point."""
    left = sample.x
    if source == "marginal" and n > 0:
        left = chain.schedule.marginal(n, left, _normal_like(left, generator))
    right = chain.schedule.target(n, left, _normal_like(left, generator))
    t = time_law.sample(len(left), generator)
    return partial(matching_loss, chain.blocks[n], left, right, t, sample.cond, chain.interpolant)


@torch.no_grad()
def pushed(sampler: FlowChain, pool: Pool, *, start: int, stop: int, batch: int = 4096) -> Pool:
    """A pool of samples of p_start carried through blocks to p_stop (the last line of Algorithm 1's loop)."""
    parts = [pool.take(index) for index in torch.arange(len(pool)).split(batch)]
    x = torch.cat([sampler.to_noise(part.x, part.cond, start=start, stop=stop).x for part in parts])
    conds = [part.cond for part in parts if part.cond is not None]
    return TensorPool(x, torch.cat(conds) if conds else None)


def _normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
