"""An exponential moving average of the weights, restarted with each phase and saved with its step."""

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from lfm_policy.flow import FlowChain


def decay(step: int, power: float, max_decay: float) -> float:
    """Return the weight of the old average in update `step`, counted from 0: 1 - (1 + step)^-power, or `max_decay`."""
    return min(max_decay, 1 - (1 + step) ** -power)


class Ema:
    """A copy of a chain whose weights follow it with decay 1 - (1 + step)^-power, at most `max_decay`.

    Args:
        chain: the chain that is trained.
        power: how fast the average lengthens.
        max_decay: its longest memory.
        encoder: what is trained with the chain, and averaged with it.
    """

    def __init__(
        self, chain: FlowChain, power: float = 0.75, max_decay: float = 0.9999, encoder: nn.Module | None = None
    ) -> None:
        self.chain = _frozen(chain)
        self.encoder = None if encoder is None else _frozen(encoder)
        self.power, self.max_decay = power, max_decay
        self.step = 0

    def decay(self) -> float:
        """Return the weight of the old average in the next update."""
        return decay(self.step, self.power, self.max_decay)

    @torch.no_grad()
    def update(self, chain: FlowChain, blocks: tuple[int, ...], encoder: nn.Module | None = None) -> None:
        """Follow the trained weights of `blocks`, and the encoder's; buffers are copied."""
        decay = self.decay()
        pairs = {}  # by average: once where blocks share a network
        modules = [(self.chain.blocks[n], chain.blocks[n]) for n in blocks]
        if self.encoder is not None and encoder is not None:
            modules.append((self.encoder, encoder))
        for averages, weights in modules:
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
        """Go on from an average that was saved after `step` updates, named as in `state`."""
        for name, module in self._modules().items():
            module.load_state_dict(
                {key.removeprefix(name): value for key, value in weights.items() if key.startswith(name)}
            )
        self.step = step

    def state(self) -> dict[str, Tensor]:
        """Return the averages, named as in the state of the model that is trained."""
        return {
            name + key: value for name, module in self._modules().items() for key, value in module.state_dict().items()
        }

    def _modules(self) -> dict[str, nn.Module]:
        return {"chain.": self.chain} | ({} if self.encoder is None else {"sight.": self.encoder})


M = TypeVar("M", bound=nn.Module)


def _frozen(module: M) -> M:
    """Return a copy that nobody trains."""
    return copy.deepcopy(module).requires_grad_(False).eval()
