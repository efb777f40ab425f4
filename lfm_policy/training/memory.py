"""How the C library treats the memory of tensors, and how much of it was taken."""

import ctypes
import resource
import sys

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h


def keep_freed_memory() -> None:
    """Let glibc hand freed memory out again instead of returning it to the system, for the rest of the process.

    A training step on a CPU frees and allocates the same hundreds of tensors as the one before; by default each
    comes back as fresh pages that the system clears first, a fifth of the step. Does nothing without glibc.
    """
    if not sys.platform.startswith("linux") or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    library.mallopt(_ARENA_MAX, 1)  # threads share what is kept; they allocate tensors, not small objects
    library.mallopt(_MMAP_THRESHOLD, 1 << 25)  # the largest value allowed
    library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


def peak_memory(device: torch.device) -> float:
    """Return the most memory taken so far [MB]: by tensors on a GPU, by the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    per_mb = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mb
