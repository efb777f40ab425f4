"""Algorithm 1 of arXiv 2410.02548, its simulation-free variant, and the two combined: start reading here.

A plan is a list of phases. A phase trains some blocks, drawing each block's left end either by pushing the data through
the blocks before it (the paper's Algorithm 1) or straight from the OU marginal that exact blocks would produce.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lfm_policy.choices import BetaLaw, Coupling, Mode
from lfm_policy.flow.chain import FlowChain, Loss

Source = Literal["marginal", "pushforward"]


@dataclass(frozen=True)
class TimeLaw(BetaLaw):
    """The law of t on [0, 1] that training draws from."""

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
        """Draw on the generator's device, by inversion, so that a seeded generator decides the values."""
        uniform = torch.rand(count, generator=generator, device=generator.device)
        if self.alpha == 1 and self.beta == 1:
            return uniform
        from scipy.special import betaincinv  # not for those who do not train

        quantile = betaincinv(self.alpha, self.beta, uniform.double().cpu().numpy())
        return torch.as_tensor(quantile, dtype=uniform.dtype, device=uniform.device)


@dataclass(frozen=True)
class Sample:
    """Samples x (B, *event) with what they are conditioned on, (B, C) or None."""

    x: Tensor
    cond: Tensor | None = None


@runtime_checkable
class Pool(Protocol):
    """A set of training samples."""

    def __len__(self) -> int: ...

    def take(self, index: Tensor, generator: torch.Generator | None = None) -> Sample:
        """Return the samples at `index` (B,), in a variant that the generator decides where there are several."""
        ...


@dataclass(frozen=True)
class TensorPool(Sample):
    """A pool held in memory."""

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Tensor, generator: torch.Generator | None = None) -> Sample:
        """Return the samples at `index` (B,)."""
        return Sample(self.x[index], None if self.cond is None else self.cond[index])


@dataclass(frozen=True)
class Phase:
    """`steps` updates of each of `blocks`, whose left ends come from `source`."""

    blocks: tuple[int, ...]
    source: Source
    steps: int
    warm_start: bool = False
    """Begin from the weights of the block before."""
    drawn: tuple[int, ...] = ()
    """Blocks to draw batches for, if more than `blocks`, which then see the batches of a phase that trains all."""


def plan(mode: Mode, blocks: int, steps: int, refine: float = 0.25) -> tuple[Phase, ...]:
    """Return the phases of a fit in which every block takes `steps` updates, so that all modes cost the same.

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


Losses = Callable[[torch.Generator], Iterator[Loss]]
"""Draws one batch per block, as the generator decides. What it yields computes a loss when it is called: all drawing is
done first, in order, so that blocks may then be computed in threads, side by side."""

Track = Callable[[Sequence[Any]], Iterable[Any]]
"""Passes parts of a long phase on as they come, and may show how far it is."""

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
    coupling: Coupling = "dependent",
    rows: slice = slice(None),
    share_out: bool = False,
    track: Track = iter,
) -> None:
    """Fit every block of `chain` (Algorithm 1).

    Args:
        chain: the networks that are trained.
        sampler: the networks that push samples forward: the trained ones themselves or their moving average.
        pool: the data, samples of p_0.
        phases: what to train in which order, from `plan`.
        optimise: the optimiser's loop, called once per phase.
        batch: samples in one update.
        time_law: the law of t.
        coupling: of a block's two ends.
        rows: of each batch, those that the losses are of: the part of one process among several.
        share_out: give each block rows of its own of a batch, as blocks that share a network do: an update then costs
            as many evaluations of it as one of a single block.
        track: hears of the batches that are pushed forward.

    Raises:
        ValueError: a coupling other than "dependent" with conditions, which both ends must share.
    """
    begun = _Begun(sampler, pool, track)
    for k, phase in enumerate(phases):

        def losses(generator: torch.Generator, phase: Phase = phase) -> Iterator[Loss]:
            samples = begun.samples(phase)
            sample = _draw(samples, batch, generator)
            partner = _partner(samples, sample, coupling, generator)
            drawn = phase.drawn or phase.blocks
            for place, n in enumerate(drawn):
                own = slice((rows.start or 0) + place, rows.stop, len(drawn)) if share_out else rows
                loss = draw_loss(chain, n, sample, phase.source, time_law, generator, partner, own)
                if n in phase.blocks:
                    yield loss

        optimise(k, phase, losses)


class _Begun:
    """The samples that phases begin with: data, or data pushed through the blocks that are trained.

    They are pushed when a phase draws its first batch, so a resumed run pushes nothing for phases that are done.
    """

    def __init__(self, sampler: FlowChain, pool: Pool, track: Track) -> None:
        self._sampler, self._pool, self._track = sampler, pool, track
        self._position, self._pushed = 0, pool
        """Samples of p_position."""

    def samples(self, phase: Phase) -> Pool:
        if phase.source == "marginal":
            return self._pool
        start, stop = self._position, phase.blocks[0]
        if start < stop:
            self._pushed = pushed(self._sampler, self._pushed, start=start, stop=stop, track=self._track)
            self._position = stop
        return self._pushed


def draw_loss(
    chain: FlowChain,
    n: int,
    sample: Sample,
    source: Source,
    time_law: TimeLaw,
    generator: torch.Generator,
    partner: Sample | None = None,
    rows: slice = slice(None),
) -> Loss:
    """Draw block n's loss on `rows` of a batch: from OU marginals of data x, or between pushed x and its OU step.

    With a `partner`, the right end is the OU step of the partner's left end.
    """
    data, cond = sample.x, None if sample.cond is None else sample.cond[rows]
    if source == "marginal" and partner is None:
        noise, t = _normal_like(data, generator), time_law.sample(len(data), generator)
        return chain.marginal_loss(n, data[rows], noise[rows], t[rows], cond)
    left = _left_end(chain, n, data, source, generator)
    start = left if partner is None else _left_end(chain, n, partner.x, source, generator)
    right = chain.schedule.target(n, start, _normal_like(left, generator))
    t = time_law.sample(len(left), generator)
    return chain.loss(n, left[rows], right[rows], t[rows], cond)


@torch.no_grad()
def pushed(sampler: FlowChain, pool: Pool, *, start: int, stop: int, batch: int = 4096, track: Track = iter) -> Pool:
    """Return a pool of samples of p_start carried through blocks to p_stop (the last line of Algorithm 1's loop).

    Every block takes as many solver steps as the one with most: what is pushed is learned from.
    """
    parts = [pool.take(index) for index in torch.arange(len(pool)).split(batch)]
    way: Any = {"start": start, "stop": stop, "solver": replace(sampler.solver, steps=max(sampler.solver.counts))}
    x = torch.cat([sampler.to_noise(part.x, part.cond, **way).x for part in track(parts)])
    conds = [part.cond for part in parts if part.cond is not None]
    return TensorPool(x, torch.cat(conds) if conds else None)


def _draw(pool: Pool, batch: int, generator: torch.Generator) -> Sample:
    return pool.take(torch.randint(len(pool), (batch,), generator=generator, device=generator.device), generator)


def _partner(pool: Pool, sample: Sample, coupling: Coupling, generator: torch.Generator) -> Sample | None:
    if coupling == "dependent":
        return None
    if sample.cond is not None:
        raise ValueError(f"coupling '{coupling}' pairs ends of different conditions: use 'dependent'")
    if coupling == "independent":
        return _draw(pool, len(sample.x), generator)
    return Sample(sample.x[torch.randperm(len(sample.x), generator=generator, device=generator.device)])


def _left_end(chain: FlowChain, n: int, x: Tensor, source: Source, generator: torch.Generator) -> Tensor:
    """Draw a sample of p_n from pushed x, or from data x by one OU step."""
    return x if source == "pushforward" or n == 0 else chain.schedule.marginal(n, x, _normal_like(x, generator))


def _normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
