"""Block-parallel training: simulation-free blocks need nothing of each other, so each can be a run of its own.

Block n's run draws the batches of all blocks and trains one; merged, the weights are those of one process, bit for bit.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lfm_policy.errors import CheckpointError
from lfm_policy.files import read_json
from lfm_policy.flow import Phase
from lfm_policy.training.loop import Trainer, TrainerState


def block_folder(out: Path, n: int) -> Path:
    """Return the folder of block n's own run."""
    return out / "blocks" / str(n)


def block_phase(phase: Phase, n: int) -> Phase:
    """Return the part of a phase that trains block n."""
    return replace(phase, blocks=(n,), drawn=phase.blocks)


def merge(trainer: Trainer, out: Path) -> None:
    """Bring a fresh trainer of the whole chain to the end of its plan, with the weights of the blocks' finished runs.

    Raises:
        CheckpointError: a block's run is missing, damaged or not finished.
    """
    averages: dict[str, Tensor] = {}
    ema_step, seconds = 0, 0.0
    for n, block in enumerate(trainer.chain.blocks):
        record, weights, average = _finished(block_folder(out, n) / "checkpoint", n, trainer.total)
        block.load_state_dict({name.removeprefix(_name(n)): value for name, value in weights.items()})
        averages |= average
        ema_step, seconds = record["ema_step"], seconds + record["seconds"]
    phases = len(trainer.phases)
    trainer.restore(TrainerState(phases, 0, trainer.seconds + seconds, ema_step, averages, optimiser={}))


def _finished(folder: Path, n: int, total: int) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Return block n's record, weights and averages, from its own run of `total` updates."""
    try:
        record = read_json(folder / "trainer.json")
        states = [load_file(folder / f"{name}.safetensors") for name in ("model", "ema")]
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"block {n} cannot be merged: {error}; run the same command again") from None
    if record["updates"] < total:
        raise CheckpointError(
            f"block {n} cannot be merged: {record['updates']} of {total} updates are done; run the same command again"
        )
    model, ema = ({k: v for k, v in state.items() if k.startswith(_name(n))} for state in states)
    return record, model, ema


def _name(n: int) -> str:
    return f"chain.blocks.{n}."
