"""How faithful a distilled student is to its teacher: the same noise compared point by point, fresh noise as a law."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lfm_policy.flow import FlowChain
from lfm_policy.measure.energy import energy_distance, mean_distance
from lfm_policy.settings import Frozen


class Fidelity(Frozen):
    """A student's samples against its teacher's under the same conditions."""

    error: float
    """Root mean squared difference for the same noise, in normalised units."""
    error_by_dimension: tuple[float, ...]
    """The same for each dimension, in the data's own units."""
    error_by_step: tuple[float, ...]
    """The same for each step of the chunk, in normalised units; a single number for vectors."""
    energy_distance: float
    """Between the two laws given the condition (Székely and Rizzo, 2013), normalised units, mean over conditions."""
    energy_distance_error: float
    """Its standard error; for a single condition unknown and 0."""
    energy_distance_floor: float
    """The same between two sets of the teacher's own draws: 0 in expectation, as the estimator is unbiased."""
    teacher_spread: float
    """Mean distance of two draws under the same condition: a student that drops modes has a smaller one."""
    student_spread: float
    conditions: int
    draws: int
    """Under each condition."""


@torch.no_grad()
def fidelity(
    student: FlowChain,
    teacher: FlowChain,
    cond: Float[Tensor, "o c"] | None,
    event: Sequence[int],
    scale: Float[Tensor, "*event"],
    *,
    draws: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> Fidelity:
    """Compare two chains, each with its own solver.

    Args:
        student: the distilled chain.
        teacher: what it was distilled from.
        cond: normalised conditions; None for an unconditional chain.
        event: shape of a sample, (T, D) or (D,).
        scale: normalised units per unit of the data, for each dimension (D,) or each step and dimension (T, D).
        draws: samples under each condition, at least 2.
        temperature: standard deviation of the noise that both begin at.
        seed: decides the noise.
    """
    device = scale.device
    generator, count = torch.Generator(device).manual_seed(seed), 1 if cond is None else len(cond)
    shape = (count, draws, *event)
    first, second = (temperature * torch.randn(shape, generator=generator, device=device) for _ in range(2))
    ours, theirs = _samples(student, cond, first), _samples(teacher, cond, first)
    other = _samples(teacher, cond, second)
    squares = (ours - theirs).square()
    distances = energy_distance(ours, other)
    dimensions = (squares / scale.square()).flatten(0, -2).mean(0).sqrt()
    steps = squares.mean(-1).flatten(0, 1).mean(0).sqrt().reshape(-1)
    return Fidelity(
        error=squares.mean().sqrt().item(),
        error_by_dimension=tuple(dimensions.tolist()),
        error_by_step=tuple(steps.tolist()),
        energy_distance=distances.mean().item(),
        energy_distance_error=distances.std().item() / count**0.5 if count > 1 else 0.0,
        energy_distance_floor=energy_distance(theirs, other).mean().item(),
        teacher_spread=mean_distance(theirs).mean().item(),
        student_spread=mean_distance(ours).mean().item(),
        conditions=count,
        draws=draws,
    )


def _samples(chain: FlowChain, cond: Tensor | None, noise: Tensor, batch: int = 256) -> Tensor:
    flat = noise.flatten(0, 1)
    each = None if cond is None else cond.repeat_interleave(noise.shape[1], dim=0)
    conds = [None] * len(flat.split(batch)) if each is None else each.split(batch)
    parts = [chain.to_data(part, given).x for part, given in zip(flat.split(batch), conds, strict=True)]
    return torch.cat(parts).view(noise.shape)
