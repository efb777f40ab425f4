"""The processes of one run, as torchrun starts them. Alone is the default, and costs nothing.

Batches: every rank draws the whole batch with the same generator, computes the losses of its rows, and the gradients
are averaged: the sum that one process would compute, in another order. Blocks: nothing is exchanged, see `blocks`.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.processes import usable_cores

WAIT = timedelta(days=30)
"""For ranks that train other blocks, which may take long; those that share batches have torch's own patience."""


@dataclass(frozen=True)
class Ranks:
    """This process among `world`."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that logs and writes."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """Return this rank's rows of each batch. Raises ConfigError when the ranks cannot have equally many."""
        if batch % self.world:
            raise ConfigError(f"batch={batch} cannot be shared by {self.world} processes: use a multiple of that")
        return slice(self.rank, None, self.world)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over all ranks, in one exchange."""
        if self.world == 1:
            return
        parts = list(tensors)
        flat = torch.cat([part.flatten() for part in parts])
        distributed.all_reduce(flat)
        flat /= self.world
        for part, mean in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
            part.copy_(mean.view_as(part))

    def require_equal(self, done: int, device: torch.device) -> None:
        """Raise CheckpointError unless all ranks stand at the same update."""
        if self.world == 1:
            return
        found = torch.zeros(self.world, dtype=torch.int64, device=device)
        found[self.rank] = done
        distributed.all_reduce(found)
        if (found != done).any():
            raise CheckpointError(
                f"the processes found checkpoints at different updates, {found.tolist()}: out= must be a folder that "
                "all machines share"
            )

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.world > 1:
            distributed.barrier()


@contextmanager
def joined(device: torch.device, *, busy: bool = False) -> Iterator[Ranks]:
    """Yield the ranks that torchrun's environment tells of, connected in the context; alone without torchrun.

    Args:
        device: where this process computes; ranks on GPUs exchange tensors by NCCL, on CPUs by gloo.
        busy: the ranks work for themselves and only wait for each other at the end.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    nccl = device.type == "cuda" and not busy
    if nccl:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if nccl else "gloo", timeout=WAIT if busy else None)
    try:
        yield Ranks(distributed.get_rank(), world)
    finally:
        distributed.destroy_process_group()


def parallel_blocks(wanted: int | None, device: torch.device) -> int:
    """Return how many blocks' gradients are computed side by side: as many as cores by default, one on a GPU."""
    return wanted or (1 if device.type == "cuda" else usable_cores())
