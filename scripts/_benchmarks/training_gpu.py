"""The training loop on a GPU: windows resident, bf16, all blocks in one batched call, captured as a CUDA graph.

It is compared with Diffusion Policy's way: its network, eager and in fp32, batches from a DataLoader.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.data import DataLoader, TensorDataset

from _benchmarks import Ratio, Settings, alternate
from _benchmarks.plain_unet1d import PlainUnet1d
from lfm_policy.networks import ConditionalUnet1d

BATCH, STEPS, ACTION, COND, BLOCKS, WINDOWS = 256, 16, 10, 38, 4, 65536
OURS, THEIRS = (128, 256, 512), (256, 512, 1024)
"""Dims of one of four blocks of the paper's Lift model, and of Diffusion Policy's network, with as many parameters."""


def measure(settings: Settings) -> Iterator[Ratio]:
    """The suite's ratios on the first CUDA device."""
    at_once, in_turn, theirs = (1 / s for s in alternate(_sides(), settings.repeats, settings.seconds))
    peak = torch.cuda.max_memory_allocated() / 2**20
    note = f"updates of all blocks against eager fp32 updates of {list(THEIRS)} from a DataLoader; peak {peak:.0f} MB"
    best = max(at_once, in_turn)
    yield Ratio("training.gpu_vs_diffusion_policy", best / theirs, 5.0, best * BATCH, theirs * BATCH, "windows/s", note)
    note = f"{BLOCKS} blocks in one vmapped call; theirs one after the other, each compiled; both as CUDA graphs"
    yield Ratio("training.gpu_blocks_at_once", at_once / in_turn, 2.0, at_once, in_turn, "updates/s", note)


def losses(
    network: nn.Module, weights: Mapping[str, Tensor], x: Tensor, t: Tensor, cond: Tensor, target: Tensor
) -> Tensor:
    """Each block's mean squared error (N,) in one call.

    Args:
        network: computes one block; its own weights are not used.
        weights: of all blocks, stacked: (N, ...).
        x: points of the paths (N, B, T, A).
        t: times (N, B).
        cond: conditions (B, C), the same for all blocks.
        target: velocities (N, B, T, A).
    """

    def one(weights: Mapping[str, Tensor], x: Tensor, t: Tensor, target: Tensor) -> Tensor:
        return (functional_call(network, dict(weights), (x, t, cond)) - target).square().mean()

    return vmap(one)(dict(weights), x, t, target)


def _sides() -> list[Callable[[], object]]:
    device = torch.device("cuda")
    actions = torch.randn(WINDOWS, STEPS, ACTION)
    conditions = torch.randn(WINDOWS, COND)
    resident = actions.to(device), conditions.to(device)
    blocks = [ConditionalUnet1d(ACTION, COND, OURS).to(device) for _ in range(BLOCKS)]
    stacked = {name: p.detach().clone().requires_grad_() for name, p in stack_module_state(blocks)[0].items()}

    def at_once(x: Tensor, t: Tensor, cond: Tensor, target: Tensor) -> Tensor:
        return losses(blocks[0], stacked, x, t, cond, target).sum()

    compiled = [torch.compile(block) for block in blocks]

    def in_turn(x: Tensor, t: Tensor, cond: Tensor, target: Tensor) -> Tensor:
        parts = [(b(x[n], t[n], cond) - target[n]).square().mean() for n, b in enumerate(compiled)]
        return torch.stack(parts).sum()

    return [
        _graphed(torch.compile(at_once), list(stacked.values()), *resident),
        _graphed(in_turn, [p for block in blocks for p in block.parameters()], *resident),
        _diffusion_policy(TensorDataset(actions, conditions), device),
    ]


def _graphed(
    loss: Callable[..., Tensor], weights: list[Tensor], actions: Tensor, conditions: Tensor
) -> Callable[[], None]:
    """One update as a CUDA graph: draw, losses, gradients and AdamW."""
    optimiser = torch.optim.AdamW(weights, lr=1e-4, fused=True, capturable=True)
    shape = (BLOCKS, BATCH, STEPS, ACTION)

    def update() -> None:
        index = torch.randint(len(actions), (BATCH,), device=actions.device)
        left, right = actions[index].expand(shape), torch.randn(shape, device=actions.device)
        t = torch.rand(BLOCKS, BATCH, device=actions.device)
        with torch.autocast("cuda", torch.bfloat16):
            value = loss(torch.lerp(left, right, t[..., None, None]), t, conditions[index], right - left)
        value.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):  # compilation and the optimiser's state come before the capture
            update()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        update()

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay


def _diffusion_policy(data: TensorDataset, device: torch.device) -> Callable[[], None]:
    network = PlainUnet1d(ACTION, COND, THEIRS, time_dim=256).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def batches() -> Iterator[list[Tensor]]:
        while True:
            yield from DataLoader(data, BATCH, shuffle=True, num_workers=4, pin_memory=True, drop_last=True)

    source = batches()

    def update() -> None:
        x, cond = (part.to(device, non_blocking=True) for part in next(source))
        noise, t = torch.randn_like(x), torch.rand(len(x), device=device)
        loss = (network(torch.lerp(x, noise, t[:, None, None]), t, cond) - noise).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        torch.cuda.synchronize()

    return update
