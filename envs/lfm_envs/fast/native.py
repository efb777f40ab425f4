"""C functions inside compiled code: MuJoCo's own, and the products that numpy itself calls.

A symbol is looked up in the library that Python already works with, so there is one MuJoCo and one BLAS: the same
numbers come out as from Python, to the last bit.
"""

import ctypes
from typing import Any

import llvmlite.binding
import mujoco._functions
import numba
import numpy as np
import numpy.linalg._umath_linalg
from numba import carray, types  # pyright: ignore[reportPrivateImportUsage]

from lfm_policy.compiled import compiled

_NUMPY_PREFIXES = ("cblas_", "scipy_cblas_")
"""How numpy 1 and numpy 2 call BLAS, in their wheels."""
_GEMV, _GEMM = "lfm_cblas_dgemv", "lfm_cblas_dgemm"
ROW_MAJOR, COLUMN_MAJOR, AS_IT_IS = 101, 102, 111
"""CBLAS's numbers for how a matrix lies and that it is not transposed."""

_address, _flag, _real = types.intp, types.int32, types.float64


def _external(library: Any, name: str, *arguments: types.Type) -> Any:
    """Return a C function without result, for compiled code to call."""
    llvmlite.binding.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)
    return types.ExternalFunction(name, types.void(*arguments))


_mujoco = ctypes.CDLL(mujoco._functions.__file__)
mj_step = _external(_mujoco, "mj_step", _address, _address)
mj_step1 = _external(_mujoco, "mj_step1", _address, _address)
mj_step2 = _external(_mujoco, "mj_step2", _address, _address)
mj_forward = _external(_mujoco, "mj_forward", _address, _address)
mj_jac_site = _external(_mujoco, "mj_jacSite", _address, _address, _address, _address, _flag)


_numbers = types.CPointer(types.float64)
_gemv_arguments = (_flag, _flag, _address, _address, _real, _numbers, _address, _numbers, _address, _real, _numbers)


def _numpy(routine: str) -> int | None:
    library = ctypes.CDLL(numpy.linalg._umath_linalg.__file__)
    found = (getattr(library, f"{prefix}{routine}64_", None) for prefix in _NUMPY_PREFIXES)
    return next((ctypes.cast(function, ctypes.c_void_p).value for function in found if function), None)


def _plain_gemv(order, _transposed, rows, columns, _alpha, matrix, stride, vector, _step, _beta, out, _out_step):
    """Stand in where numpy has no OpenBLAS of its own: the same up to rounding."""
    down, right = (stride, 1) if order == ROW_MAJOR else (1, stride)
    a, x, y = carray(matrix, (rows * columns,)), carray(vector, (columns,)), carray(out, (rows,))
    for i in range(rows):
        y[i] = 0.0
        for j in range(columns):
            y[i] += a[i * down + j * right] * x[j]


EXACT = _numpy("dgemv") is not None
"""Whether products are numpy's own, so that robosuite's trajectories are met to the last bit."""
_stand_in = None if EXACT else numba.cfunc(types.void(*_gemv_arguments, _address))(_plain_gemv)  # nothing keeps it
llvmlite.binding.add_symbol(_GEMV, _numpy("dgemv") if _stand_in is None else _stand_in.address)
_gemv = types.ExternalFunction(
    _GEMV,
    types.void(
        _flag, _flag, _address, _address, _real, _address, _address, _address, _address, _real, _address, _address
    ),
)


@compiled
def product(matrix, vector, out):
    """Compute out = matrix @ vector, summed in numpy's order; the matrix (rows, columns) is contiguous either way."""
    rows, columns = matrix.shape
    order, stride = (ROW_MAJOR, columns) if matrix.flags.c_contiguous else (COLUMN_MAJOR, rows)
    _gemv(
        order, AS_IT_IS, rows, columns, 1.0, matrix.ctypes.data, stride, vector.ctypes.data, 1, 0.0, out.ctypes.data, 1
    )


if _numpy("dgemm") is not None:
    llvmlite.binding.add_symbol(_GEMM, _numpy("dgemm"))
    _matrix, _size = (_address, _address), _address
    _gemm = types.ExternalFunction(
        _GEMM, types.void(_flag, _flag, _flag, _size, _size, _size, _real, *_matrix, *_matrix, _real, *_matrix)
    )

    @compiled
    def matrix_product(a, b, out):
        """Compute out = a @ b, summed in numpy's order; square matrices (n, n), row by row in memory."""
        n, x, y, result = len(a), a.ctypes.data, b.ctypes.data, out.ctypes.data
        _gemm(ROW_MAJOR, AS_IT_IS, AS_IT_IS, n, n, n, 1.0, x, n, y, n, 0.0, result, n)

else:

    @compiled
    def matrix_product(a, b, out):
        """Compute out = a @ b where numpy has no OpenBLAS of its own: the same up to rounding."""
        out[:] = np.dot(a, b)
