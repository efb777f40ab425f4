"""What all models on disk share: a directory of JSON and safetensors, the moving average beside the weights."""

import hashlib
import itertools
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lfm_policy.errors import CheckpointError
from lfm_policy.files import atomic_directory, read_json, require_regular, sha256
from lfm_policy.models.device import usable_device

Weights = Literal["ema", "raw"]
WEIGHTS, EMA, CHECKSUMS = "model.safetensors", "ema.safetensors", "checksums.json"
LARGEST_DESCRIPTION = 4 << 20
"""Largest size of a JSON file that describes a model [bytes]."""

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
            seal(temporary)

    def write(self, directory: Path) -> None:
        """Write the files of `save_pretrained` into an existing directory."""
        text = json.dumps(self.spec.model_dump(mode="json"), indent=2) + "\n"
        (directory / "config.json").write_text(text, encoding="utf-8")
        save_tensors(self.state_dict(), directory / WEIGHTS)

    @classmethod
    def networks(cls, *parts: Any, trust_code: bool) -> Mapping[str, nn.Module]:
        """Build the networks alone, with fresh weights, by their names in a model's state."""
        raise NotImplementedError

    @classmethod
    def made(
        cls: type[Model], parts: Sequence[Any], tensors: Mapping[str, Tensor], where: str, *, trust_code: bool
    ) -> Model:
        """Make the model from its descriptions, its weights still fresh; `tensors` hold whatever else it is made of."""
        raise NotImplementedError

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
        verify(directory, [*cls.descriptions, WEIGHTS, EMA])
        try:
            parts = [part.model_validate(read_small(directory / name)) for name, part in cls.descriptions.items()]
        except ValidationError as error:
            raise CheckpointError(f"{directory} holds no {cls.kind} that can be read: {error}") from None
        return cls.restored(parts, stored_tensors(directory, weights), str(directory), trust_code=trust_code).to(place)

    @classmethod
    def restored(
        cls: type[Model], parts: Sequence[Any], tensors: Mapping[str, Tensor], where: str, *, trust_code: bool
    ) -> Model:
        """Restore a model from its descriptions and tensors, which may come from anybody, in evaluation mode.

        Names, shapes and numbers are judged before any memory is taken for networks.

        Raises:
            CheckpointError: they do not fit each other, or hold numbers that are none.
            ConfigError: the networks are code from outside this package, or refuse their arguments.
        """
        with torch.device("meta"), few_modules(len(tensors), where):
            networks = cls.networks(*parts, trust_code=trust_code)
        expected = {
            f"{prefix}.{name}": tuple(value.shape)
            for prefix, network in networks.items()
            for name, value in network.state_dict().items()
        }
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name.startswith(tuple(networks))}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise CheckpointError(
                    f"the weights in {where} do not fit its config.json: {name[:200]} is of shape {found.get(name)}, "
                    f"expected {expected.get(name)}"
                )
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise CheckpointError(
                    f"{where} holds numbers that are not finite, the first in {name[:200]}: its training diverged, or "
                    "it was changed; use an earlier checkpoint, or another copy"
                )
            if name.endswith("normalizer.scale") and not tensor.all():
                raise CheckpointError(
                    f"{where}: {name}, by which samples are divided, has a scale of 0: it was changed; use another copy"
                )
        model = cls.made(parts, tensors, where, trust_code=trust_code)
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(f"the weights in {where} do not fit its config.json: {error}") from None
        return model.eval()


@contextmanager
def few_modules(tensors: int, where: str) -> Iterator[None]:
    """Stop the building of a network that has far more layers than there are stored tensors.

    Raises:
        CheckpointError: it has; building it all might take for ever.
    """
    limit, count, thread = 1000 + 20 * tensors, itertools.count(1), threading.get_ident()

    def registered(*_: Any) -> None:
        if threading.get_ident() == thread and next(count) > limit:
            raise CheckpointError(
                f"config.json of {where} asks for more than {limit} layers, and holds {tensors} tensors"
            )

    hooks = [
        torch.nn.modules.module.register_module_module_registration_hook(registered),
        torch.nn.modules.module.register_module_parameter_registration_hook(registered),
    ]
    try:
        yield
    except (RuntimeError, ArithmeticError, AssertionError, LookupError, MemoryError) as error:
        raise CheckpointError(f"config.json of {where} describes no network that can be built: {error}") from None
    finally:
        for hook in hooks:
            hook.remove()


def checkpoint_in(directory: str | Path) -> Path:
    """Return the checkpoint itself, given it or the folder of a run that holds one.

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


def stored_tensors(directory: Path, weights: Weights) -> dict[str, Tensor]:
    """Read a checkpoint's tensors: as trained, or with the moving average where there is one.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    state = read_tensors(directory / WEIGHTS)
    if weights == "ema" and (directory / EMA).exists():
        state |= read_tensors(directory / EMA)
    return state


def load_weights(module: nn.Module, directory: Path, weights: Weights) -> None:
    """Fill `module` from a checkpoint.

    Raises:
        CheckpointError: a file is missing, damaged, or made for another module.
    """
    try:
        module.load_state_dict(stored_tensors(directory, weights))
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {directory} do not fit its config.json: {error}") from None


def seal(directory: Path) -> None:
    """Write the SHA-256 of every file in a checkpoint beside them."""
    sums = {path.name: sha256(path) for path in sorted(directory.iterdir()) if path.name != CHECKSUMS}
    (directory / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")


def verify(directory: Path, names: Iterable[str]) -> None:
    """Check files of a checkpoint against the checksums beside them; those of before there were any have none.

    Raises:
        CheckpointError: one is damaged, missing, or unknown to them.
    """
    if not (directory / CHECKSUMS).exists():
        return
    sums = read_small(directory / CHECKSUMS)
    for name in names:
        try:
            found = sha256(directory / name) if (directory / name).exists() else None
        except OSError as error:
            raise CheckpointError(f"{directory / name} cannot be read: {error.strerror}") from None
        expected = sums.get(name) if isinstance(sums, dict) else ""
        if found != expected:
            raise CheckpointError(
                f"{directory / name} is damaged or was changed: expected SHA-256 {str(expected)[:12]}…, found "
                f"{str(found)[:12]}…; use another copy of the checkpoint, or train again"
            )


def read_small(path: Path) -> Any:
    """Read a JSON file that is no larger than descriptions are.

    Raises:
        CheckpointError: it is missing, larger, or no JSON.
    """
    try:
        require_regular(path)
        if path.stat().st_size > LARGEST_DESCRIPTION:
            raise CheckpointError(
                f"{path} has more than {LARGEST_DESCRIPTION} bytes: expected a description of a few; use another copy"
            )
        return read_json(path)
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, whatever their order in memory."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def digest(description: str, module: nn.Module) -> str:
    """Hash of all that decides what a model does: its description and its weights."""
    content = hashlib.sha256(description.encode())
    for name, tensor in sorted(module.state_dict().items()):
        content.update(name.encode())
        content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return content.hexdigest()[:16]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors. Raises CheckpointError where they are missing or damaged."""
    try:
        require_regular(path)
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is missing or damaged: {error}") from None
