"""Convolutions of few samples that multiply in bfloat16: where reading the weights is the cost, half of it is saved.

Weights are rounded to 8 significant bits and laid out once as the processor wants them, by the oneDNN that torch
brings; the operators are those that torch's own compiler calls.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lfm_policy.errors import ConfigError
from lfm_policy.networks.cpu.convolution import Convolution, Growth, folded, unfolded

_pack = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
_product = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


class NarrowLinear(nn.Module):
    """A linear layer for inference: inputs, weights and result are rounded to bfloat16, sums of products are not.

    Args:
        weight: as in `nn.Linear`.
        bias: too.

    Raises:
        ConfigError: this torch cannot do it on this machine.
    """

    weight: Float[Tensor, "o i"]
    bias: Float[Tensor, " o"]

    def __init__(self, weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"]) -> None:
        super().__init__()
        if _pack is None or _product is None or weight.device.type != "cpu":
            raise ConfigError(
                f"precision=bfloat16 needs a CPU and a torch with oneDNN, found {weight.device} and torch "
                f"{torch.__version__}: use precision=float32"
            )
        self.register_buffer("weight", weight.detach().to(torch.bfloat16).contiguous())
        self.register_buffer("bias", bias.detach().to(torch.bfloat16))
        self._packed: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the packed weights out, so that copies pack their own."""
        return self.__dict__ | {"_packed": None}

    def forward(self, x: Float[Tensor, "b i"]) -> Float[Tensor, "b o"]:
        assert _pack is not None
        assert _product is not None
        if self._packed is None:
            self._packed = _pack(self.weight)
        return _product(x.to(torch.bfloat16), self._packed, self.bias, "none", [], "").to(x.dtype)


class NarrowConvolution(NarrowLinear):
    """A `Convolution`, on features with time first, as `NarrowLinear` of what its kernel sees."""

    def __init__(self, convolution: Convolution) -> None:
        super().__init__(convolution.taps.flatten(0, 1).mT, convolution.bias)
        self._form = convolution.kernel_size[0], convolution.stride[0], int(convolution.padding[0])

    def forward(self, x: Float[Tensor, "t b i"]) -> Float[Tensor, "s b o"]:
        rows = unfolded(x, *self._form)
        return super().forward(rows.flatten(0, 1)).view(*rows.shape[:2], -1)


class NarrowGrowth(NarrowLinear):
    """A `Growth`, on features with time first."""

    offset: Float[Tensor, " o"]

    def __init__(self, growth: Growth) -> None:
        super().__init__(growth.weight.flatten(1).mT, growth.bias.new_zeros(growth.weight[0].numel()))
        self.register_buffer("offset", growth.bias.detach())
        self._form = growth.kernel_size[0], growth.stride[0], int(growth.padding[0])

    def forward(self, x: Float[Tensor, "t b i"]) -> Float[Tensor, "s b o"]:
        columns = super().forward(x.flatten(0, 1)).view(*x.shape[:2], -1)
        return folded(columns, *self._form) + self.offset


def narrow(network: nn.Module) -> None:
    """Replace all convolutions over time and linear layers inside `network`.

    Raises:
        ConfigError: see `NarrowLinear`.
    """
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, Convolution):
                setattr(module, name, NarrowConvolution(child))
            elif isinstance(child, Growth):
                setattr(module, name, NarrowGrowth(child))
            elif isinstance(child, nn.Linear):
                setattr(module, name, NarrowLinear(child.weight, child.bias))
