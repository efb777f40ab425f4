"""A multilayer perceptron as a velocity network, for 2D and tabular data (Table A.1 of arXiv 2410.02548)."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "softplus": lambda: nn.Softplus(beta=20),
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
}


def activation_layer(name: str) -> nn.Module:
    """Build one of "relu", "elu", "silu", or "softplus" with β = 20, as in the paper's 2D networks.

    Raises:
        ValueError: there is no such activation.
    """
    if name not in _ACTIVATIONS:
        raise ValueError(f"unknown activation '{name}', known: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]()


def perceptron(inputs: int, outputs: int, width: int, layers: int, activation: str) -> nn.Sequential:
    """Stack hidden layers of one width, each with its activation, and a linear layer to the outputs."""
    hidden: list[nn.Module] = []
    for _ in range(layers):
        hidden += [nn.Linear(inputs, width), activation_layer(activation)]
        inputs = width
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


class VelocityMlp(nn.Module):
    """Velocity v(x, t, cond) of vectors x (B, dim): layers of one width over [t, x, cond].

    Args:
        dim: width of x.
        cond_dim: width of the condition, 0 for none.
        width: of each hidden layer.
        layers: hidden layers.
        activation: see `activation_layer`.
        time_features: frequencies k π, k = 1 …, whose sines and cosines of t join the input.
        space_features: random frequencies whose sines and cosines of x join the input (Tancik et al. 2020).
        space_scale: standard deviation of these frequencies, in radians per unit of x.

    Raises:
        ValueError: the activation is unknown, or a size is out of range.
    """

    time_frequencies: Tensor
    space_frequencies: Tensor

    def __init__(
        self,
        dim: int,
        cond_dim: int = 0,
        width: int = 256,
        layers: int = 3,
        activation: str = "softplus",
        time_features: int = 0,
        space_features: int = 0,
        space_scale: float = 2.0,
    ) -> None:
        super().__init__()
        if min(dim, width, layers) < 1 or min(cond_dim, time_features, space_features) < 0:
            raise ValueError("dim, width and layers must be positive, the other sizes at least 0")
        self.register_buffer("time_frequencies", math.pi * torch.arange(1, time_features + 1), persistent=False)
        self.register_buffer("space_frequencies", space_scale * torch.randn(dim, space_features))
        inputs = 1 + dim + cond_dim + 2 * time_features + 2 * space_features
        self.layers = perceptron(inputs, dim, width, layers, activation)

    def forward(
        self, x: Float[Tensor, "b dim"], t: Float[Tensor, " b"], cond: Float[Tensor, "b c"] | None = None
    ) -> Float[Tensor, "b dim"]:
        t = t[:, None].to(x.dtype)
        parts = [t, x] if cond is None else [t, x, cond]
        for values, frequencies in ((t, self.time_frequencies), (x, self.space_frequencies)):
            if frequencies.numel():
                angles = values * frequencies if values is t else values @ frequencies
                parts += [angles.sin(), angles.cos()]
        return self.layers(torch.cat(parts, dim=1))
