"""Machine code from Python functions, where torch and numpy have no single operator for what is to be done."""

import inspect
from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile with numba, kept on disk between runs where any of its cache folders can be written."""
    function = inspect.unwrap(function)  # of what checks its types at run time
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # read-only installation and no home: compile again in each process
        return numba.njit(**options)(function)
