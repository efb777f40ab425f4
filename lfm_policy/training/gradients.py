"""Gradients of the blocks' losses: one block after the other, several side by side in threads, or all in one call."""

import copy
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from lfm_policy.errors import ConfigError
from lfm_policy.flow.chain import Loss


@runtime_checkable
class Gradients(Protocol):
    """Adds each loss's gradient, times `weight`, to those of its network; returns the weighted losses (blocks,)."""

    def __call__(self, losses: Iterable[Loss], weight: float, autocast: torch.autocast) -> Tensor: ...


class OneByOne:
    """Each loss by itself. Blocks share no weight, so that threads do not meet and the bits do not depend on them.

    Args:
        parallel: losses computed side by side, one thread each.
    """

    def __init__(self, parallel: int = 1) -> None:
        self._map = map if parallel == 1 else ThreadPoolExecutor(parallel).map

    def __call__(self, losses: Iterable[Callable[[], Tensor]], weight: float, autocast: torch.autocast) -> Tensor:
        def one(loss: Callable[[], Tensor]) -> Tensor:
            with autocast:
                value = weight * loss()
            value.backward()
            return value.detach()

        return torch.stack(list(self._map(one, losses)))


class Compiled:
    """All losses in one compiled call: the blocks' weights are stacked and their network is computed once, by vmap.

    On GPUs forward and backward pass are a CUDA graph each, without Python between their kernels, and the kernels have
    the work of all blocks. The activations of all blocks are in memory at the same time.

    Args:
        blocks: networks of one architecture, whose weights become views of the stacked ones.

    Raises:
        ConfigError: blocks share weights.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        weights = [p for block in blocks for p in block.parameters()]
        if len(set(weights)) < len(weights):
            raise ConfigError("optimiser.compiled=true needs blocks with weights of their own: leave flow.share=false")
        self._network = copy.deepcopy(blocks[0]).to("meta")
        _, self._buffers = stack_module_state(list(blocks))
        self._names = [name for name, _ in blocks[0].named_parameters()]
        self._weights = [_stacked(parts) for parts in zip(*(block.parameters() for block in blocks), strict=True)]
        self._sums = [torch.zeros_like(weight) for weight in self._weights]
        self._views = []
        for n, block in enumerate(blocks):
            own = dict(block.named_parameters())
            for name, weight, total in zip(self._names, self._weights, self._sums, strict=True):
                own[name].data = weight.detach()[n]
                self._views.append((own[name], total[n]))
        self._values = torch.compile(self._losses, mode="reduce-overhead", dynamic=False)

    def __call__(self, losses: Iterable[Loss], weight: float, autocast: torch.autocast) -> Tensor:
        todo = list(losses)
        fields = ("x", "t", "offset", "factor")
        x, t, offset, factor = (torch.stack([getattr(loss, name) for loss in todo]) for name in fields)
        conds = [loss.cond for loss in todo if loss.cond is not None]
        cond = torch.stack(conds) if conds else None
        torch.compiler.cudagraph_mark_step_begin()
        with autocast:
            values = weight * self._values(self._weights, x, t, cond, offset, factor)
        gradients = torch.autograd.grad(values.sum(), self._weights)
        if self._views[0][0].grad is None:  # the optimiser begins each update with none
            torch._foreach_zero_(self._sums)  # pyright: ignore[reportPrivateImportUsage]
            for parameter, total in self._views:
                parameter.grad = total
        torch._foreach_add_(self._sums, gradients)  # pyright: ignore[reportPrivateImportUsage]
        return values.detach()

    def _losses(
        self, weights: list[Tensor], x: Tensor, t: Tensor, cond: Tensor | None, offset: Tensor, factor: Tensor
    ) -> Tensor:
        """Return each block's loss (N,), from inputs with the blocks first."""

        def one(weights: list[Tensor], buffers: dict[str, Tensor], *loss: Tensor | None) -> Tensor:
            x, t, cond, offset, factor = loss
            state = dict(zip(self._names, weights, strict=True)) | buffers
            return (offset + factor * functional_call(self._network, state, (x, t, cond))).square().mean()

        every = (0, 0, 0, 0, None if cond is None else 0, 0, 0)
        return vmap(one, in_dims=every, randomness="different")(weights, self._buffers, x, t, cond, offset, factor)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Stack the parameters, their number first, each lying in memory as it did before."""
    first = parts[0]
    memory = torch.stack([part.detach().as_strided((part.numel(),), (1,)) for part in parts])
    return memory.as_strided((len(parts), *first.shape), (first.numel(), *first.stride())).requires_grad_()
