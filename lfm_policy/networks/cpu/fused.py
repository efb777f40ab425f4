"""A residual block in one compiled call, where few samples and no gradients leave little to do but to call.

With a sample or two, a dozen torch operators of some microseconds each take longer than their arithmetic.
"""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lfm_policy.networks.cpu import blas, kernels
from lfm_policy.networks.cpu.convolution import Convolution, form


def applies(x: Float[Tensor, "t b i"], training: bool) -> bool:
    """Say whether `Fused` may compute: single precision on a CPU, few samples, no gradients, no transforms."""
    plain = x.dtype == torch.float32 and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return plain and blas.AVAILABLE and form(x, training) == "rows"


class Fused:
    """A residual block's weights, as numpy sees them, and its compiled call.

    The arrays are the parameters' own memory, so they follow every change in place; parameters that have moved are
    looked up anew.

    Args:
        first: convolution and normalisation.
        film: gives scale and shift.
        second: as `first`.
        skip: a convolution of one step, or the identity.
    """

    def __init__(
        self, first: Iterable[nn.Module], film: nn.Module, second: Iterable[nn.Module], skip: nn.Module
    ) -> None:
        self._modules = [*first, film, *second, skip]
        self._pointers: list[int] = []

    def __getstate__(self) -> dict[str, object]:
        """Forget the pointers, so that copies look at their own modules."""
        return {"_modules": self._modules, "_pointers": []}

    def __call__(self, x: Float[Tensor, "t b i"], condition: Float[Tensor, "b c"]) -> Float[Tensor, "t b o"]:
        parameters = [p for module in self._modules for p in module._parameters.values() if p is not None]
        pointers = [p.data_ptr() for p in parameters]
        if pointers != self._pointers:
            self._pointers = pointers if self._read() else []
        steps, batch, _ = x.shape
        y = x.new_empty(steps, batch, self._channels)
        room = x.new_empty(2 * y.numel() + 2 * batch * self._channels)
        inputs = (part.detach().contiguous().numpy() for part in (x, condition))
        kernels.residual(*inputs, *self._weights, room.numpy(), y.numpy())
        return y

    def _read(self) -> bool:
        """Look the parameters up; whether the arrays are all of them the parameters' own memory, no copies."""
        convolution, norm, film, other, other_norm, skip = self._modules
        assert isinstance(norm, nn.GroupNorm)
        first, second = _convolution(convolution) + _pair(norm), _convolution(other) + _pair(other_norm)
        nothing = np.empty((0, 0, 0), np.float32), np.empty(0, np.float32)
        over = _convolution(skip) if isinstance(skip, Convolution) else nothing
        self._channels = norm.num_channels
        self._weights = first, _pair(film), second, over, norm.num_groups, norm.eps
        return all(m.taps.is_contiguous() for m in (convolution, other, skip) if isinstance(m, Convolution))


def _convolution(module: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    assert isinstance(module, Convolution)
    return _array(module.taps), _array(module.bias)


def _pair(module: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    assert isinstance(module, nn.GroupNorm | nn.Linear)
    return _array(module.weight), _array(module.bias)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()
