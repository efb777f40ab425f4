"""What all models on disk share: a directory of JSON and safetensors, the moving average beside the weights."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lfm_policy.errors import CheckpointError
from lfm_policy.files import atomic_directory, read_json
from lfm_policy.models.device import usable_device

Weights = Literal["ema", "raw"]
Model = TypeVar("Model", bound="Pretrained")


class Pretrained(nn.Module):
    """A model that is made from descriptions, and saved as these and its weights."""

    kind: ClassVar[str]
    """What it is, for messages."""
    descriptions: ClassVar[Mapping[str, type[BaseModel]]]
    """The JSON files that describe it, config.json first, in the order of the arguments it is made from."""
    spec: Any
    """The content of config.json."""

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the files that describe the model and model.safetensors, atomically."""
        with atomic_directory(directory) as temporary:
            self.write(temporary)

    def write(self, directory: Path) -> None:
        """Write the files of `save_pretrained` into an existing directory."""
        spec = self.spec.model_dump(mode="json") | {"solver": asdict(self.spec.solver)}
        (directory / "config.json").write_text(json.dumps(spec, indent=2) + "\n")
        save_tensors(self.state_dict(), directory / "model.safetensors")

    @classmethod
    def from_pretrained(
        cls: type[Model],
        directory: str | Path,
        *,
        weights: Weights = "ema",
        device: torch.device | str = "cpu",
        trust_code: bool = False,
    ) -> Model:
        """Load a checkpoint or the output of `save_pretrained`, in evaluation mode.

        Args:
            directory: the checkpoint, or the folder of a run that holds one.
            weights: the moving average (where there is one) or the weights as trained.
            device: where to put the model.
            trust_code: allow a network class from outside this package.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the others.
            ConfigError: torch cannot compute on that device.
        """
        place, directory = usable_device(device), checkpoint_in(directory)
        try:
            parts = [part.model_validate(read_json(directory / name)) for name, part in cls.descriptions.items()]
        except (ValidationError, json.JSONDecodeError, FileNotFoundError) as error:
            raise CheckpointError(f"{directory} holds no {cls.kind} that can be read: {error}") from None
        model = cls(*parts, trust_code=trust_code)
        load_weights(model, directory, weights)
        return model.to(place).eval()


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
        f"{directory / 'checkpoint'}; train one with lfm train"
    )


def load_weights(module: nn.Module, directory: Path, weights: Weights) -> None:
    """Fill `module` from a checkpoint: as trained, or with the moving average where there is one.

    Raises:
        CheckpointError: a file is missing, damaged, or made for another module.
    """
    state = read_tensors(directory / "model.safetensors")
    if weights == "ema" and (directory / "ema.safetensors").exists():
        state |= read_tensors(directory / "ema.safetensors")
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {directory} do not fit its config.json: {error}") from None


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, whatever their order in memory."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def digest(description: str, module: nn.Module) -> str:
    """Hash of all that decides what a model does: its description and its weights."""
    content = hashlib.sha256(description.encode())
    for name, tensor in sorted(module.state_dict().items()):
        content.update(name.encode())
        content.update(tensor.detach().cpu().numpy().tobytes())
    return content.hexdigest()[:16]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors. Raises CheckpointError where they are missing or damaged."""
    try:
        return load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise CheckpointError(f"{path} is missing or damaged: {error}") from None
