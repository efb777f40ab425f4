"""The velocity MLP: the paper's sizes, its inputs, derivatives under the likelihood."""

import pytest
import torch

from lfm_policy.errors import ConfigError
from lfm_policy.flow import FlowChain, Schedule, Solver, log_prob
from lfm_policy.networks import VelocityMlp, build

MLP = "lfm_policy.networks.VelocityMlp"


@pytest.mark.parametrize(
    ("dim", "width", "layers", "blocks", "millions"),
    [
        (2, 256, 3, 9, 1.20),
        (6, 256, 4, 4, 0.81),
        (8, 362, 5, 2, 1.06),
        (43, 362, 4, 2, 0.85),
        (63, 512, 4, 4, 3.41),
    ],
    ids=["2d", "power", "gas", "miniboone", "bsds300"],
)
def test_parameter_totals_are_those_of_table_a1(
    dim: int, width: int, layers: int, blocks: int, millions: float
) -> None:
    network = VelocityMlp(dim, width=width, layers=layers)
    total = blocks * sum(p.numel() for p in network.parameters()) / 1e6
    assert total == pytest.approx(millions, abs=0.0075)  # POWER's 0.804 M stand as 0.81 in the paper


@pytest.mark.parametrize("activation", ["softplus", "relu", "elu"])
@pytest.mark.parametrize("features", [{}, {"time_features": 3}, {"space_features": 5, "time_features": 2}])
def test_every_input_reaches_the_velocity(activation: str, features: dict[str, int]) -> None:
    torch.manual_seed(0)
    network = build(
        {"_target_": MLP, "activation": activation, "width": 32, "layers": 2, **features}, dim=3, cond_dim=2
    )
    x, t, cond = torch.randn(6, 3), torch.rand(6), torch.randn(6, 2)
    value = network(x, t, cond)
    assert value.shape == (6, 3)
    for changed in (network(x + 0.1, t, cond), network(x, t + 0.1, cond), network(x, t, cond + 0.1)):
        assert not torch.allclose(changed, value, atol=1e-5)
    torch.testing.assert_close(network(x[:2], t[:2], cond[:2]), value[:2])


def test_softplus_has_the_papers_sharpness() -> None:
    activation = VelocityMlp(2).layers[1]
    assert activation(torch.zeros(1)).item() == pytest.approx(0.6931472 / 20)


def test_random_frequencies_are_saved_with_the_weights() -> None:
    first, second = VelocityMlp(2, space_features=8), VelocityMlp(2, space_features=8)
    x, t = torch.randn(4, 2), torch.rand(4)
    assert not torch.allclose(first(x, t), second(x, t))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(x, t), second(x, t))


def test_features_are_differentiated_by_the_likelihood() -> None:
    """The change of log-density along the flow agrees with finite differences of the map."""
    torch.manual_seed(0)
    network = VelocityMlp(2, width=16, layers=2, time_features=2, space_features=4).double()
    chain, x = FlowChain([network], Schedule(()), solver=Solver("rk4", 20)), torch.randn(3, 2).double()
    jacobian = torch.stack(
        [
            (chain.to_noise(x + step).x - chain.to_noise(x - step).x) / 2e-5
            for step in 1e-5 * torch.eye(2, dtype=torch.float64)
        ],
        dim=-1,
    )
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(chain.to_noise(x).x).sum(1)
    expected = normal + torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(log_prob(chain, x).log_prob, expected.detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("arguments", [{"activation": "tanh"}, {"layers": 0}, {"time_features": -1}])
def test_bad_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises(ConfigError, match=r"unknown activation 'tanh', known: softplus|must be positive"):
        build({"_target_": MLP, **arguments}, dim=2)
