"""Group normalisation, Mish and FiLM of features (T, B, C) with time first, in one pass over memory on CPUs.

With e = exp(z) and n = e (e + 2), Mish(z) = z tanh(softplus z) = z n / (n + 2): one exponential and one division.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lfm_policy.networks.cpu import kernels
from lfm_policy.networks.cpu.convolution import form, time_first, time_last

Film = tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]
"""Scale and shift of each sample's channels."""


def activate(x: Float[Tensor, "t b c"], norm: nn.GroupNorm, film: Film | None = None) -> Float[Tensor, "t b c"]:
    """Return scale · Mish(norm(x)) + shift, without the last two where there is no `film`."""
    once = norm.training or not torch.is_grad_enabled()  # no second derivatives asked for
    if once and x.dtype == torch.float32 and form(x, norm.training) != "torch":
        scale, shift = (None, None) if film is None else (part.to(x.dtype) for part in film)
        arguments = x.contiguous(), norm.weight, norm.bias, scale, shift, norm.num_groups, norm.eps
        return _Activation.apply(*arguments) if torch.is_grad_enabled() else _activated(*arguments)[0]
    y = time_first(functional.mish(norm(time_last(x))))
    return y if film is None else torch.addcmul(film[1], film[0], y)


def _activated(x, weight, bias, scale, shift, groups, eps):
    y, moments = torch.empty_like(x), np.empty((2, x.shape[1], groups), np.float32)
    kernels.forward(*_arrays(x, weight, bias, scale, shift), eps, *_arrays(y), *moments)
    return y, moments


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, scale, shift, groups, eps):
        y, ctx.moments = _activated(x, weight, bias, scale, shift, groups, eps)
        ctx.save_for_backward(x, weight, bias, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, bias, scale = ctx.saved_tensors
        grad_x, sums = torch.empty_like(x), x.new_empty(4, *x.shape[1:])
        inputs = _arrays(grad.contiguous(), x, weight, bias, scale)
        kernels.backward(*inputs, *ctx.moments, *_arrays(grad_x, *sums))
        grad_scale, grad_shift, moments, totals = sums
        film = (None, None) if scale is None else (grad_scale, grad_shift)
        return grad_x, moments.sum(0), totals.sum(0), *film, None, None


def _arrays(*tensors: Tensor | None):
    """Return the same memory as numpy sees it; an empty array in place of what is not there."""
    return [_NOTHING if tensor is None else tensor.detach().numpy() for tensor in tensors]


_NOTHING = torch.empty(1, 2, device="cpu")[:0, :1].numpy()  # not contiguous, as the halves of a FiLM layer's output
