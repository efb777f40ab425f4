"""An exponential moving average of the weights, restarted with each phase and saved with its step."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from lfm_policy.flow import FlowChain


class Ema:
    """A copy of a chain whose weights follow it with decay 1 - (1 + step)^-power, at most `max_decay`.

    Args:
        chain: the chain that is trained.
        power: how fast the average lengthens.
        max_decay: its longest memory.
    """

    def __init__(self, chain: FlowChain, power: float = 0.75, max_decay: float = 0.9999) -> None:
        self.chain = copy.deepcopy(chain).requires_grad_(False).eval()
        self.power, self.max_decay = power, max_decay
        self.step = 0

    def decay(self) -> float:
        """Return the weight of the old average in the next update."""
        return min(self.max_decay, 1 - (1 + self.step) ** -self.power)

    @torch.no_grad()
    def update(self, chain: FlowChain, blocks: tuple[int, ...]) -> None:
        """Follow the trained weights of `blocks`; buffers are copied."""
        decay = self.decay()
        pairs = {}  # by average: once where blocks share a network
        for n in blocks:
            averages, weights = self.chain.blocks[n], chain.blocks[n]
            pairs |= zip(averages.parameters(), weights.parameters(), strict=True)
            for average, buffer in zip(averages.buffers(), weights.buffers(), strict=True):
                average.copy_(buffer)
        torch._foreach_lerp_(list(pairs), list(pairs.values()), 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        self.step += 1

    def restart(self, chain: FlowChain, blocks: tuple[int, ...]) -> None:
        """Begin again from the present weights of `blocks`."""
        for n in blocks:
            self.chain.blocks[n].load_state_dict(chain.blocks[n].state_dict())
        self.step = 0

    def restore(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Go on from an average that was saved after `step` updates."""
        self.chain.load_state_dict(dict(weights))
        self.step = step
