"""The contract: everything that has to agree between data, checkpoint, environment and robot.

A policy trained under one contract and run under another trains and runs without an error and fails at the task.
So the contract is data: stored with every data set and checkpoint, compared on every load.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import model_validator

from lfm_policy.errors import ContractError
from lfm_policy.settings import Frozen


class ObservationKey(Frozen):
    """One entry of the observation vector: the name in the demonstration files and its width."""

    name: str
    dim: int


class ArmController(Frozen):
    """The operational-space controller of one arm, as robosuite 1.5 names its settings."""

    type: Literal["OSC_POSE"] = "OSC_POSE"
    frame: Literal["world", "base"] = "world"
    """Frame of delta and absolute commands (`input_ref_frame`)."""
    kp: float = 150.0
    damping_ratio: float = 1.0
    delta_position_m: float = 0.05
    """Displacement that a delta command of 1 asks for [m]."""
    delta_rotation_rad: float = 0.5
    """Rotation that a delta command of 1 asks for [rad]."""
    uncouple_pos_ori: bool = True


class Contract(Frozen):
    """What actions and observations mean. Actions are per arm; the gripper command is -1 open, +1 closed.

    `action_form` "absolute" with rotation "rot6d_rows" is position [m] 3, the first two rows of the rotation
    matrix 6, gripper 1: ten numbers an arm.
    """

    suite: str = "robosuite"
    suite_version: str
    environment: str
    robots: tuple[str, ...]
    control_hz: float = 20.0
    lite_physics: bool = True
    controllers: tuple[ArmController, ...]
    action_form: Literal["absolute", "delta"] = "absolute"
    rotation: Literal["rot6d_rows", "rot6d_columns", "axis_angle", "none"] = "rot6d_rows"
    action_dim: int
    observations: tuple[ObservationKey, ...]

    @model_validator(mode="after")
    def _check(self) -> "Contract":
        width = {"rot6d_rows": 10, "rot6d_columns": 10, "axis_angle": 7}.get(self.rotation)
        if width is not None and self.action_dim != width * len(self.controllers):
            raise ValueError(
                f"{len(self.controllers)} arm(s) with rotation '{self.rotation}' need action_dim "
                f"{width * len(self.controllers)}, found {self.action_dim}"
            )
        return self

    @property
    def observation_dim(self) -> int:
        """Width of one flattened observation."""
        return sum(key.dim for key in self.observations)

    def flatten(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Concatenate the observation's entries in the contract's order: float32 of shape (..., observation_dim).

        Raises:
            ContractError: an entry is missing or has another width.
        """
        parts = []
        for key in self.observations:
            if key.name not in observation:
                raise ContractError(
                    f"observation '{key.name}' is missing: expected {[k.name for k in self.observations]}, "
                    f"found {sorted(observation)}"
                )
            part = np.asarray(observation[key.name], dtype=np.float32)
            if part.shape[-1:] != (key.dim,):
                raise ContractError(f"observation '{key.name}': expected width {key.dim}, found shape {part.shape}")
            parts.append(part)
        return np.concatenate(parts, axis=-1)

    def differences(self, other: "Contract") -> list[tuple[str, object, object]]:
        """Fields that differ, as (field, ours, theirs)."""
        ours, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [(name, ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]]

    def require_match(self, other: "Contract", ours: str, theirs: str) -> None:
        """Raise ContractError naming every field in which `other` differs.

        Args:
            other: the contract to compare with.
            ours: what this contract belongs to, for the message ("checkpoint outputs/lift").
            theirs: what `other` belongs to ("environment Lift").
        """
        rows = [f"  {name}: {ours} has {a!r}, {theirs} has {b!r}" for name, a, b in self.differences(other)]
        if rows:
            raise ContractError(
                f"the contracts of {ours} and {theirs} differ, so actions or observations would be misread:\n"
                + "\n".join(rows)
            )
