"""The likelihood of a chain that was fitted to a Gaussian, beside the closed form: fit, solve and trace together."""

import pytest
import torch
from torch import Tensor, nn

from lfm_policy.flow import FlowChain, Hutchinson, Phase, Schedule, Solver, TensorPool, fit, log_prob, plan
from lfm_policy.flow.fit import Losses, Optimise

SCHEDULE = Schedule((0.4,))


class AffineField(nn.Module):
    """v_d(x, t) = a_d(t) x_d + b_d(t) with polynomials a and b, for Gaussians along the axes."""

    def __init__(self, dim: int, degree: int = 5) -> None:
        super().__init__()
        self.degree = degree
        self.weight = nn.Parameter(torch.zeros(2, dim, degree + 1))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        powers = torch.arccos((2 * t - 1).clamp(-1, 1))[:, None] * torch.arange(self.degree + 1)
        slope, shift = (powers.cos().to(x.dtype) @ weight.T.to(x.dtype) for weight in self.weight)
        return slope * x + shift


def _adam(chain: FlowChain, rate: float = 0.1) -> Optimise:
    def optimise(k: int, phase: Phase, losses: Losses) -> None:
        optimiser = torch.optim.Adam([p for n in phase.blocks for p in chain.blocks[n].parameters()], betas=(0.9, 0.99))
        for step in range(phase.steps):
            for group in optimiser.param_groups:
                group["lr"] = rate * (1 - step / phase.steps) ** 2
            torch.stack([loss() for loss in losses(torch.Generator().manual_seed(step))]).sum().backward()
            optimiser.step()
            optimiser.zero_grad()

    return optimise


@pytest.mark.parametrize("dim", [2, 8, pytest.param(63, marks=pytest.mark.slow)])
def test_the_log_density_of_a_fitted_gaussian_is_the_closed_form(dim: int) -> None:
    """Mean difference over the data: KL(p | model), which the fit's own error makes positive; within 0.02 nats."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(dim, generator=generator)
    std = 0.5 + torch.rand(dim, generator=generator)
    law = torch.distributions.Normal(mean, std)
    pool = TensorPool(mean + std * torch.randn(200_000, dim, generator=generator))
    chain = FlowChain([AffineField(dim), AffineField(dim)], SCHEDULE, solver=Solver("rk4", 6))
    fit(chain, chain, pool, plan("simulation_free", 2, 400), _adam(chain), batch=8192)
    x = mean + std * torch.randn(4000, dim, generator=generator)
    exact = log_prob(chain, x)
    assert (law.log_prob(x).sum(1) - exact.log_prob).mean().item() == pytest.approx(0, abs=0.02)
    estimate = log_prob(chain, x, estimator=Hutchinson(1))  # exact here: the Jacobian is diagonal
    torch.testing.assert_close(estimate.log_prob, exact.log_prob, atol=2e-3, rtol=0)
