"""The teacher's trajectories for a distillation: made anew for every batch, or once and kept in zarr."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from rich.progress import track

from lfm_policy.errors import DataError
from lfm_policy.files import read_json, require_same, write_json
from lfm_policy.flow import FlowChain, Pool, Solver
from lfm_policy.flow.distill import Trajectories, trajectory
from lfm_policy.locks import owned

PART = 256
"""Trajectories that are made and written together."""


@dataclass(frozen=True)
class Teacher:
    """Draws trajectories: `flow.distil`'s `draw`, once the size of a batch is given."""

    chain: FlowChain
    pool: Pool
    """Its conditions are used, and the shape of its samples."""
    solver: Solver
    inside: bool
    """Keep the states after every step of the solver, not only those between blocks."""
    temperature: float = 1.0
    """Standard deviation of the noise that trajectories begin at."""
    parts: int = 1
    """Equal parts of each block whose ends are kept: more than one where students divide a block among them."""

    def draw(self, batch: int, generator: torch.Generator) -> Trajectories:
        """Draw `batch` trajectories from fresh noise, under conditions drawn from the pool."""
        index = torch.randint(len(self.pool), (batch,), generator=generator, device=generator.device)
        sample = self.pool.take(index, generator)
        noise = torch.randn(sample.x.shape, generator=generator, device=sample.x.device, dtype=sample.x.dtype)
        start, kept = self.temperature * noise, {"inside": self.inside, "parts": self.parts}
        states = trajectory(self.chain, start, sample.cond, self.solver, **kept)
        return Trajectories(states, sample.cond)


def cached(
    path: Path, teacher: Teacher, count: int, seed: int, identity: Mapping[str, Any]
) -> Callable[[int, torch.Generator], Trajectories]:
    """Make `count` trajectories in the zarr group `path`, unless they are there, and draw batches from them.

    An interrupted call goes on with the part that it was making; part k is decided by (seed, k). Several distillations
    may share a cache: one of them makes it.

    Args:
        path: by convention NAME.zarr; holds `states` (count, S, *event) and `condition` (count, C), float32.
        teacher: makes them; its device takes all of them into memory.
        count: rounded up to a multiple of `PART`.
        seed: decides noise and conditions.
        identity: what decides a trajectory beside the seed, as plain JSON values.

    Raises:
        DataError: the folder holds trajectories of another identity, or is damaged.
        BusyError: another process is making them.
    """
    parts = -(-count // PART)
    expected = {"identity": dict(identity), "seed": seed, "parts": parts, "inside": teacher.inside}
    if _parts_done(path, expected) < parts:
        with owned(path):
            _make(path, teacher, seed, expected)
    return _drawing(path, next(teacher.chain.parameters()).device)


def _make(path: Path, teacher: Teacher, seed: int, expected: Mapping[str, Any]) -> None:
    """Make the parts that are missing."""
    parts = expected["parts"]
    for k in track(range(_parts_done(path, expected), parts), "the teacher's trajectories"):
        drawn = teacher.draw(PART, _generator(teacher, seed, k))
        arrays = {"states": drawn.states.movedim(0, 1)} | ({} if drawn.cond is None else {"condition": drawn.cond})
        for name, tensor in arrays.items():
            values = tensor.float().cpu().numpy()
            if k == 0:
                group = zarr.open_group(path, mode="a")
                shape = (parts * PART, *values.shape[1:])
                missing = float("nan")
                group.create_array(
                    name, shape=shape, chunks=values.shape, dtype="float32", fill_value=missing, overwrite=True
                )
            zarr.open_array(path / name, mode="r+")[k * PART : (k + 1) * PART] = values
        write_json(path / "progress.json", {**expected, "done": k + 1})


def _parts_done(path: Path, expected: Mapping[str, Any]) -> int:
    if not (path / "progress.json").exists():
        return 0
    found = read_json(path / "progress.json")
    expected = dict(expected, done=found["done"])
    advice = "name another cache=, or remove that folder"
    require_same(found, expected, f"{path} holds other trajectories", advice, DataError)
    return int(found["done"])


def _generator(teacher: Teacher, seed: int, part: int) -> torch.Generator:
    word = np.random.SeedSequence((seed, part)).generate_state(1, np.uint64)[0] >> np.uint64(1)
    return torch.Generator(next(teacher.chain.parameters()).device).manual_seed(int(word))


def _drawing(path: Path, device: torch.device) -> Callable[[int, torch.Generator], Trajectories]:
    states = _tensor(path, "states", device)
    condition = _tensor(path, "condition", device) if (path / "condition").exists() else None

    def draw(batch: int, generator: torch.Generator) -> Trajectories:
        index = torch.randint(len(states), (batch,), generator=generator, device=generator.device)
        return Trajectories(states[index].movedim(0, 1), None if condition is None else condition[index])

    return draw


def _tensor(path: Path, name: str, device: torch.device) -> torch.Tensor:
    try:
        values = np.asarray(zarr.open_array(path / name, mode="r")[:])
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise DataError(
            f"{path} is damaged: '{name}' cannot be read ({error}); remove it to have it made anew"
        ) from None
    if not np.isfinite(values).all():  # a missing chunk reads as NaN
        raise DataError(f"{path} is damaged: '{name}' lacks a part; remove it for a new one")
    return torch.from_numpy(values).to(device)
