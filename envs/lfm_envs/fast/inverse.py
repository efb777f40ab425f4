"""numba's pseudo-inverse for small matrices, the same bits in less time: LAPACK's steps without its search for them.

For a small square matrix that is neither tiny nor huge, LAPACK's `dgesdd` ends up in the four routines called here,
after it has asked itself for block sizes. Where scipy has another LAPACK (MKL) this is the same up to rounding.
"""

import llvmlite.binding
import numpy as np
from numba import types
from numba.extending import get_cython_function_address  # pyright: ignore[reportPrivateImportUsage]

from lfm_policy.compiled import compiled

RCOND = 1e-15
"""Singular values below this part of the largest count as zero."""


def _scipy(module: str, name: str, arguments: int) -> types.ExternalFunction:
    """Return a Fortran routine of the library that numba's own linear algebra calls, all arguments by address."""
    llvmlite.binding.add_symbol(f"lfm_{name}", get_cython_function_address(f"scipy.linalg.cython_{module}", name))
    return types.ExternalFunction(f"lfm_{name}", types.void(*[types.intp] * arguments))


_bidiagonalise = _scipy("lapack", "dgebd2", 10)
_diagonalise = _scipy("lapack", "dbdsqr", 15)
_times_left = _scipy("lapack", "dorm2r", 12)
_times_right = _scipy("lapack", "dorml2", 12)
_multiply = _scipy("blas", "dgemm", 13)

_INTEGERS = np.arange(16, dtype=np.int32)
_REALS = np.arange(2, dtype=np.float64)
_LETTERS = np.arange(128, dtype=np.int8)
"""Fortran takes constants by address: each lies at its own place."""


@compiled
def _integer(value):
    return _INTEGERS.ctypes.data + 4 * value


@compiled
def _real(value):
    return _REALS.ctypes.data + 8 * value


@compiled
def _letter(value):
    return _LETTERS.ctypes.data + ord(value)


@compiled
def pinv(matrix):
    """Return the pseudo-inverse (n, n) of a matrix (n, n), n > 1.

    Raises:
        LinAlgError: the singular values do not converge.
    """
    size = len(matrix)
    left, values, right = np.eye(size), np.empty(size), np.eye(size)
    if _decompose(matrix.T.copy(), left, values, right, np.empty(7 * size), np.empty(2, np.int32)) != 0:
        raise np.linalg.LinAlgError("the singular values do not converge")
    smallest, used = values[0] * RCOND, 1
    for index in range(size):
        if values[index] > smallest:
            values[index] = 1.0 / values[index]
            used = index + 1
    for row in range(size):
        for index in range(used):
            right[row, index] *= values[index]
    inverse = np.empty((size, size))
    _multiply_turned(right, left, used, inverse)
    return inverse.T


# What follows gets its arrays from the caller, who keeps them: numba frees one after the last use that it sees, and
# what is done at an address is none.


@compiled
def _part(numbers, size, index):
    return numbers.ctypes.data + 8 * size * index


@compiled
def _decompose(matrix, left, values, right, room, info):
    """Return singular values and vectors of `matrix`, which is lost; all matrices as they lie in Fortran.

    Args:
        left: the identity (n, n), then one vector per row.
        values: (n,), written.
        right: the identity (n, n), then one vector per column.
        room: (7 * n,) to work in.
        info: (2,) to work in.

    Returns:
        0 if it has succeeded.
    """
    size = len(values)
    n, rest, none = _integer(size), _integer(size - 1), _integer(0)
    a, u, s, v = matrix.ctypes.data, left.ctypes.data, values.ctypes.data, right.ctypes.data
    above, tau_u, tau_v, work = _part(room, size, 0), _part(room, size, 1), _part(room, size, 2), _part(room, size, 3)
    failed, ignored = info.ctypes.data, info[1:].ctypes.data
    _bidiagonalise(n, n, a, n, s, above, tau_u, tau_v, work, ignored)
    _diagonalise(_letter("U"), n, n, n, none, s, above, v, n, u, n, u, n, work, failed)
    _times_left(_letter("L"), _letter("N"), n, n, n, a, n, tau_u, u, n, work, ignored)
    a, v = matrix[1].ctypes.data, right[1].ctypes.data
    _times_right(_letter("R"), _letter("N"), n, rest, rest, a, n, tau_v, v, n, work, ignored)
    return info[0]


@compiled
def _multiply_turned(a, b, inner, out):
    """Compute out = a.T @ b.T in Fortran's order, (n, inner) times (inner, n)."""
    turned, n = _letter("C"), _integer(len(a))
    first, second, result = a.ctypes.data, b.ctypes.data, out.ctypes.data
    _multiply(turned, turned, n, n, _integer(inner), _real(1), first, n, second, n, _real(0), result, n)
