"""A bundle: one directory that holds all a deployment needs of a policy, checked file by file when it is read.

    config.json             horizons, solver, network, network evaluations, number format of the weights
    contract.json           what observations and actions mean
    normalizer.json         scale and offset of observations and actions
    model.safetensors       the weights of all blocks: float32, float16 or bfloat16
    sampler.PRECISION.onnx  the whole sampler as one graph, for `runner.OnnxPolicy` (none, one or several)
    checksums.json          SHA-256 of each of them
    README.md               the card: what it is, what was measured, how to use it

Reading needs neither torch nor Hydra, and nothing in a bundle is code or a pickle.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import Field, model_validator

import lfm_pretrained
from lfm_policy.contract import Contract
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.files import read_json, require_regular, sha256
from lfm_policy.models.spec import PolicySpec
from lfm_policy.settings import Frozen, parse

CONFIG, CONTRACT, NORMALIZER, WEIGHTS = "config.json", "contract.json", "normalizer.json", "model.safetensors"
CHECKSUMS, CARD = "checksums.json", "README.md"
PARTS = (CONFIG, CONTRACT, NORMALIZER, WEIGHTS)
"""Files that every bundle has beside its checksums."""

PRETRAINED = lfm_pretrained.FOLDER
"""Bundles that are installed with the package; `read("lift")` finds them by name."""

Dtype = Literal["float32", "float16", "bfloat16"]
Precision = Literal["float32"]
"""What a graph computes in; its weights are those of model.safetensors, in their number format."""

LARGEST = 16 << 20
"""Largest size of a JSON file [bytes]."""

Model = TypeVar("Model", bound=Frozen)


class BundleConfig(Frozen):
    """The content of config.json."""

    format: Literal["lfm-bundle/2"] = "lfm-bundle/2"
    dtype: Dtype
    """Number format of the weights in model.safetensors."""
    nfe: int = Field(ge=1, le=10**7)
    """Network evaluations spent on a chunk by the graphs, and by the torch policy unless its solver is adaptive."""
    policy: PolicySpec
    """Horizons, chain and what else shapes it."""

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, values: Any) -> Any:
        """Take the first format, where horizons and chain lay side by side."""
        if not isinstance(values, dict) or values.get("format") != "lfm-bundle/1":
            return values
        own = {key: value for key, value in values.items() if key in ("dtype", "nfe")}
        rest = {key: value for key, value in values.items() if key not in ("format", "chain", *own)}
        chain = values.get("chain")
        if not isinstance(chain, dict):
            raise ValueError(f"'chain' should be a JSON object, found {type(chain).__name__}")
        return own | {"format": "lfm-bundle/2", "policy": {"format": "lfm-policy/1"} | rest | chain}


SMALLEST = 1e-30
"""Scale of a normaliser; float32 knows no smaller ones."""


class Affine(Frozen):
    """x_normalised = x * scale + offset per dimension, or per step and dimension, one step after the other."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @model_validator(mode="after")
    def _check(self) -> "Affine":
        if len(self.scale) != len(self.offset):
            raise ValueError(f"{len(self.scale)} scales and {len(self.offset)} offsets")
        sizes = [abs(value) for value in self.scale]
        if not all(SMALLEST <= size <= 1 / SMALLEST for size in sizes) or not all(map(math.isfinite, self.offset)):
            raise ValueError(f"scales must be finite and not 0 (in size at least {SMALLEST}), offsets finite")
        return self


class Normalizer(Frozen):
    """The content of normalizer.json."""

    observation: Affine
    action: Affine


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and found whole; the weights stay on disk."""

    directory: Path
    config: BundleConfig
    contract: Contract
    normalizer: Normalizer
    checksums: dict[str, str]

    def graph(self, precision: str) -> Path:
        """Return the file of one of the graphs.

        Raises:
            CheckpointError: the bundle has no such graph.
        """
        name = graph_name(precision)
        if name not in self.checksums:
            raise CheckpointError(
                f"{self.directory} holds no {name}, found {self.graphs or 'no graph at all'}: "
                f"export it with lfm export onnx=[{precision}]"
            )
        return self.directory / name

    @property
    def graphs(self) -> list[str]:
        """Precisions of the graphs it holds, the most exact first."""
        return [precision for precision in get_args(Precision) if graph_name(precision) in self.checksums]

    def digest(self, *forms: str) -> str:
        """Hash of all that decides what the policy does, and of the form it runs in."""
        return hashlib.sha256(json.dumps([self.checksums, forms], sort_keys=True).encode()).hexdigest()[:16]


def graph_name(precision: str) -> str:
    """Return the file name of the graph of a precision."""
    return f"sampler.{precision}.onnx"


def is_bundle(directory: str | Path) -> bool:
    """Say whether a directory, or the pretrained bundle of that name, claims to be a bundle."""
    return any((candidate / CHECKSUMS).exists() and _has_normalizer(candidate) for candidate in _candidates(directory))


def _has_normalizer(directory: Path) -> bool:
    """Say whether the folder has a file that bundles have and checkpoints have not, or its checksums say so."""
    if (directory / NORMALIZER).exists():
        return True
    sums = _json(directory / CHECKSUMS)
    return isinstance(sums, dict) and NORMALIZER in sums


def read(bundle: str | Path, expected: Contract | None = None) -> Bundle:
    """Read a bundle and check every file in it.

    Args:
        bundle: its directory, or the name of one in lfm_pretrained.
        expected: the contract of the environment or robot it is meant for.

    Raises:
        CheckpointError: something is missing, damaged, unknown, or does not fit the rest.
        ContractError: it was trained under another contract than `expected`.
    """
    directory = _locate(bundle)
    checksums = _verify(directory)
    found = Bundle(
        directory,
        _parse(BundleConfig, directory / CONFIG),
        _parse(Contract, directory / CONTRACT),
        _parse(Normalizer, directory / NORMALIZER),
        checksums,
    )
    _require_consistent(found)
    if expected is not None:
        found.contract.require_match(expected, f"bundle {directory}", "the robot")
    return found


def contract_in(directory: Path) -> Contract | None:
    """Read the contract of a bundle, or of a checkpoint or the run that holds one, and nothing else of it.

    Returns:
        It, unchecked against the rest; None where there is no contract.json.

    Raises:
        CheckpointError: it cannot be read.
    """
    places = (directory / CONTRACT, directory / "checkpoint" / CONTRACT)
    found = next((path for path in places if path.is_file()), None)
    return None if found is None else _parse(Contract, found)


def _candidates(bundle: str | Path) -> list[Path]:
    """Return the folder itself; where there is none, the pretrained bundle of that name."""
    path = Path(bundle)
    return [PRETRAINED / path] if path.name == str(bundle) and not path.exists() else [path]


def _locate(bundle: str | Path) -> Path:
    for candidate in _candidates(bundle):
        if (candidate / CHECKSUMS).exists():
            return candidate
    known = sorted(path.parent.name for path in PRETRAINED.glob(f"*/{CHECKSUMS}"))
    raise CheckpointError(
        f"no bundle in {bundle}: expected a directory with {CHECKSUMS}; make one with lfm export"
        + (f", or name one of {known}" if known else "")
    )


def _verify(directory: Path) -> dict[str, str]:
    checksums = _json(directory / CHECKSUMS)
    if not isinstance(checksums, dict) or not all(isinstance(value, str) for value in checksums.values()):
        raise CheckpointError(f"{directory / CHECKSUMS} is damaged: expected file names and their SHA-256")
    strangers = sorted(name[:80] for name in checksums if Path(name).name != name or len(name) > 200)
    if strangers:
        raise CheckpointError(f"{directory / CHECKSUMS} lists {strangers}: expected names of files beside it")
    for name in dict.fromkeys((*PARTS, *checksums)):
        path = directory / name
        if name not in checksums or not path.is_file():
            where = "in the directory" if name in checksums else f"in {CHECKSUMS}"
            raise CheckpointError(f"{directory} is incomplete: {name} is missing {where}; copy or export it again")
        try:
            found = sha256(path)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
        if found != checksums[name]:
            raise CheckpointError(
                f"{path} is damaged or was changed: expected SHA-256 {checksums[name][:12]}…, "
                f"found {found[:12]}…; copy or export the bundle again"
            )
    return checksums


def _json(path: Path) -> Any:
    try:
        require_regular(path)
        if path.stat().st_size > LARGEST:
            raise CheckpointError(
                f"{path} has more than {LARGEST} bytes: expected a description of a few; use another copy"
            )
        return read_json(path)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None


def _parse(model: type[Model], path: Path) -> Model:
    values = _json(path)
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is damaged: expected a JSON object, found {type(values).__name__}")
    try:
        return parse(model, values, str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def _require_consistent(found: Bundle) -> None:
    config, contract = found.config, found.contract
    steps = config.policy.horizon if config.policy.anchored else 1
    for name, affine, width in (
        ("observation", found.normalizer.observation, contract.observation_dim),
        ("action", found.normalizer.action, steps * contract.action_dim),
    ):
        if len(affine.scale) != width:
            raise CheckpointError(
                f"{found.directory}: the {name} normaliser has width {len(affine.scale)}, the contract's {name} {width}"
            )
