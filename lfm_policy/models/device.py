"""Where a model computes: devices by name, and how many CPU threads a call may take."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lfm_policy.errors import ConfigError


def usable_device(name: str | torch.device) -> torch.device:
    """Return the device called `name`; "auto" is a GPU where there is one, of several the one that torchrun means.

    Raises:
        ConfigError: torch cannot compute there on this machine.
    """
    if name == "auto":
        gpu = f"cuda:{rank}" if (rank := os.environ.get("LOCAL_RANK")) else "cuda"
        return torch.device(gpu if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(0, device=name).cpu().to(name).device  # "meta" computes nothing: its data cannot be copied
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(
            f"device={name}: torch cannot compute there on this machine; use device={' or device='.join(_offered())}"
        ) from None


def _offered() -> list[str]:
    names = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Let torch compute on `count` CPU threads inside, and on as many as before afterwards; None changes nothing.

    The number belongs to the process. Torch's own default, a thread per core, makes calls of a small network on a busy
    machine wait for cores that others use: tens of times longer than one thread takes.
    """
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
