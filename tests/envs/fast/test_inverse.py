"""The pseudo-inverse of the controller is numba's to the last bit."""

import importlib.util

import numba
import numpy as np
import pytest

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
]


@numba.njit
def numbas(matrix):
    return np.linalg.pinv(matrix)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_the_same_bits(size):
    from lfm_envs.fast.inverse import pinv

    rng = np.random.default_rng(size)
    for columns in (7, size - 1):  # regular, then singular
        for _ in range(200):
            jacobian = rng.standard_normal((size, columns)) * np.exp(2 * rng.standard_normal((size, 1)))
            matrix = jacobian @ jacobian.T
            np.testing.assert_array_equal(pinv(matrix), numbas(matrix))
            np.testing.assert_array_equal(pinv(np.triu(matrix)), numbas(np.triu(matrix)))
