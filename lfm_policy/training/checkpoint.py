"""Checkpoints: directories that hold a model ready to load and all that its training needs to go on."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from lfm_policy.errors import CheckpointError
from lfm_policy.files import atomic_directory, read_json, require_same, sweep
from lfm_policy.models.pretrained import save_tensors, seal, verify
from lfm_policy.training.experiments.experiment import Model
from lfm_policy.training.loop import Saver, Trainer, TrainerState

LENGTHS = ("steps", "updates", "epochs")
"""Settings that say how long a run is; it can be made longer."""


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
        """See `loop.Saver`."""
        if not force and time.monotonic() - self._last < self.seconds:
            return
        state = trainer.state()
        with atomic_directory(self.directory) as temporary:
            self.model.write(temporary)
            save_tensors(state.ema, temporary / "ema.safetensors")
            save_tensors(state.optimiser, temporary / "trainer.safetensors")
            record = {
                "phase": state.phase,
                "step": state.step,
                "ema_step": state.ema_step,
                "updates": trainer.done,
                "seconds": state.seconds,
                "moments_since": state.moments_since,
                "fingerprint": self.fingerprint,
            }
            (temporary / "trainer.json").write_text(json.dumps(record, indent=2) + "\n")
            seal(temporary)
        self._last = time.monotonic()

    def resume(self, trainer: Trainer) -> bool:
        """Bring model and trainer to where the checkpoint stands; False when there is none.

        A run of one phase may have become longer, finished or not: it goes on along the longer schedule, see
        `loop.learning_rate`.

        Raises:
            CheckpointError: the checkpoint is damaged, or belongs to a run with other settings.
        """
        sweep(self.directory.parent)
        if not self.directory.exists():
            return False
        verify(self.directory, ["trainer.json", *(f"{name}.safetensors" for name in ("model", "ema", "trainer"))])
        try:
            record = read_json(self.directory / "trainer.json")
            model, ema, optimiser = (
                load_file(self.directory / f"{name}.safetensors") for name in ("model", "ema", "trainer")
            )
        except (SafetensorError, OSError, json.JSONDecodeError) as error:
            raise CheckpointError(f"the checkpoint in {self.directory} cannot be resumed: {error}") from None
        what = f"{self.directory} belongs to a run with other settings"
        advice = "use the same settings to continue it, or another out= for a new run"
        theirs, ours = record["fingerprint"], self.fingerprint
        if longer := _length(theirs) != _length(ours) and len(trainer.phases) == 1:
            theirs, ours = ({k: v for k, v in said.items() if k not in LENGTHS} for said in (theirs, ours))
        require_same(theirs, ours, what, advice, CheckpointError)
        if trainer.total < record["updates"]:
            raise CheckpointError(
                f"{self.directory} has done {record['updates']} updates, more than the {trainer.total} that are asked "
                "for: ask for more to make the run longer, or use another out="
            )
        self.model.load_state_dict(model)
        numbers = {name: record[name] for name in ("phase", "step", "seconds", "ema_step")}
        numbers["moments_since"] = record.get("moments_since", 0)
        if longer and record["phase"] == 1 and record["updates"] < trainer.total:  # it had ended
            numbers |= {"phase": 0, "step": record["updates"], "moments_since": record["updates"]}
        trainer.restore(TrainerState(**numbers, ema=ema, optimiser=optimiser))
        return True


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
        """See `loop.Saver`."""
        self.save(trainer, force=force)
        if trainer.done not in {round(k * trainer.total / self.count) for k in range(1, self.count + 1)}:
            return
        with atomic_directory(self.directory / f"step_{trainer.done:07d}") as temporary:
            self.model.write(temporary)
            save_tensors(dict(self.model.state_dict()) | dict(trainer.state().ema), temporary / "model.safetensors")
            seal(temporary)


def _length(fingerprint: Mapping[str, Any]) -> list[Any]:
    return [fingerprint.get(name) for name in LENGTHS]
