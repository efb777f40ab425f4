"""One network in the place of all blocks."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SharedBlocks(nn.ModuleList):
    """The blocks of a chain that share one network, which is told by a one-hot code which block it is.

    Args:
        network: v(x, t, cond); the code follows the condition, so its cond_dim is larger by `blocks`.
        blocks: N.
    """

    def __init__(self, network: nn.Module, blocks: int) -> None:
        super().__init__()
        self.add_module("0", network)
        self.codes = torch.eye(blocks)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, n: Any) -> Any:
        # A new wrapper each time: compare blocks by what they hold, not by identity.
        (network,) = self._modules.values()
        return Indexed(network, self.codes[n])

    def __iter__(self) -> Any:
        return (self[n] for n in range(len(self)))


class Indexed(nn.Module):
    """The shared network as one of the blocks."""

    def __init__(self, network: nn.Module, code: Tensor) -> None:
        super().__init__()
        self.network, self.code = network, code

    def forward(
        self, x: Float[Tensor, "b *event"], t: Float[Tensor, " b"], cond: Float[Tensor, "b c"] | None = None
    ) -> Float[Tensor, "b *event"]:
        code = self.code.to(x).expand(x.shape[0], -1)
        return self.network(x, t, code if cond is None else torch.cat([cond, code], dim=1))
