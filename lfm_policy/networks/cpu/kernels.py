"""Compiled loops of `lfm_policy.networks.cpu.activation`, over features (T, B, C) in single precision, one core each.

A sample's features fit into the first cache, so each array is read or written once, where torch's operators go through
memory a dozen times.
"""

from functools import partial

import numpy as np

from lfm_policy.compiled import compiled
from lfm_policy.networks.cpu.blas import add_product, add_product_turned

_f32, _i32 = np.float32, np.int32
_ZERO, _HALF, _ONE, _TWO, _FOUR = _f32(0), _f32(0.5), _f32(1), _f32(2), _f32(4)

_LARGEST, _SMALLEST = _f32(20), _f32(-87)
"""Mish(z) = z and Mish'(z) = 1 in single precision beyond the first; exp underflows below the second."""

_LOG2_E, _LN_2, _LN_2_REST = _f32(1 / np.log(2)), _f32(0.693359375), _f32(np.log(2) - 0.693359375)
_FACTORIALS = tuple(_f32(1 / np.prod(np.arange(1.0, n + 1))) for n in range(2, 8))
_C2, _C3, _C4, _C5, _C6, _C7 = _FACTORIALS


_fast = partial(
    compiled,
    nogil=True,
    error_model="numpy",  # division by zero gives infinity
    fastmath={"contract", "nsz", "arcp", "reassoc"},  # not that there is no NaN: a diverged loss has to be seen
)


@_fast
def _exp(x):
    """Return exp(x) up to the largest argument, without branches and calls, so that it works on whole registers.

    With n = round(x / ln 2) and r = x - n ln 2, it is 2^n times a polynomial of r in [-0.35, 0.35].
    """
    x = min(max(x, _SMALLEST), _LARGEST)
    n = np.floor(x * _LOG2_E + _HALF)
    r = (x - n * _LN_2) - n * _LN_2_REST
    p = (((((_C7 * r + _C6) * r + _C5) * r + _C4) * r + _C3) * r + _C2) * r * r + r + _ONE
    exponent = _i32(_i32(n) + _i32(127))
    return p * _i32(exponent << _i32(23)).view(_f32)


@_fast
def _group_means(sums, share, means):
    """Turn sums over the time steps (C) into means over the steps and channels of each group (groups)."""
    width = len(sums) // len(means)
    for g in range(len(means)):
        total = _ZERO
        for c in range(g * width, (g + 1) * width):
            total += sums[c]
        means[g] = total * share


@_fast
def forward(x, weight, bias, scale, shift, eps, y, mean, rstd):
    """Compute y = scale · Mish(norm(x)) + shift, and each group's mean and reciprocal deviation.

    Args:
        x: features (T, B, C).
        weight: of the normalisation (C); `bias` likewise.
        scale: of each sample's channels (B, C), or none, (0, 0); `shift` likewise.
        eps: added to the variance.
        y: result (T, B, C).
        mean: result (B, groups); `rstd` likewise.
    """
    steps, batch, channels = x.shape
    groups = mean.shape[1]
    width = channels // groups
    share = _ONE / _f32(steps * width)
    m, gain, sums = np.empty(channels, _f32), np.empty(channels, _f32), np.empty(channels, _f32)
    a, b = np.ones(channels, _f32), np.zeros(channels, _f32)
    for i in range(batch):
        sums[:] = _ZERO
        for t in range(steps):
            for c in range(channels):
                sums[c] += x[t, i, c]
        _group_means(sums, share, mean[i])
        for c in range(channels):
            m[c] = mean[i, c // width]
        sums[:] = _ZERO
        for t in range(steps):
            for c in range(channels):
                d = x[t, i, c] - m[c]
                sums[c] += d * d
        _group_means(sums, share, rstd[i])
        for g in range(groups):
            rstd[i, g] = _ONE / np.sqrt(rstd[i, g] + eps)
        for c in range(channels):
            gain[c] = rstd[i, c // width] * weight[c]
        if len(scale):
            a[:], b[:] = scale[i], shift[i]
        for t in range(steps):
            for c in range(channels):
                z = (x[t, i, c] - m[c]) * gain[c] + bias[c]
                e = _exp(z)
                n = e * (e + _TWO)
                y[t, i, c] = a[c] * (z * n / (n + _TWO)) + b[c]


@_fast
def _convolve(x, taps, bias, y, sizes):
    """Set y (T, B, O) = bias + the convolution of x (T, B, I) that keeps its length; taps (k, I, O), k odd."""
    steps, batch, inputs = x.shape
    y[:] = bias
    for k in range(len(taps)):
        ahead = k - len(taps) // 2
        first, end = max(0, -ahead), min(steps, steps - ahead)
        if first < end:
            rows = (end - first) * batch
            source, target = x[first + ahead : end + ahead], y[first:end]
            add_product(source.reshape(rows, inputs), taps[k], target.reshape(rows, y.shape[2]), sizes)


@_fast
def residual(x, condition, first, film, second, skip, groups, eps, room, y):
    """Apply two convolutions with normalisation and Mish, FiLM between them; add x, or its convolution, on top.

    Args:
        x: features (T, B, I).
        condition: (B, C).
        first: (taps (k, I, O), bias (O), weight of the normalisation (O), its bias (O)).
        film: (weight (2 O, C), bias (2 O)) of scale and shift.
        second: as first, with O inputs.
        skip: (taps (1, I, O), bias (O)), or none, (0, ...), where I = O.
        groups: of both normalisations.
        eps: added to their variances.
        room: memory to work in (2 T B O + 2 B O).
        y: result (T, B, O).
    """
    steps, batch, channels = y.shape
    size = steps * batch * channels
    features, hidden = room[:size].reshape(y.shape), room[size : 2 * size].reshape(y.shape)
    both = room[2 * size : 2 * size + 2 * batch * channels].reshape(batch, 2 * channels)
    mean, rstd, sizes = np.empty((batch, groups), _f32), np.empty((batch, groups), _f32), np.empty(3, np.int32)
    both[:] = film[1]
    add_product_turned(condition, film[0], both, sizes)
    _convolve(x, first[0], first[1], features, sizes)
    forward(features, first[2], first[3], both[:, :channels], both[:, channels:], eps, hidden, mean, rstd)
    _convolve(hidden, second[0], second[1], features, sizes)
    forward(features, second[2], second[3], both[:0, :0], both[:0, :0], eps, y, mean, rstd)
    if len(skip[0]):
        _convolve(x, skip[0], skip[1], features, sizes)
        y += features
    else:
        y += x.reshape(y.shape)


@_fast
def backward(grad, x, weight, bias, scale, mean, rstd, grad_x, grad_scale, grad_shift, moments, sums):
    """Compute gradients of x, scale and shift, and each sample's share of those of weight (`moments`), bias (`sums`).

    Args:
        grad: gradient of y (T, B, C).
        x: as in `forward`, like weight, bias, scale, mean, rstd.
        grad_x: result (T, B, C).
        grad_scale: result (B, C), like grad_shift, moments, sums.
    """
    steps, batch, channels = x.shape
    groups = mean.shape[1]
    width = channels // groups
    share = _ONE / _f32(steps * width)
    a, m, r = np.ones(channels, _f32), np.empty(channels, _f32), np.empty(channels, _f32)
    # sums in memory of their own, which the compiler knows apart from the arguments'
    to_scale, to_shift = np.empty(channels, _f32), np.empty(channels, _f32)
    moment, total = np.empty(channels, _f32), np.empty(channels, _f32)
    by_moment, by_total = np.empty(groups, _f32), np.empty(groups, _f32)
    u, v = np.empty(channels, _f32), np.empty(channels, _f32)
    normal, slope = np.empty((steps, channels), _f32), np.empty((steps, channels), _f32)
    for i in range(batch):
        for c in range(channels):
            m[c], r[c] = mean[i, c // width], rstd[i, c // width]
            to_scale[c] = to_shift[c] = moment[c] = total[c] = _ZERO
        if len(scale):
            for c in range(channels):
                a[c] = scale[i, c]
        for t in range(steps):
            for c in range(channels):
                n = (x[t, i, c] - m[c]) * r[c]
                z = n * weight[c] + bias[c]
                e = _exp(z)
                k = e * (e + _TWO)
                inverse = _ONE / (k + _TWO)
                tanh = k * inverse
                g = grad[t, i, c]
                d = g * a[c] * (tanh + _FOUR * z * e * (e + _ONE) * inverse * inverse)
                to_scale[c] += g * z * tanh
                to_shift[c] += g
                moment[c] += d * n
                total[c] += d
                normal[t, c], slope[t, c] = n, d
        for c in range(channels):
            grad_scale[i, c], grad_shift[i, c] = to_scale[c], to_shift[c]
            moments[i, c], sums[i, c] = moment[c], total[c]
            moment[c] *= weight[c]
            total[c] *= weight[c]
        _group_means(moment, share, by_moment)
        _group_means(total, share, by_total)
        for c in range(channels):
            u[c], v[c] = by_moment[c // width], by_total[c // width]
        for t in range(steps):
            for c in range(channels):
                grad_x[t, i, c] = (slope[t, c] * weight[c] - normal[t, c] * u[c] - v[c]) * r[c]
