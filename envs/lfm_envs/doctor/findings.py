"""What is wrong with a contract or a checkpoint, as findings that say what to do."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from lfm_policy.actions.poses import hand_columns, position_columns
from lfm_policy.contract import Contract, ObservationKey
from lfm_policy.errors import CheckpointError
from lfm_policy.files import read_json
from lfm_policy.models.pretrained import checkpoint_in, stored_tensors

Trap = Literal[
    "frame",
    "control_delta",
    "mixed arms",
    "action form",
    "rotation",
    "normaliser",
    "observation keys",
    "control frequency",
    "controller",
    "version",
    "environment",
    "replay",
    "pictures",
]

BEYOND = 1.5
"""Normalised action positions of the training data lie within ±1; new episodes reach a little further."""
FAR = 5.0
"""Typical size of normalised observations, or ways from the hand, that the normaliser was not fitted on."""


@dataclass(frozen=True)
class Finding:
    """One thing that breaks results, usually without an error."""

    trap: Trap
    what: str
    fix: str

    def as_json(self) -> dict[str, str]:
        """Return the same as plain values."""
        return asdict(self)


def compare_contracts(ours: Contract, theirs: Contract, our_name: str, their_name: str) -> list[Finding]:
    """Return a finding for each field in which the two differ; `theirs` is the side to be brought in line.

    Args:
        ours: what is taken as right.
        theirs: what is examined.
        our_name: what `ours` belongs to, for messages ("robosuite here").
        their_name: what `theirs` belongs to.
    """
    again = f"bring {their_name} in line: collect or prepare the data again with this version, and train on it"
    findings = []
    for name, a, b in ours.differences(theirs):
        trap, fix = _FIELDS.get(name, ("environment", again))
        if name == "observations":
            found = _keys_differ(ours.observations, theirs.observations)
            what = f"{their_name} {found}: expected {_keys(ours)}, found {_keys(theirs)}"
        elif name == "controllers":
            rows = list(_controllers_differ(ours, theirs))
            trap = "frame" if any(row.startswith("frame") for row in rows) else trap
            what = f"controllers differ: {'; '.join(f'{row} in {their_name}' for row in rows)}"
        else:
            what = f"{name} is {b!r} in {their_name} and {a!r} in {our_name}"
        findings.append(Finding(trap, what, fix or again))
    return findings


_FIELDS: Mapping[str, tuple[Trap, str]] = {
    "observations": ("observation keys", ""),
    "rotation": (
        "rotation",
        "use the first two rows of the matrix everywhere (rot6d_rows): prepare the data again with lfm prepare "
        "and train on it; columns read as rows turn the hand the wrong way wherever it is tilted",
    ),
    "action_form": ("action form", ""),
    "action_dim": ("action form", ""),
    "control_hz": (
        "control frequency",
        "run the policy at the frequency of its data: a chunk made for another one moves too fast or too slowly",
    ),
    "controllers": ("controller", ""),
    "suite_version": (
        "version",
        "install the version that the data were made with, or make the data again with the one that is installed",
    ),
}


def examine_checkpoint(
    directory: str | Path, contract: Contract, observation: np.ndarray, action: np.ndarray
) -> tuple[list[Finding], dict[str, Any]]:
    """Hold a checkpoint's contract and normalisers against data.

    Args:
        directory: the checkpoint, or the folder of a run that holds one.
        contract: what the data mean.
        observation: (S, D) of the data, in the contract's order.
        action: (S, A) of the data, absolute.

    Returns:
        Findings, and the normalisers' ranges as JSON.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    directory = checkpoint_in(directory)
    try:
        theirs = Contract.model_validate(read_json(directory / "contract.json"))
    except (ValidationError, json.JSONDecodeError, FileNotFoundError) as error:
        raise CheckpointError(f"{directory} holds no contract that can be read: {error}") from None
    findings = compare_contracts(contract, theirs, "the data", "the checkpoint")
    tensors = _normalizers(directory)
    ranges: dict[str, Any] = {"directory": str(directory)}
    columns = position_columns(contract)
    for name, values, limit in (("observation", observation, FAR), ("action", action[:, columns], BEYOND)):
        scale, offset = (tensors.get(f"{name}_normalizer.{part}") for part in ("scale", "offset"))
        lost = _lost(name, scale, offset, tensors.get(f"{name}_normalizer.fitted"))
        if lost is not None:
            findings.append(lost)
            continue
        assert scale is not None
        assert offset is not None
        if name == "action":
            scale, offset = scale[..., columns], offset[..., columns]
        ranges[name] = _range(scale, offset)
        if any(finding.trap == "observation keys" for finding in findings):
            continue
        if scale.ndim == 2:
            now = read_json(directory / "config.json")["observation_steps"] - 1
            hands = [hand for hand, _ in hand_columns(contract)]
            findings += _misfit(name, (values - observation[:, hands]) * scale[now] + offset[now], FAR, np.median)
        elif len(scale) == values.shape[1]:
            typical = np.max if name == "action" else np.median
            findings += _misfit(name, values * scale + offset, limit, typical)
    return findings, ranges


def _range(scale: np.ndarray, offset: np.ndarray) -> dict[str, list[float]]:
    """Return what a normaliser maps to [-1, 1]; of anchored chunks, whose steps have one each, the range over all."""
    low, high = np.sort([(-1 - offset) / scale, (1 - offset) / scale], axis=0)
    return {"low": np.atleast_2d(low).min(0).tolist(), "high": np.atleast_2d(high).max(0).tolist()}


def _normalizers(directory: Path) -> dict[str, np.ndarray]:
    """Return the normalisers' tensors as loading would put them together: the moving average's take precedence."""
    return {key: value.numpy() for key, value in stored_tensors(directory, "ema").items() if "_normalizer." in key}


def _lost(name: str, scale: np.ndarray | None, offset: np.ndarray | None, fitted: np.ndarray | None) -> Finding | None:
    """Return a finding if the normaliser is absent, was never fitted, or does nothing."""
    if scale is None or offset is None or fitted is None:
        what = f"the checkpoint lacks the {name} normaliser"
    elif not bool(fitted):
        what = f"the checkpoint's {name} normaliser was never fitted"
    elif np.all(scale == 1) and np.all(offset == 0):
        what = f"the checkpoint's {name} normaliser is the identity"
    else:
        return None
    fix = (
        "its statistics were lost, and a policy run like this hardly moves: take model.safetensors as training wrote "
        "it, or train again; do not save or load parts of the state by hand"
    )
    return Finding("normaliser", what, fix)


def _misfit(name: str, normalised: np.ndarray, limit: float, typical: Callable[..., np.ndarray]) -> Iterator[Finding]:
    """Return a finding if the data lie outside what the normaliser was fitted on."""
    size = typical(np.abs(normalised), axis=0)
    if size.max() > limit:
        column = int(size.argmax())
        yield Finding(
            "normaliser",
            f"the {name}s of the data do not fit the checkpoint's normaliser: number {column} of them comes to "
            f"{size[column]:.1f} where at most about 1 is expected",
            "the checkpoint was trained on other data, in another frame or another task: train on these data, or give "
            "the file that it was trained on",
        )


def _keys(contract: Contract) -> str:
    return ", ".join(f"{key.name} {key.dim}" for key in contract.observations)


def _keys_differ(ours: tuple[ObservationKey, ...], theirs: tuple[ObservationKey, ...]) -> str:
    names, others = ({key.name: key.dim for key in keys} for keys in (ours, theirs))
    if names == others:
        return "has the observation keys in another order"
    if names.keys() == others.keys():
        return f"has other widths of {[name for name in names if names[name] != others[name]]}"
    return f"lacks {sorted(names.keys() - others.keys())} and has {sorted(others.keys() - names.keys())} instead"


def _controllers_differ(ours: Contract, theirs: Contract) -> Iterator[str]:
    """Yield "frame of arm 1 is 'base', expected 'world'" and the like, the frame first."""
    if len(ours.controllers) != len(theirs.controllers):
        yield f"{len(theirs.controllers)} arms, expected {len(ours.controllers)}"
    for arm, (a, b) in enumerate(zip(ours.controllers, theirs.controllers, strict=False)):
        expected, found = a.model_dump(), b.model_dump()
        for name in sorted(expected, key=lambda name: name != "frame"):
            if expected[name] != found[name]:
                yield f"{name} of arm {arm} is {found[name]!r}, expected {expected[name]!r}"
