"""Convolutions over a few steps of time, on features (T, B, C) with time first, in the form that is fastest there.

- "torch": torch's own operators on a (B, C, T) view: on GPUs, in exported graphs, under functorch's transforms.
- "rows": one product of the unfolded input with the weights, as they lie in memory. With few samples, reading the
  weights is the cost; without gradients, `activation.block` also does without the unfolding.
- "bilinear": y = A [(G w) ⊙ (B x)], with small constant matrices A, G, B over time and one product of
  channels for each row of B (Winograd, Arithmetic Complexity of Computations, 1980). The matrices are those of a real
  discrete Fourier transform of T + kernel // 2 steps whose complex products take three real ones: two to three times
  fewer multiplications than sliding the kernel, and as accurate, for a Fourier transform keeps lengths.
"""

import math
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

Form = Literal["torch", "rows", "bilinear"]

FEW_SAMPLES = 16
"""Below this batch size, transforming the weights costs more than it saves."""


def form(x: Float[Tensor, "t b c"], training: bool) -> Form:
    """Choose the form to compute in: torch's own where the two others lack the derivatives that may be asked for."""
    exported = torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
    if x.device.type != "cpu" or exported or torch._C._are_functorch_transforms_active():
        return "torch"
    if x.shape[1] < FEW_SAMPLES:
        return "rows"
    return "bilinear" if training or not torch.is_grad_enabled() else "torch"


class Convolution(nn.Conv1d):
    """`Conv1d` on features with time first; its weights (O, I, k) lie in memory as (k, I, O), ready for products."""

    bias: nn.Parameter
    padding: tuple[int, ...]

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding)
        self.weight.data = self.taps.contiguous().permute(2, 1, 0)

    @property
    def taps(self) -> Float[Tensor, "k i o"]:
        """A matrix for each place of the kernel."""
        return self.weight.detach().permute(2, 1, 0)

    def forward(self, x: Float[Tensor, "t b i"]) -> Float[Tensor, "s b o"]:
        (kernel,), (stride,), (padding,) = self.kernel_size, self.stride, self.padding
        match form(x, self.training):
            case "torch":
                return time_first(super().forward(time_last(x)))
            case _ if kernel == 1:
                return functional.linear(x, self.weight[:, :, 0], self.bias)
            case "rows":
                rows, columns = unfolded(x, kernel, stride, padding), self.weight.permute(2, 1, 0).flatten(0, 1)
                return torch.addmm(self.bias, rows.flatten(0, 1), columns).view(*rows.shape[:2], -1)
            case "bilinear" if stride == 1 and kernel == 2 * padding + 1:
                return _Product.apply(x, self.weight, self.bias, fourier(len(x), kernel, x.dtype))
            case "bilinear":
                return _Product.apply(x, self.weight, self.bias, sliding(len(x), kernel, stride, padding, x.dtype))


class Growth(nn.ConvTranspose1d):
    """`ConvTranspose1d` on features with time first."""

    bias: nn.Parameter
    padding: tuple[int, ...]

    def forward(self, x: Float[Tensor, "t b i"]) -> Float[Tensor, "s b o"]:
        (kernel,), (stride,), (padding,) = self.kernel_size, self.stride, self.padding
        match form(x, self.training):
            case "torch":
                return time_first(super().forward(time_last(x)))
            case "rows":
                return folded(x @ self.weight.flatten(1), kernel, stride, padding) + self.bias
            case "bilinear":
                steps = (len(x) - 1) * stride - 2 * padding + kernel
                output, weight, inputs = sliding(steps, kernel, stride, padding, x.dtype)
                matrices = Bilinear(inputs.mT, weight, output.mT)
                return _Product.apply(x, self.weight.transpose(0, 1), self.bias, matrices)


def time_first(x: Float[Tensor, "b c t"]) -> Float[Tensor, "t b c"]:
    """Return a view with time first."""
    return x.permute(2, 0, 1)


def time_last(x: Float[Tensor, "t b c"]) -> Float[Tensor, "b c t"]:
    """Return a view as torch's convolutions want it."""
    return x.permute(1, 2, 0)


def unfolded(x: Float[Tensor, "t b i"], kernel: int, stride: int, padding: int) -> Float[Tensor, "s b ki"]:
    """Return what a kernel sees at each of its places; a copy, for products with the view take twice as long."""
    return functional.pad(x, (0, 0, 0, 0, padding, padding)).unfold(0, kernel, stride).mT.flatten(2)


def folded(columns: Float[Tensor, "t b ok"], kernel: int, stride: int, padding: int) -> Float[Tensor, "s b o"]:
    """Return the sums of what each step gives to the places of a kernel: the transpose of `unfolded`."""
    steps = (len(columns) - 1) * stride - 2 * padding + kernel
    y = functional.fold(time_last(columns), (1, steps), (1, kernel), padding=(0, padding), stride=(1, stride))
    return time_first(y[:, :, 0])


class Bilinear(NamedTuple):
    """Matrices of y = output [(weight w) ⊙ (input x)]; P products."""

    output: Float[Tensor, "s p"]
    weight: Float[Tensor, "p k"]
    input: Float[Tensor, "p t"]


@lru_cache
def fourier(steps: int, kernel: int, dtype: torch.dtype) -> Bilinear:
    """Build the convolution that keeps its length, kernel odd: 3 (T + kernel // 2) / 2 - 1 products if whole."""
    reach = kernel // 2
    period = steps + reach + (steps + reach) % 2  # long enough for what wraps around to fall outside
    t, offset = np.arange(steps), reach - np.arange(kernel)
    nyquist = 1.0 - 2.0 * (np.arange(period) % 2)
    x_rows, w_rows = [np.ones(steps), nyquist[t]], [np.ones(kernel), nyquist[offset % period]]
    y_rows = [np.ones(steps) / period, nyquist[t] / period]
    for frequency in range(1, period // 2):
        angle = 2 * math.pi * frequency / period
        re, im = np.cos(angle * t), -np.sin(angle * t)
        w_re, w_im = np.cos(angle * offset), -np.sin(angle * offset)
        # Gauss: (re, im) of the product are m1 - m3, m1 + m2 for three real products
        x_rows += [re + im, re, im]
        w_rows += [w_re, w_im - w_re, w_re + w_im]
        y_rows += [(re + im) * 2 / period, im * 2 / period, -re * 2 / period]
    return _matrices(np.stack(y_rows, 1), np.stack(w_rows), np.stack(x_rows), dtype)


@lru_cache
def sliding(steps: int, kernel: int, stride: int, padding: int, dtype: torch.dtype) -> Bilinear:
    """Build any convolution of `steps` steps: a product for each place of the kernel and each of its taps inside."""
    places = range(-padding, steps + padding - kernel + 1, stride)
    taps = [(s, k, t + k) for s, t in enumerate(places) for k in range(kernel) if 0 <= t + k < steps]
    y, w, x = (np.zeros((len(taps), size)) for size in (len(places), kernel, steps))
    for p, (s, k, t) in enumerate(taps):
        y[p, s] = w[p, k] = x[p, t] = 1
    return _matrices(y.T, w, x, dtype)


def _matrices(output: np.ndarray, weight: np.ndarray, inputs: np.ndarray, dtype: torch.dtype) -> Bilinear:
    with torch.inference_mode(False):  # kept for calls that need gradients
        return Bilinear(*(torch.from_numpy(np.ascontiguousarray(m)).to(dtype) for m in (output, weight, inputs)))


class _Product(torch.autograd.Function):
    """The convolution of x (T, B, I) with w (O, I, k); channels are multiplied in bf16 where autocast says so."""

    @staticmethod
    def forward(ctx, x, w, bias, matrices):
        (steps, batch, inputs), (outputs, _, kernel) = x.shape, w.shape
        narrow = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        with torch.autocast("cpu", enabled=False):
            parts = (matrices.input @ x.reshape(steps, -1)).view(-1, batch, inputs).to(narrow)
            taps = w.permute(2, 1, 0).reshape(kernel, -1)
            factors = (matrices.weight @ taps).view(-1, inputs, outputs).to(narrow)
            products = torch.bmm(parts, factors).view(len(parts), -1).to(x.dtype)
            y = torch.addmm(bias.repeat(batch), matrices.output, products)
        ctx.save_for_backward(parts, factors)
        ctx.matrices = matrices
        return y.view(-1, batch, outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        parts, factors = ctx.saved_tensors
        matrices: Bilinear = ctx.matrices
        (steps, batch, outputs), inputs = grad.shape, factors.shape[1]
        products = (matrices.output.mT @ grad.reshape(steps, -1)).view(-1, batch, outputs).to(parts.dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            back = torch.bmm(products, factors.mT).view(len(parts), -1).to(grad.dtype)
            grad_x = (matrices.input.mT @ back).view(-1, batch, inputs)
        back = torch.bmm(parts.mT, products).view(len(parts), -1).to(grad.dtype)
        grad_w = (matrices.weight.mT @ back).view(-1, inputs, outputs).permute(2, 1, 0)
        return grad_x, grad_w, grad.sum(0).sum(0), None
