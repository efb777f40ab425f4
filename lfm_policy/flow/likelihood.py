"""Log-densities through the chain (eq. 26 of arXiv 2410.02548): log p(x) = log q(x_N) + Σ_n ∫_0^1 div v_n(x(s), s) ds.

The divergence is integrated in the same solve as the path it belongs to, so a solver that is too coarse shows in both.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vjp, vmap

from lfm_policy.flow.chain import FlowChain
from lfm_policy.flow.interpolant import Batch, Cond
from lfm_policy.flow.ode import Solution, Solver, State, integrate


@dataclass(frozen=True)
class Hutchinson:
    """Estimate a divergence as the mean of ε·(∂v/∂x)ε over Rademacher probes ε, the same ones along a whole path.

    Unbiased, at the cost of one vector-Jacobian product a probe, whatever the dimension (Grathwohl et al. 2019).

    Raises:
        ValueError: there is no probe.
    """

    probes: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise ValueError(f"Hutchinson's estimator needs at least one probe, found {self.probes}")

    def draw(self, x: Tensor) -> Float[Tensor, "probes ..."]:
        """Draw signs shaped (probes, *x.shape)."""
        generator = torch.Generator(x.device).manual_seed(self.seed)
        bits = torch.randint(2, (self.probes, *x.shape), generator=generator, device=x.device)
        return 2 * bits.to(x.dtype) - 1


@dataclass(frozen=True)
class Likelihood:
    """Log-densities of a batch, with what they cost and how sure they are."""

    log_prob: Float[Tensor, " b"]
    """[nats]"""
    variance: Float[Tensor, " b"] | None
    """Variance of each value, from Hutchinson's probes [nats²]; None with an exact divergence or a single probe."""
    nfe: int
    """Network evaluations along the path; vector-Jacobian products are not counted."""

    @property
    def nll(self) -> float:
        """Mean negative log-density of the batch [nats]."""
        return -self.log_prob.mean().item()

    @property
    def standard_error(self) -> float:
        """Standard error of `nll`, from the spread over the batch, Hutchinson's noise included [nats]."""
        return self.log_prob.std().item() / math.sqrt(len(self.log_prob))


def log_prob(
    chain: FlowChain, x: Batch, cond: Cond = None, *, solver: Solver | None = None, estimator: Hutchinson | None = None
) -> Likelihood:
    """Return log p(x | cond) of the chain's samples, in the precision of x and the chain, fp32 or fp64 (never TF32).

    Args:
        chain: the blocks; each must treat the samples of a batch one by one, as batch normalisation does not.
        x: data.
        cond: what each sample is conditioned on.
        solver: in place of the chain's own.
        estimator: of the divergence; None computes it exactly with one vector-Jacobian product per dimension.
    """
    passage = with_log_det(chain, x, cond, range(len(chain.blocks)), solver, estimator)
    noise, gains = passage.state
    values = gains - 0.5 * (noise.square() + math.log(2 * math.pi)).flatten(1).sum(1)
    variance = values.var(dim=0) / len(values) if len(values) > 1 else None
    return Likelihood(values.mean(dim=0), variance, passage.nfe)


def with_log_det(
    chain: FlowChain, x: Batch, cond: Cond, order: range, solver: Solver | None, estimator: Hutchinson | None
) -> Solution:
    """Carry x through the blocks of `order`; beside it what its log-density loses [nats], (1, B) or (probes, B)."""
    size = math.prod(x.shape[1:])
    exact = estimator is None
    probes = torch.eye(size).to(x).view(size, 1, *x.shape[1:]) if exact else estimator.draw(x)
    state: State = (x, x.new_zeros(1 if exact else len(probes), len(x)))
    nfe = 0

    def field(n: int, t: Tensor, state: State) -> State:
        value, forms = divergence(lambda x: chain.velocity(n, x, t, cond), state[0], probes)
        return value, forms.sum(0, keepdim=True) if exact else forms

    with torch.no_grad(), _full_precision():
        for n in order:
            solution = integrate(partial(field, n), state, 0.0, 1.0, (solver or chain.solver).of_block(n))
            state, nfe = solution.state, nfe + solution.nfe
    return Solution(state, nfe)


def divergence(
    velocity: Callable[[Tensor], Tensor], x: Batch, probes: Float[Tensor, "k _ *event"]
) -> tuple[Batch, Float[Tensor, "k b"]]:
    """Return velocity(x), and ε·(∂v/∂x)ε per sample for each of K probes, shared by the batch or one per sample.

    Summed over the unit vectors it is the exact divergence, averaged over random signs Hutchinson's estimate.
    """
    # reverse mode: as fast as forward mode here, which loads a deprecated torch.jit.script in torch 2.13
    value, pull, *_ = vjp(velocity, x)
    probes = probes.expand(-1, *x.shape)
    # vmap has no rule for some operations' derivatives (Mish's, for one), and a single probe needs none
    products = pull(probes[0])[0][None] if len(probes) == 1 else vmap(pull)(probes)[0]
    return value, (probes * products).flatten(2).sum(-1)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Compute fp32 products as such on GPUs too."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
