"""Guided chunks: the first actions are drawn to those of the running chunk, by gradients through the last block alone.

Real-time chunking (Black, Galliker and Levine 2025, arXiv 2506.07339) guides every step of a flow by the gradient of
|wanted - E[data | x]|² (Song et al. 2023). In a chain of local flows the block next to the data decides the details:
the others run without gradients, as they are.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lfm_policy.flow import FlowChain
from lfm_policy.flow.interpolant import gaussian_path
from lfm_policy.flow.ode import Field, integrate
from lfm_policy.models.policy import LFMPolicy

LARGEST = 10.0
"""Largest factor of the gradient, as in LeRobot."""


def guided_chunk(
    policy: LFMPolicy,
    history: Float[Tensor, "b to d"],
    noise: Float[Tensor, "b t a"],
    wanted: Float[Tensor, "b t a"],
    weights: Float[Tensor, " t"],
    *,
    features: Float[Tensor, "b f"] | None = None,
    largest: float = LARGEST,
) -> Float[Tensor, "b t a"]:
    """Predict chunks that go on from running ones.

    Args:
        policy: a flow, of any number of blocks.
        history: raw.
        noise: standard normal.
        wanted: the running chunks at the same times, in the contract's units; anything where weights are 0.
        weights: how much each action is to be as wanted, 0 to 1.
        features: of pictures, from `policy.see`.
        largest: factor of the gradient at most.
    """
    with torch.no_grad():
        condition = policy.condition(history, features)
        x = policy.chain.to_data(policy.latent(noise), condition, stop=1).x
        goal = policy.encoding.encode(wanted, history)
        field = _guided(policy.chain, condition, goal, weights[:, None], largest)
        solver = policy.chain.solver.of_block(0)
        if solver.method == "gaussian":  # steps along the block's own path, which guidance leaves
            solver = replace(solver, method="euler")
        (x,) = integrate(field, (x,), 1.0, 0.0, solver).state
        return policy.encoding.decode(x, history)


def _guided(chain: FlowChain, condition: Tensor, goal: Tensor, weights: Tensor, largest: float) -> Field:
    """Return the last block's velocity with that of the guidance."""

    def field(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        mean, std, mean_rate, std_rate = gaussian_path(chain.interpolant, chain.schedule, 0, t)
        with torch.enable_grad():
            x = state[0].detach().requires_grad_()
            velocity = chain.velocity(0, x, t, condition)
            data = (std_rate * x - std * velocity) / (std_rate * mean - std * mean_rate)  # E[data | x]
            error = weights * (goal - data)
            (pull,) = torch.autograd.grad(data, x, error.detach())
        # the score's gradient, turned into a velocity, over the variance std² / (mean² + std²) of data given x
        factor = (mean**2 + std**2) * (mean_rate / mean - std_rate / std)
        return (velocity.detach() + factor.clamp(min=-largest) * pull,)

    return field
