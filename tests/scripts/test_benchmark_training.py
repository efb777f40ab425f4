"""The benchmark's batched update computes what the blocks compute one by one."""

import torch
from torch.func import stack_module_state

from lfm_policy.networks import ConditionalUnet1d
from tests.training.runs import scripts

(GPU,) = scripts("_benchmarks.training_gpu")


def test_all_blocks_at_once_have_the_losses_and_gradients_of_each() -> None:
    torch.manual_seed(0)
    blocks = [ConditionalUnet1d(3, 4, dims=(8, 16), time_dim=8).double() for _ in range(2)]
    x, target = torch.randn(2, 2, 5, 8, 3, dtype=torch.float64)
    t, cond = torch.rand(2, 5, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    weights = {name: p.detach().clone().requires_grad_() for name, p in stack_module_state(blocks)[0].items()}
    found = GPU.losses(blocks[0], weights, x, t, cond, target)
    expected = torch.stack([(b(x[n], t[n], cond) - target[n]).square().mean() for n, b in enumerate(blocks)])
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    found.sum().backward()
    expected.sum().backward()
    for n, block in enumerate(blocks):
        for name, p in block.named_parameters():
            torch.testing.assert_close(weights[name].grad[n], p.grad, atol=1e-10, rtol=1e-10)
