"""Checkpoints: directories that hold a model ready to load and all that its training needs to go on."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, empty_like
from torch.optim import AdamW

from lfm_policy.errors import CheckpointError
from lfm_policy.files import atomic_directory, read_json, sweep
from lfm_policy.models.pretrained import save_tensors
from lfm_policy.training.experiments.experiment import Model
from lfm_policy.training.loop import Saver, Trainer


class Checkpointer:
    """Writes `directory` at most every `seconds`, and whenever a phase ends.

    Args:
        directory: replaced as a whole by each checkpoint.
        model: written beside the trainer's state; its chain is the trainer's.
        fingerprint: the settings that must be the same for a run to continue.
        seconds: shortest time between two checkpoints [s].
    """

    def __init__(self, directory: Path, model: Model, fingerprint: Mapping[str, Any], seconds: float = 120) -> None:
        self.directory, self.model, self.seconds = directory, model, seconds
        self.fingerprint = json.loads(json.dumps(fingerprint))
        self._last = time.monotonic()

    def __call__(self, trainer: Trainer, *, force: bool) -> None:
        """`loop.Saver`."""
        if not force and time.monotonic() - self._last < self.seconds:
            return
        with atomic_directory(self.directory) as temporary:
            self.model.write(temporary)
            save_tensors(ema_state(trainer), temporary / "ema.safetensors")
            save_tensors(_optimiser_state(trainer), temporary / "trainer.safetensors")
            record = {
                "phase": trainer.phase,
                "step": trainer.step,
                "ema_step": trainer.ema.step,
                "updates": trainer.done,
                "seconds": trainer.seconds,
                "fingerprint": self.fingerprint,
            }
            (temporary / "trainer.json").write_text(json.dumps(record, indent=2) + "\n")
        self._last = time.monotonic()

    def resume(self, trainer: Trainer) -> bool:
        """Bring model and trainer to where the checkpoint stands; False when there is none.

        Raises:
            CheckpointError: the checkpoint is damaged, or belongs to a run with other settings.
        """
        sweep(self.directory.parent)
        if not self.directory.exists():
            return False
        try:
            record = read_json(self.directory / "trainer.json")
            model, ema, optimiser = (
                load_file(self.directory / f"{name}.safetensors") for name in ("model", "ema", "trainer")
            )
        except (SafetensorError, OSError, json.JSONDecodeError) as error:
            raise CheckpointError(f"the checkpoint in {self.directory} cannot be resumed: {error}") from None
        self._require_same_run(record["fingerprint"])
        self.model.load_state_dict(model)
        trainer.ema.chain.load_state_dict({name.removeprefix("chain."): value for name, value in ema.items()})
        trainer.ema.step = record["ema_step"]
        trainer.phase, trainer.step, trainer.seconds = record["phase"], record["step"], record["seconds"]
        trainer.optimiser = _restored_optimiser(trainer, optimiser)
        return True

    def _require_same_run(self, theirs: Mapping[str, Any]) -> None:
        ours = _flat(self.fingerprint)
        other = _flat(theirs)
        rows = [
            f"  {key}: the checkpoint has {other.get(key)!r}, this run {ours.get(key)!r}"
            for key in sorted(ours.keys() | other.keys())
            if ours.get(key) != other.get(key)
        ]
        if rows:
            raise CheckpointError(
                f"{self.directory} belongs to a run with other settings:\n"
                + "\n".join(rows)
                + "\nuse the same settings to continue it, or another out= for a new run"
            )


class Snapshots:
    """Keeps the averaged model at equal distances along a run, as folders step_<updates> that load like a checkpoint.

    Args:
        directory: holds the folders.
        model: written with the trainer's moving average as its weights.
        count: snapshots of the whole run, its end included; none if 0.
        save: called first, each time.
    """

    def __init__(self, directory: Path, model: Model, count: int, save: Saver) -> None:
        self.directory, self.model, self.count, self.save = directory, model, count, save

    def __call__(self, trainer: Trainer, *, force: bool) -> None:
        """`loop.Saver`."""
        self.save(trainer, force=force)
        if trainer.done not in {round(k * trainer.total / self.count) for k in range(1, self.count + 1)}:
            return
        with atomic_directory(self.directory / f"step_{trainer.done:07d}") as temporary:
            self.model.write(temporary)
            save_tensors(dict(self.model.state_dict()) | ema_state(trainer), temporary / "model.safetensors")


def ema_state(trainer: Trainer) -> dict[str, Tensor]:
    """The averaged weights, named as in the model's state."""
    return {f"chain.{name}": value for name, value in trainer.ema.chain.state_dict().items()}


def _optimiser_state(trainer: Trainer) -> dict[str, Tensor]:
    if trainer.optimiser is None:
        return {}
    state = trainer.optimiser.state_dict()["state"]
    return {f"{index}.{key}": value for index, entries in state.items() for key, value in entries.items()}


def _restored_optimiser(trainer: Trainer, tensors: Mapping[str, Tensor]) -> AdamW | None:
    if not tensors:
        return None
    optimiser = trainer.new_optimiser(trainer.phases[trainer.phase])
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        if value.ndim:  # fused AdamW goes through memory: moments must lie there as their parameters do
            value = empty_like(parameters[int(index)]).copy_(value)
        state.setdefault(int(index), {})[key] = value.detach()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return optimiser


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {
            k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}" if prefix else key).items()
        }
    return {prefix: value}
