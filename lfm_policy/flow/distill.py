"""Distillation of a chain into one evaluation a block (Algorithm A.1 of arXiv 2410.02548).

A student block is the map x + f(x). Written as one Euler step of a velocity v from t = 1 to t = 0 it is x - v(x, 1), so
f = -v(·, 1), and the student is a chain like any other, whose solver takes one Euler step a block.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from lfm_policy.flow.chain import FlowChain
from lfm_policy.flow.fit import Loss, Optimise, Phase, Pool
from lfm_policy.flow.ode import Solver
from lfm_policy.flow.schedule import Schedule

ONE_STEP = Solver("euler", 1)
"""How students are sampled."""


def merged(schedule: Schedule, blocks: int) -> Schedule:
    """The schedule of N' = `blocks` students, each in place of k = N / N' teacher blocks.

    Raises:
        ValueError: N' does not divide N.
    """
    if blocks < 1 or schedule.blocks % blocks:
        raise ValueError(f"{schedule.blocks} teacher blocks cannot be shared out among {blocks} students equally")
    k = schedule.blocks // blocks
    ends = [schedule.time(k * n) for n in range(blocks)]
    return Schedule(tuple(after - before for before, after in pairwise(ends)))


@torch.no_grad()
def trajectory(
    teacher: FlowChain,
    noise: Float[Tensor, "b *event"],
    cond: Float[Tensor, "b c"] | None,
    blocks: int,
    solver: Solver | None = None,
) -> list[Tensor]:
    """What the teacher makes of `noise`, at the ends of the N' = `blocks` students: samples of p_0, p_k, …, p_N."""
    k = len(teacher.blocks) // blocks
    states = [noise]
    for n in range(blocks, 0, -1):
        states.append(teacher.to_data(states[-1], cond, start=k * n, stop=k * (n - 1), solver=solver).x)
    return states[::-1]


def distil(
    student: FlowChain,
    teacher: FlowChain,
    pool: Pool,
    phases: Sequence[Phase],
    optimise: Optimise,
    *,
    batch: int,
    solver: Solver | None = None,
) -> None:
    """Regress every student block on the teacher's own trajectories (Algorithm A.1); blocks are independent.

    Args:
        student: N' blocks, N' a divisor of the teacher's N.
        teacher: generates the trajectories from noise, under conditions drawn from the pool.
        pool: the data; its conditions are used, and the shape of its samples.
        phases: what to train, from `fit.plan`.
        optimise: the optimiser's loop, called once a phase.
        batch: trajectories in one update.
        solver: how finely the teacher is integrated; its own solver by default.
    """
    for number, phase in enumerate(phases):

        def losses(generator: torch.Generator, phase: Phase = phase) -> Iterator[Loss]:
            index = torch.randint(len(pool), (batch,), generator=generator, device=generator.device)
            sample = pool.take(index)
            noise = torch.randn(sample.x.shape, generator=generator, device=sample.x.device, dtype=sample.x.dtype)
            states = trajectory(teacher, noise, sample.cond, len(student.blocks), solver)
            for n in phase.blocks:
                yield partial(regression_loss, student, n, states[n + 1], states[n], sample.cond)

        optimise(number, phase, losses)


def regression_loss(
    student: FlowChain,
    n: int,
    source: Float[Tensor, "b *event"],
    target: Float[Tensor, "b *event"],
    cond: Float[Tensor, "b c"] | None,
) -> Float[Tensor, ""]:
    """Mean squared error per dimension of block n's one step from `source` to `target`."""
    step = student.to_data(source, cond, start=n + 1, stop=n, solver=ONE_STEP).x
    return (step - target).square().mean()
