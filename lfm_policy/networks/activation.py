"""Group normalisation, Mish and FiLM of features (T, B, C) with time first, as one step of backpropagation on CPUs.

With w = sigmoid(-z)², Mish(z) = z tanh(softplus z) = z (1 - w) / (1 + w) = z (2u - 1), where u = 1 / (1 + w): one
transcendental function in place of three.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lfm_policy.networks.convolution import form, time_first, time_last

Film = tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]
"""Scale and shift of each sample's channels."""


def activate(x: Float[Tensor, "t b c"], norm: nn.GroupNorm, film: Film | None = None) -> Float[Tensor, "t b c"]:
    """scale · Mish(norm(x)) + shift, without the last two where there is no `film`."""
    if form(x, norm.training) == "bilinear":
        return _Activation.apply(x, norm.weight, norm.bias, *(film or (None, None)), norm.num_groups, norm.eps)
    y = time_first(functional.mish(norm(time_last(x))))
    return y if film is None else torch.addcmul(film[1], film[0], y)


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, scale, shift, groups, eps):
        count = len(x) * x.shape[2] // groups
        centred = x - _group_sums(x.sum(0), groups) / count
        rstd = (_group_sums((centred * centred).sum(0), groups) / count + eps).rsqrt()
        z = torch.addcmul(-bias, centred, -(rstd * weight))  # minus the normalised value
        q = z.sigmoid()
        u = torch.addcmul(q.new_ones(()), q, q).reciprocal_()
        y = torch.addcmul(z, z, u, value=-2)
        if any(ctx.needs_input_grad):
            slope = _slope(z, q, u)
            ctx.save_for_backward(centred, rstd, weight, scale, y if scale is not None else None, slope)
            ctx.groups, ctx.count = groups, count
        return y if scale is None else torch.addcmul(shift, scale, y)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        centred, rstd, weight, scale, y, slope = ctx.saved_tensors
        grad_scale = grad_shift = None
        dz = grad * slope  # but for the scale
        sums, moments = dz.sum(0), (dz * centred).sum(0)
        if scale is not None:
            grad_scale, grad_shift = (grad * y).sum(0), grad.sum(0)
            sums, moments = sums * scale, moments * scale
        grad_weight, grad_bias = (moments * rstd).sum(0), sums.sum(0)
        gain = rstd * weight
        a = _group_sums(moments * weight, ctx.groups) * rstd**3 / -ctx.count
        b = _group_sums(sums * weight, ctx.groups) * rstd / -ctx.count
        grad_x = torch.addcmul(b, dz, gain if scale is None else gain * scale).addcmul_(centred, a)
        return grad_x, grad_weight, grad_bias, grad_scale, grad_shift, None, None


def _slope(z: Tensor, q: Tensor, u: Tensor) -> Tensor:
    """Mish' = 2u - 1 - 4 z (1 - q) u (1 - u), for z the negative of Mish's argument; uses up z, q, u."""
    z = torch.addcmul(z, z, q, value=-1)
    v = torch.addcmul(u, u, u, value=-1)
    return (u * 2).sub_(1).addcmul_(z, v, value=-4)


def _group_sums(x: Float[Tensor, "b c"], groups: int) -> Float[Tensor, "b c"]:
    """The sum over each group of channels, at each of its channels."""
    parts = x.view(len(x), groups, -1)
    return parts.sum(-1, keepdim=True).expand_as(parts).reshape(x.shape)
