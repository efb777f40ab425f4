"""Block-parallel training: simulation-free blocks need nothing of each other, so each can be a run of its own.

Block n's run draws the batches of all blocks and trains one; merged, the weights are those of one process, bit for bit.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lfm_policy.errors import CheckpointError
from lfm_policy.files import read_json
from lfm_policy.flow import Phase
from lfm_policy.training.loop import Trainer


def block_folder(out: Path, n: int) -> Path:
    """Of block n's own run."""
    return out / "blocks" / str(n)


def block_phase(phase: Phase, n: int) -> Phase:
    """The part of a phase that trains block n."""
    return replace(phase, blocks=(n,), drawn=phase.blocks)


def merge(trainer: Trainer, out: Path) -> None:
    """Bring a fresh trainer of the whole chain to the end of its plan, with the weights of the blocks' finished runs.

    Raises:
        CheckpointError: a block's run is missing, damaged or not finished.
    """
    for n in range(len(trainer.chain.blocks)):
        folder = block_folder(out, n) / "checkpoint"
        try:
            record = read_json(folder / "trainer.json")
            states = [load_file(folder / f"{name}.safetensors") for name in ("model", "ema")]
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"block {n} cannot be merged: {error}; run the same command again") from None
        if record["updates"] < trainer.total:
            raise CheckpointError(
                f"block {n} cannot be merged: {record['updates']} of {trainer.total} updates are done; run the same "
                "command again"
            )
        for chain, state in zip((trainer.chain, trainer.ema.chain), states, strict=True):
            chain.blocks[n].load_state_dict(_of_block(state, n))
        trainer.ema.step = record["ema_step"]
        trainer.seconds += record["seconds"]
    trainer.phase, trainer.step, trainer.optimiser = len(trainer.phases), 0, None


def _of_block(state: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    prefix = f"chain.blocks.{n}."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
