"""Residual blocks in one compiled call are the blocks in torch's operators, and follow their weights."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lfm_policy.networks import ConditionalUnet1d
from lfm_policy.networks.cpu import blas
from lfm_policy.networks.cpu.fused import applies
from lfm_policy.networks.unet1d import ResidualBlock

pytestmark = pytest.mark.skipif(not blas.AVAILABLE, reason="torch's library shows no sgemm_ here")


def _block(inputs: int = 8, outputs: int = 16, kernel: int = 5) -> ResidualBlock:
    torch.manual_seed(0)
    block = ResidualBlock(inputs, outputs, 6, kernel, 4).eval()
    for p in block.parameters():  # norms away from the identity
        nn.init.normal_(p, std=0.3)
    return block


def _inputs(steps: int = 8, batch: int = 3, inputs: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(steps, batch, inputs), torch.randn(batch, 6)


def _assert_fused(block: ResidualBlock, x: Tensor, condition: Tensor) -> None:
    """Without gradients, as with them."""
    expected = block(x, condition).detach()
    with torch.no_grad():
        assert applies(x, block.training)
        torch.testing.assert_close(block(x, condition), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("outputs", [8, 16])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (2, 3), (4, 15), (16, 1)])
def test_the_call_is_the_block(outputs: int, kernel: int, steps: int, batch: int) -> None:
    _assert_fused(_block(8, outputs, kernel), *_inputs(steps, batch))


def test_it_follows_weights_that_change_move_or_are_copied() -> None:
    block, inputs = _block(), _inputs()
    with torch.no_grad():
        block(*inputs)
        block.first[0].weight.mul_(2)
        block.second[1].bias.data += 1  # behind the back of torch's count of changes
    _assert_fused(block, *inputs)
    block.film[1].weight.data = torch.randn_like(block.film[1].weight)
    _assert_fused(block, *inputs)
    block.skip.weight = nn.Parameter(torch.randn(16, 8, 1))
    _assert_fused(block, *inputs)
    twin = copy.deepcopy(block)
    with torch.no_grad():
        twin.first[0].weight.zero_()
    _assert_fused(twin, *inputs)
    _assert_fused(block, *inputs)


def test_it_follows_weights_in_another_order_of_memory() -> None:
    block, inputs = _block(), _inputs()
    block.first[0].weight.data = block.first[0].weight.data.contiguous()
    _assert_fused(block, *inputs)
    with torch.no_grad():
        block.first[0].weight.mul_(2)
    _assert_fused(block, *inputs)


def test_strided_inputs_are_read_in_their_order() -> None:
    x, condition = torch.randn(3, 8, 8).transpose(0, 1), torch.randn(6, 3).T
    _assert_fused(_block(), x, condition)


def test_a_call_gives_the_same_bits_each_time() -> None:
    network = ConditionalUnet1d(10, 12, dims=(16, 32), time_dim=16).eval()
    inputs = torch.randn(1, 8, 10), torch.rand(1), torch.randn(1, 12)
    with torch.inference_mode():
        first = network(*inputs)
        assert all(torch.equal(first, network(*(part.clone() for part in inputs))) for _ in range(20))
