"""Matrix products inside compiled code, by the BLAS that torch itself calls: its speed and its threads."""

import ctypes
from pathlib import Path

import llvmlite.binding
import numpy as np
import torch
from numba import types

from lfm_policy.compiled import compiled

_address = types.intp


def _found() -> int | None:
    """Find where torch's library has `sgemm_`, Fortran's name for it, if it shows one."""
    folder = Path(torch.__file__).parent / "lib"
    names = sorted(folder.glob("*torch_cpu.*"))
    function = getattr(ctypes.CDLL(str(names[0])), "sgemm_", None) if names else None
    return None if function is None else ctypes.cast(function, ctypes.c_void_p).value


_SGEMM = _found()
AVAILABLE = _SGEMM is not None
"""Whether `add_product` can be called."""
if _SGEMM is not None:
    llvmlite.binding.add_symbol("lfm_sgemm", _SGEMM)
_sgemm = types.ExternalFunction("lfm_sgemm", types.void(*[_address] * 13))

_AS_IT_IS, _TURNED = np.array([ord("N")], np.int8), np.array([ord("T")], np.int8)
_ONE = np.ones(1, np.float32)


@compiled
def add_product(a, b, c, sizes):
    """Do c += a @ b in single precision, all contiguous: (m, k), (k, n), (m, n); `sizes` (3,) int32 is work space."""
    sizes[0], sizes[1], sizes[2] = a.shape[0], a.shape[1], b.shape[1]
    m, k, n = sizes.ctypes.data, sizes.ctypes.data + 4, sizes.ctypes.data + 8
    keep, one = _AS_IT_IS.ctypes.data, _ONE.ctypes.data
    # Fortran sees the transposed matrices
    _sgemm(keep, keep, n, m, k, one, b.ctypes.data, n, a.ctypes.data, k, one, c.ctypes.data, n)


@compiled
def add_product_turned(a, b, c, sizes):
    """Do c += a @ b.T, where b is (n, k)."""
    sizes[0], sizes[1], sizes[2] = a.shape[0], a.shape[1], b.shape[0]
    m, k, n = sizes.ctypes.data, sizes.ctypes.data + 4, sizes.ctypes.data + 8
    keep, turn, one = _AS_IT_IS.ctypes.data, _TURNED.ctypes.data, _ONE.ctypes.data
    _sgemm(turn, keep, n, m, k, one, b.ctypes.data, k, a.ctypes.data, k, one, c.ctypes.data, n)
