"""The grid network: bilinear values, what happens at the border, a divergence that is right."""

import pytest
import torch
from torch import Tensor

from lfm_policy.flow import FlowChain, Schedule, Solver, log_prob
from lfm_policy.networks import VelocityGrid, build
from lfm_policy.networks.grid import interpolated

SPEC = {"_target_": "lfm_policy.networks.VelocityGrid", "width": 8, "levels": [4, 9], "features": 3}


def _plane(nodes: int) -> tuple[Tensor, Tensor]:
    """A grid whose nodes hold 2 + 3 x - 5 y, and points of [0, 1]²."""
    axis = torch.linspace(0, 1, nodes, dtype=torch.float64)
    values = 2 + 3 * axis[None, :] - 5 * axis[:, None]
    return values[..., None], torch.rand(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("nodes", [2, 3, 17])
def test_linear_functions_are_exact(nodes: int) -> None:
    grid, place = _plane(nodes)
    torch.testing.assert_close(interpolated(grid, place)[:, 0], 2 + 3 * place[:, 0] - 5 * place[:, 1])


def test_the_border_goes_on_outside() -> None:
    grid, _ = _plane(5)
    outside = torch.tensor([[1.5, 0.25], [-3.0, 0.25], [2.0, 9.0]]).double()
    clamped = outside.clamp(0, 1)
    torch.testing.assert_close(interpolated(grid, outside), interpolated(grid, clamped))


def test_it_learns_a_picture_finer_than_its_layers_could() -> None:
    """A checkerboard of 32 x 32 squares on [-1, 1]²: two coarse layers alone stay at the mean."""
    torch.manual_seed(0)
    network = VelocityGrid(2, width=16, layers=1, levels=[65], half_width=1.0)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), 2e-2)
    for _ in range(150):
        x = 2 * torch.rand(2000, 2, generator=generator) - 1
        target = torch.sin(16 * torch.pi * x).prod(1, keepdim=True).expand(-1, 2)
        loss = (network(x, torch.zeros(2000)) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1 * target.var().item()


def test_its_log_determinant_is_that_of_its_map() -> None:
    """Inside a cell the field is smooth: the exact trace agrees with the Jacobian of the solved map."""
    torch.manual_seed(0)
    network = build(SPEC, dim=2).double()
    with torch.no_grad():
        for grid in network.grids:
            grid.normal_()
    chain = FlowChain([network], Schedule(()), solver=Solver("rk4", 100))
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: chain.to_noise(x).x.sum(0), x).permute(1, 0, 2)
    noise = chain.to_noise(x).x
    expected = torch.distributions.Normal(0, 1).log_prob(noise).sum(1) + torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(log_prob(chain, x).log_prob, expected, atol=5e-3, rtol=0)


def test_conditions_join_the_input() -> None:
    network = build(SPEC, dim=2, cond_dim=3)
    x, t = torch.zeros(4, 2), torch.rand(4)
    values = [network(x, t, torch.full((4, 3), c)) for c in (0.0, 1.0)]
    assert not torch.allclose(values[0], values[1])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"levels": [1]}, "levels at least 2"),
        ({"activation": "swish"}, "known: softplus"),
        ({"dim": 3}, "in the plane"),
    ],
)
def test_bad_sizes_are_explained(bad: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"dim": 2, **bad}
    with pytest.raises(ValueError, match=message):
        VelocityGrid(**arguments)  # type: ignore[arg-type]


def test_its_density_integrates_to_one() -> None:
    torch.manual_seed(0)
    network = build(SPEC, dim=2).double()
    with torch.no_grad():
        for grid in network.grids:
            grid.normal_()
    chain = FlowChain([network], Schedule(()), solver=Solver("rk4", 10))
    axis = torch.linspace(-7, 7, 101, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    assert log_prob(chain, points).log_prob.exp().sum().item() * (14 / 100) ** 2 == pytest.approx(1, abs=0.01)
