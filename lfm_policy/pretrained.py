"""What all models on disk share: a directory of JSON and safetensors, the moving average beside the weights."""

import hashlib
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lfm_policy.errors import CheckpointError

Weights = Literal["ema", "raw"]


def checkpoint_in(directory: str | Path) -> Path:
    """The checkpoint itself, given it or the folder of a run that holds one.

    Raises:
        CheckpointError: there is none.
    """
    directory = Path(directory)
    for candidate in (directory, directory / "checkpoint"):
        if (candidate / "config.json").exists():
            return candidate
    raise CheckpointError(
        f"no checkpoint in {directory}: expected config.json and model.safetensors there or in "
        f"{directory / 'checkpoint'}; train one with scripts/train.py"
    )


def load_weights(module: nn.Module, directory: Path, weights: Weights) -> None:
    """Fill `module` from a checkpoint: as trained, or with the moving average where there is one.

    Raises:
        CheckpointError: a file is missing, damaged, or made for another module.
    """
    state = _read_tensors(directory / "model.safetensors")
    if weights == "ema" and (directory / "ema.safetensors").exists():
        state |= _read_tensors(directory / "ema.safetensors")
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {directory} do not fit its config.json: {error}") from None


def digest(description: str, module: nn.Module) -> str:
    """Hash of all that decides what a model does: its description and its weights."""
    content = hashlib.sha256(description.encode())
    for name, tensor in sorted(module.state_dict().items()):
        content.update(name.encode())
        content.update(tensor.detach().cpu().numpy().tobytes())
    return content.hexdigest()[:16]


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise CheckpointError(f"{path} is missing or damaged: {error}") from None
