"""Distillation of a chain into one evaluation per block (Algorithm A.1 of arXiv 2410.02548).

A student block is the map x + f(x). Written as one Euler step of a velocity v from t = 1 to t = 0 it is x - v(x, 1), so
f = -v(·, 1), and the student is a chain like any other, whose solver takes one Euler step per block.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lfm_policy.choices import Target as Target
from lfm_policy.flow.chain import FlowChain, Loss
from lfm_policy.flow.fit import Optimise, Phase
from lfm_policy.flow.interpolant import column
from lfm_policy.flow.ode import Solver

ONE_STEP = Solver("euler", 1)
"""How students are sampled."""


@dataclass(frozen=True)
class Trajectories:
    """The teacher's ways to data, equally many states per block, the data first; and what they are conditioned on."""

    states: Float[Tensor, "s b *event"]
    cond: Float[Tensor, "b c"] | None = None


@torch.no_grad()
def trajectory(
    chain: FlowChain,
    noise: Float[Tensor, "b *event"],
    cond: Float[Tensor, "b c"] | None = None,
    solver: Solver | None = None,
    *,
    inside: bool = False,
    parts: int = 1,
) -> Float[Tensor, "s b *event"]:
    """Return what the chain makes of `noise`: samples of p_0, …, p_N; with `inside`, states between them as well.

    Those are after every solver step, where all blocks have as many; equally many in each block in any case, and among
    them the ends of `parts` equal parts of each block's time.

    Raises:
        ValueError: a solver of equal steps takes none at the end of a part.
    """
    solver = solver or chain.solver
    pieces = math.lcm(math.gcd(*solver.counts) if inside else 1, parts)
    if solver.method != "dopri5" and math.gcd(*solver.counts) % parts:
        raise ValueError(f"{list(solver.counts)} steps in a block do not make {parts} equal parts")
    between = replace(solver, steps=tuple(max(1, count // pieces) for count in solver.counts))
    states = chain.trajectory(noise, cond, pieces=pieces, solver=between)
    return torch.stack(states[::-1])


def distil(
    student: FlowChain,
    sampler: FlowChain,
    draw: Callable[[torch.Generator], Trajectories],
    phases: Sequence[Phase],
    optimise: Optimise,
    *,
    target: Target = "trajectory",
) -> None:
    """Regress every student block on the teacher's trajectories (Algorithm A.1); no gradient passes between blocks.

    Args:
        student: N' blocks, N' a divisor of the teacher's N.
        sampler: makes the student's own states for "on_policy": the student itself or its moving average.
        draw: a batch of the teacher's trajectories, as the generator decides.
        phases: what to train, from `fit.plan`.
        optimise: the optimiser's loop, called once per phase.
        target: what a block starts from.
    """

    def losses(phase: Phase, generator: torch.Generator) -> Iterator[Loss]:
        drawn = draw(generator)
        ends = drawn.states[:: (len(drawn.states) - 1) // len(student.blocks)]
        starts = trajectory(sampler, ends[-1], drawn.cond, ONE_STEP) if target == "on_policy" else drawn.states
        pieces = (len(starts) - 1) // len(student.blocks)
        for n in phase.blocks:
            place = torch.full((starts.shape[1],), pieces, device=starts.device)
            if target == "consistency":  # of one half: the student will only ever start at t = 1
                place[::2] = torch.randint_like(place[::2], 1, pieces + 1, generator=generator)
            source = starts[n * pieces + place, torch.arange(len(place))]
            t = place / pieces  # one Euler step from there to 0, source - t v, is to end at ends[n]
            yield student.regression(n, source, t, drawn.cond, source - ends[n], column(t, source))

    for number, phase in enumerate(phases):
        optimise(number, phase, partial(losses, phase))
