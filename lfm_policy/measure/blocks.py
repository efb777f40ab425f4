"""The theory as measurements (section 4 of arXiv 2410.02548): what each block of a chain does to the data."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lfm_policy.flow import FlowChain, Sample, Solver, TimeLaw
from lfm_policy.flow.fit import draw_loss
from lfm_policy.flow.likelihood import with_log_det
from lfm_policy.flow.ode import State, integrate
from lfm_policy.measure.energy import energy_coefficient

LogDensity = Callable[[Tensor], Tensor]
"""log p_0 (B,) of normalised samples (B, *event) [nats]."""


@dataclass(frozen=True)
class BlockReport:
    """What block n does to samples of p_n, the data pushed there by the blocks before it."""

    block: int
    gamma: float | None
    """OU step; None for the last block, which ends in noise."""
    loss: float
    """Matching loss, which cannot fall to 0: it contains the spread of the conditional velocities."""
    distance: float
    """Between T_n(x) and the OU step of other samples, with their conditions: energy coefficient, 0 equal … 1 far."""
    distance_of_equals: float
    """95th percentile of the distance between samples of one law."""
    kl: float | None
    """KL(p_{n+1} | q) of the pushed data [nats], where log p_0 is known."""
    kl_error: float | None
    """Its standard error."""
    contraction: float | None
    """KL(p_{n+1} | q) / KL(p_n | q); an exact OU step gives at most e^{-2γ}."""
    speed: float
    """Mean squared velocity along the paths, per dimension."""
    curvature: float
    """Mean squared difference of velocity and chord along the paths, per dimension: 0 when one step is enough."""
    one_step: float
    """RMS error per dimension of a single Euler step from noise side to data side."""
    inversion: float
    """RMS of T_n^{-1}(T_n(x)) - x per dimension, with the chain's own solver."""


@torch.no_grad()
def diagnose(
    chain: FlowChain, sample: Sample, generator: torch.Generator, log_density: LogDensity | None = None
) -> Iterator[BlockReport]:
    """Measure block after block on `sample` and carry it on.

    Args:
        chain: flows; integrated by their own solver, but for the shape of the paths.
        sample: normalised data.
        generator: decides noise, times and permutations.
        log_density: of the data; gives KL divergences, by the exact trace.
    """
    half, x = len(sample.x) // 2, sample.x
    log_p = None if log_density is None else log_density(x)
    kl = None if log_p is None else _kl(log_p, x)
    for n in range(len(chain.blocks)):
        at = Sample(x, sample.cond)
        after, log_p = _pushed(chain, n, at, log_p)
        before, kl = kl, None if log_p is None else _kl(log_p, after)
        noise = torch.randn(x[half:].shape, generator=generator, device=x.device, dtype=x.dtype)
        target = chain.schedule.target(n, x[half:], noise)
        ours, theirs = _halves(sample.cond, half)
        distance, equals = energy_coefficient(_with_cond(after[:half], ours), _with_cond(target, theirs), generator)
        speed, curvature, one_step = path_shape(chain, n, Sample(after, sample.cond))
        yield BlockReport(
            block=n,
            gamma=None if n == len(chain.blocks) - 1 else chain.schedule.gammas[n],
            loss=draw_loss(chain, n, at, "pushforward", TimeLaw(), generator)().item(),
            distance=distance,
            distance_of_equals=equals,
            kl=kl and kl[0],
            kl_error=kl and kl[1],
            contraction=kl[0] / before[0] if kl and before else None,
            speed=speed,
            curvature=curvature,
            one_step=one_step,
            inversion=_rms(chain.to_data(after, sample.cond, start=n + 1, stop=n).x - x),
        )
        x = after


@torch.no_grad()
def path_shape(chain: FlowChain, n: int, sample: Sample, pieces: int = 16) -> tuple[float, float, float]:
    """Return the mean squared speed, curvature and one-step Euler error of block n's paths from p_{n+1} to p_n."""

    def field(t: Tensor, state: State) -> State:
        return (chain.velocity(n, state[0], t, sample.cond),)

    times, states = torch.linspace(1, 0, pieces + 1).to(sample.x), [sample.x]
    for begin, end in pairwise(times.tolist()):
        states += integrate(field, (states[-1],), begin, end, Solver("heun")).state
    velocities = torch.stack([field(t, (x,))[0] for t, x in zip(times, states, strict=True)])
    chord = states[0] - states[-1]
    weights = torch.ones(pieces + 1).to(sample.x)
    weights[[0, -1]] = 0.5  # trapezoids

    def mean_square(values: Tensor) -> float:
        squares = values.square().flatten(1).mean(1)
        return ((weights * squares).sum() / pieces).item()

    return mean_square(velocities), mean_square(velocities - chord), _rms(states[0] - velocities[0] - states[-1])


def _pushed(chain: FlowChain, n: int, sample: Sample, log_p: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return T_n(x) and, where it was known of x, its log-density."""
    if log_p is None:
        return chain.to_noise(sample.x, sample.cond, start=n, stop=n + 1).x, None
    after, gains = with_log_det(chain, sample.x, sample.cond, range(n, n + 1), None, None).state
    return after, log_p - gains[0]


def _kl(log_p: Tensor, x: Tensor) -> tuple[float, float]:
    """Return the mean of log p - log q over x, and its standard error."""
    log_q = -0.5 * (x.square() + math.log(2 * math.pi)).flatten(1).sum(1)
    return (log_p - log_q).mean().item(), (log_p - log_q).std().item() / math.sqrt(len(x))


def _halves(cond: Tensor | None, half: int) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if cond is None else (cond[:half], cond[half:])


def _with_cond(x: Tensor, cond: Tensor | None) -> Tensor:
    return x.flatten(1) if cond is None else torch.cat([x.flatten(1), cond], dim=1)


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()
