"""The UNet's size, and its agreement with Diffusion Policy's network under that project's weight names."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lfm_policy.networks import ConditionalUnet1d
from lfm_policy.networks.unet1d import from_diffusion_policy

GROUPS = 8


@pytest.mark.parametrize(
    ("arguments", "blocks", "millions"),
    [
        ({"action_dim": 10, "cond_dim": 2 * 19, "dims": (128, 256, 512), "time_dim": 128}, 4, 66.4),
        ({"action_dim": 20, "cond_dim": 2 * 59, "dims": (176, 352, 704), "time_dim": 256}, 2, 66.2),
    ],
    ids=["lift", "transport"],
)
def test_the_papers_sizes_have_the_papers_parameters(arguments: dict, blocks: int, millions: float) -> None:
    with torch.device("meta"):
        network = ConditionalUnet1d(**arguments)
    total = blocks * sum(p.numel() for p in network.parameters()) / 1e6
    assert total == pytest.approx(millions, rel=0.01)


def _weights(action_dim: int, cond_dim: int, dims: list[int], kernel: int, time_dim: int) -> dict[str, Tensor]:
    """Random weights with Diffusion Policy's names and shapes."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}

    def add(name: str, *shape: int) -> None:
        fan_in = math.prod(shape[1:]) or 1
        weights[f"{name}.weight"] = torch.randn(*shape, generator=generator, dtype=torch.float64) / math.sqrt(fan_in)

    def layer(name: str, *shape: int, bias: int | None = None) -> None:
        add(name, *shape)
        count = shape[0] if bias is None else bias
        weights[f"{name}.bias"] = torch.randn(count, generator=generator, dtype=torch.float64)

    def residual(name: str, inputs: int, outputs: int) -> None:
        for number, width in enumerate((inputs, outputs)):
            layer(f"{name}.blocks.{number}.block.0", outputs, width, kernel)
            layer(f"{name}.blocks.{number}.block.1", outputs)
        layer(f"{name}.cond_encoder.1", 2 * outputs, time_dim + cond_dim)
        if inputs != outputs:
            layer(f"{name}.residual_conv", outputs, inputs, 1)

    layer("diffusion_step_encoder.1", 4 * time_dim, time_dim)
    layer("diffusion_step_encoder.3", time_dim, 4 * time_dim)
    sizes = [action_dim, *dims]
    for level in range(len(dims)):
        residual(f"down_modules.{level}.0", sizes[level], sizes[level + 1])
        residual(f"down_modules.{level}.1", sizes[level + 1], sizes[level + 1])
        if level < len(dims) - 1:
            layer(f"down_modules.{level}.2.conv", sizes[level + 1], sizes[level + 1], 3)
    for number in range(2):
        residual(f"mid_modules.{number}", dims[-1], dims[-1])
    for place, level in enumerate(range(len(dims) - 1, 0, -1)):
        residual(f"up_modules.{place}.0", 2 * dims[level], dims[level - 1])
        residual(f"up_modules.{place}.1", dims[level - 1], dims[level - 1])
        layer(f"up_modules.{place}.2.conv", dims[level - 1], dims[level - 1], 4)
    layer("final_conv.0.block.0", dims[0], dims[0], kernel)
    layer("final_conv.0.block.1", dims[0])
    layer("final_conv.1", action_dim, dims[0], 1)
    return weights


def _reference(w: dict[str, Tensor], x: Tensor, step: Tensor, cond: Tensor, levels: int) -> Tensor:
    """Diffusion Policy's network as formulas over its weights; `step` is its diffusion step."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def convolution(name: str, x: Tensor, **options: int) -> Tensor:
        return F.conv1d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options)

    def block(name: str, x: Tensor) -> Tensor:
        x = convolution(f"{name}.block.0", x, padding=w[f"{name}.block.0.weight"].shape[2] // 2)
        return F.mish(F.group_norm(x, GROUPS, w[f"{name}.block.1.weight"], w[f"{name}.block.1.bias"]))

    def residual(name: str, x: Tensor) -> Tensor:
        scale, bias = linear(f"{name}.cond_encoder.1", F.mish(feature)).chunk(2, dim=1)
        h = scale[:, :, None] * block(f"{name}.blocks.0", x) + bias[:, :, None]
        skip = convolution(f"{name}.residual_conv", x) if f"{name}.residual_conv.weight" in w else x
        return block(f"{name}.blocks.1", h) + skip

    half = w["diffusion_step_encoder.1.weight"].shape[1] // 2
    angle = step[:, None] * torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
    embedding = linear("diffusion_step_encoder.1", torch.cat([angle.sin(), angle.cos()], 1))
    feature = torch.cat([linear("diffusion_step_encoder.3", F.mish(embedding)), cond], 1)
    x, skips = x.mT, []
    for level in range(levels):
        x = residual(f"down_modules.{level}.1", residual(f"down_modules.{level}.0", x))
        skips.append(x)
        if level < levels - 1:
            x = convolution(f"down_modules.{level}.2.conv", x, stride=2, padding=1)
    x = residual("mid_modules.1", residual("mid_modules.0", x))
    for place in range(levels - 1):
        x = residual(f"up_modules.{place}.0", torch.cat([x, skips.pop()], 1))
        x = residual(f"up_modules.{place}.1", x)
        name = f"up_modules.{place}.2.conv"
        x = F.conv_transpose1d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=2, padding=1)
    return convolution("final_conv.1", block("final_conv.0", x)).mT


@pytest.mark.parametrize("dims", [[16, 32], [16, 32, 64]])
def test_it_computes_diffusion_policys_function_from_its_weights(dims: list[int]) -> None:
    weights = _weights(action_dim=10, cond_dim=12, dims=dims, kernel=5, time_dim=32)
    network = ConditionalUnet1d(action_dim=10, cond_dim=12, dims=dims, kernel=5, time_dim=32).double()
    network.load_state_dict(from_diffusion_policy(weights))
    generator = torch.Generator().manual_seed(1)
    x, cond = torch.randn(3, 16, 10, generator=generator).double(), torch.randn(3, 12, generator=generator).double()
    step = torch.tensor([0.0, 13.0, 99.0], dtype=torch.float64)
    expected = _reference(weights, x, step, cond, len(dims))
    torch.testing.assert_close(network(x, step / 100, cond), expected, atol=1e-6, rtol=1e-6)


def test_the_time_embedding_tells_times_inside_a_block_apart() -> None:
    torch.manual_seed(0)
    network = ConditionalUnet1d(action_dim=10, cond_dim=4, dims=(16, 32))
    t = torch.linspace(0, 1, 11)
    features = network.time[0](t)
    distances = torch.cdist(features, features) + 10 * torch.eye(11)
    assert distances.min() > 1


def test_sizes_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="divisible by groups"):
        ConditionalUnet1d(action_dim=10, cond_dim=4, dims=(16, 33))
    network = ConditionalUnet1d(action_dim=10, cond_dim=4, dims=(16, 32, 64))
    with pytest.raises(ValueError, match="multiple of 4"):
        network(torch.zeros(1, 10, 10), torch.zeros(1), torch.zeros(1, 4))
