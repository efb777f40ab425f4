"""Log-densities against closed forms, a density that integrates to one, and Hutchinson's moments."""

import math

import pytest
import torch
from torch import Tensor, nn

from lfm_policy.flow import FlowChain, Hutchinson, Schedule, Solver, log_prob
from lfm_policy.flow.likelihood import divergence
from tests.flow.gaussian import Gaussian, exact_chain

DATA, SCHEDULE = Gaussian(1.5, 0.4), Schedule.geometric(3, 0.3, 1.25)


class Linear(nn.Module):
    """v(x, t) = A x + cond."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        value = (x.flatten(1) @ self.matrix.T).view_as(x)
        return value if cond is None else value + cond


def _matrix(size: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _linear_chain(size: int, blocks: int = 2) -> FlowChain:
    fields = [Linear(_matrix(size, n)) for n in range(blocks)]
    return FlowChain(fields, Schedule((0.1,) * (blocks - 1)), solver=Solver("rk4", 10))


def _points(count: int, *event: int, seed: int = 7) -> Tensor:
    return torch.randn(count, *event, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_linear_flow_has_its_closed_form() -> None:
    """x_N = exp(A_2) exp(A_1) x, so p is the Gaussian with precision (x_N)ᵀ(x_N) and log-det tr A_1 + tr A_2."""
    chain, x = _linear_chain(3), _points(16, 3)
    total = torch.matrix_exp(_matrix(3, 1)) @ torch.matrix_exp(_matrix(3, 0))
    law = torch.distributions.MultivariateNormal(torch.zeros(3).double(), precision_matrix=total.T @ total)
    found = log_prob(chain, x)
    torch.testing.assert_close(found.log_prob, law.log_prob(x), atol=1e-6, rtol=0)
    assert found.variance is None
    assert found.nfe == 2 * 4 * 10


def test_events_of_any_shape_are_vectors() -> None:
    """A (2, 3) event has the density of its six numbers."""
    chain, x = _linear_chain(6), _points(5, 2, 3)
    flat = log_prob(chain, x.flatten(1)).log_prob
    torch.testing.assert_close(log_prob(chain, x).log_prob, flat)


@pytest.mark.parametrize("dimension", [2, 8, 63])
def test_exact_gaussian_blocks_give_the_gaussian_density(dimension: int) -> None:
    x = DATA.sample(20, dimension)
    law = torch.distributions.Normal(DATA.mean, DATA.std)
    for solver in (Solver("rk4", 20), Solver("dopri5", tolerance=1e-6)):
        found = log_prob(exact_chain(DATA, SCHEDULE, solver), x).log_prob
        torch.testing.assert_close(found, law.log_prob(x).sum(1), atol=0.02, rtol=0)


def test_single_precision_is_enough() -> None:
    chain, x = exact_chain(DATA, SCHEDULE, Solver("rk4", 10)), DATA.sample(20, 8)
    double, single = (log_prob(chain, x.to(dtype)).log_prob for dtype in (torch.float64, torch.float32))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, atol=1e-3, rtol=0)


def test_the_density_integrates_to_one() -> None:
    """Two random networks as blocks: no closed form, but a density all the same."""
    torch.manual_seed(0)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 2)).double()

        def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            return 2 * self.layers(torch.cat([x, t[:, None]], dim=1))

    chain = FlowChain([Network(), Network()], Schedule((0.1,)), solver=Solver("rk4", 8))
    axis = torch.linspace(-9, 9, 121, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    mass = log_prob(chain, grid).log_prob.exp().sum().item() * (18 / 120) ** 2
    assert mass == pytest.approx(1, abs=0.01)


def test_conditional_densities_follow_their_condition() -> None:
    """v(x, t, c) = A x + c has p(x | c) = p(x + A^{-1} (I - exp(-A)) c | 0), for any x and c."""
    chain, x, cond = _linear_chain(2, blocks=1), _points(6, 2), _points(6, 2, seed=8)
    matrix = _matrix(2)
    shift = torch.linalg.solve(matrix, torch.eye(2).double() - torch.matrix_exp(-matrix))
    expected = log_prob(chain, x + cond @ shift.T).log_prob
    torch.testing.assert_close(log_prob(chain, x, cond).log_prob, expected, atol=1e-6, rtol=0)
    assert not torch.allclose(log_prob(chain, x).log_prob, expected)


def test_the_exact_divergence_is_the_trace() -> None:
    matrix, x = _matrix(5), _points(4, 5)
    value, forms = divergence(lambda x: (x @ matrix.T).sin(), x, torch.eye(5).double()[:, None])
    torch.testing.assert_close(value, (x @ matrix.T).sin())
    torch.testing.assert_close(forms.sum(0), ((x @ matrix.T).cos() * matrix.diag()).sum(1))


def test_hutchinson_is_unbiased_with_the_known_variance() -> None:
    """With Rademacher probes the variance of εᵀAε is 2 Σ_{i≠j} S_ij², S the symmetric part of A."""
    size, probes, count = 4, 8, 4000
    chain = FlowChain([Linear(_matrix(size))], Schedule(()), solver=Solver("rk4", 4))
    x = _points(1, size).expand(count, size)
    symmetric = (_matrix(size) + _matrix(size).T) / 2
    variance = 2 * (symmetric - symmetric.diag().diag()).square().sum().item() / probes
    found, exact = log_prob(chain, x, estimator=Hutchinson(probes)), log_prob(chain, x[:1])
    error = found.log_prob - exact.log_prob
    assert abs(error.mean().item()) < 4 * math.sqrt(variance / count)
    assert error.var().item() == pytest.approx(variance, rel=0.1)
    assert found.variance is not None
    assert found.variance.mean().item() == pytest.approx(variance, rel=0.05)
    assert found.standard_error == pytest.approx(math.sqrt(variance / count), rel=0.1)


def test_hutchinson_is_exact_for_a_diagonal_jacobian_and_a_function_of_its_seed() -> None:
    x = DATA.sample(8, 6)
    chain = exact_chain(DATA, SCHEDULE, Solver("rk4", 10))
    found = log_prob(chain, x, estimator=Hutchinson(probes=1))
    torch.testing.assert_close(found.log_prob, log_prob(chain, x).log_prob)
    assert found.variance is None
    full = _linear_chain(6)
    values = [log_prob(full, x, estimator=Hutchinson(seed=seed)).log_prob for seed in (0, 0, 1)]
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)
    assert not torch.allclose(values[0], values[2])
    with pytest.raises(ValueError, match="at least one probe"):
        Hutchinson(probes=0)


def test_weights_need_no_gradient_and_precision_settings_are_left_alone() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert not log_prob(_linear_chain(2), _points(3, 2)).log_prob.requires_grad
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
