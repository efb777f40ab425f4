"""The contract: everything that has to agree between data, checkpoint, environment and robot.

A policy trained under one contract and run under another trains and runs without an error and fails at the task.
So the contract is data: stored with every data set and checkpoint, compared on every load.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_serializer, model_validator

from lfm_policy.errors import ContractError
from lfm_policy.settings import Frozen

Drawing = Literal["coarse", "full"]
"""How a simulator draws: coarse leaves out fine meshes, reflections and shadows; full leaves out nothing."""


class ObservationKey(Frozen):
    """One entry of the observation vector: the name in the demonstration files and its width."""

    name: str
    dim: int


class Camera(Frozen):
    """One camera whose newest picture is part of the observation: uint8 (height, width, 3), RGB, first row on top."""

    name: str
    """The simulator's or the robot's name of it ("agentview")."""
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    channels: Literal[3] = 3
    drawing: Drawing = "coarse"
    """How it was made; a policy that knows one sort of pictures fails on another."""

    @property
    def key(self) -> str:
        """Name of its pictures in observations and in demonstration files, as robomimic's."""
        return f"{self.name}_image"


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
    cameras: tuple[Camera, ...] = ()
    """Whose pictures are seen beside `observations`; all of one size."""

    @model_validator(mode="after")
    def _check(self) -> "Contract":
        width = {"rot6d_rows": 10, "rot6d_columns": 10, "axis_angle": 7}.get(self.rotation)
        if width is not None and self.action_dim != width * len(self.controllers):
            raise ValueError(
                f"{len(self.controllers)} arm(s) with rotation '{self.rotation}' need action_dim "
                f"{width * len(self.controllers)}, found {self.action_dim}"
            )
        sizes = {(camera.height, camera.width) for camera in self.cameras}
        if len(sizes) > 1 or len({camera.name for camera in self.cameras}) < len(self.cameras):
            raise ValueError(f"cameras need one size and different names, found {[dict(c) for c in self.cameras]}")
        return self

    @model_serializer(mode="wrap")
    def _plain(self, write: Any) -> dict[str, Any]:
        """Leave out what contracts without it do not say, so that their files and digests stay as they are."""
        values = write(self)
        if not values.get("cameras", True):
            del values["cameras"]
        return values

    @property
    def frames_shape(self) -> tuple[int, int, int, int] | None:
        """Shape (cameras, height, width, 3) of the pictures at one time; None without cameras."""
        if not self.cameras:
            return None
        return len(self.cameras), self.cameras[0].height, self.cameras[0].width, self.cameras[0].channels

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

    def stack(self, pictures: Mapping[str, np.ndarray]) -> np.ndarray:
        """Put the cameras' pictures together in the contract's order: uint8 (..., cameras, height, width, 3).

        Args:
            pictures: by `Camera.key`, uint8 (..., height, width, 3).

        Raises:
            ContractError: one is missing, or has another size, order of axes or type.
        """
        parts = []
        for camera in self.cameras:
            if camera.key not in pictures:
                raise ContractError(
                    f"picture '{camera.key}' is missing: expected {[c.key for c in self.cameras]}, "
                    f"found {sorted(pictures)}"
                )
            picture, shape = np.asarray(pictures[camera.key]), (camera.height, camera.width, camera.channels)
            if picture.dtype != np.uint8 or picture.shape[-3:] != shape:
                raise ContractError(
                    f"picture '{camera.key}': expected uint8 (height, width, 3) {shape}, "
                    f"found {picture.dtype} {picture.shape}"
                )
            parts.append(picture)
        return np.stack(parts, axis=-4)

    def differences(self, other: "Contract") -> list[tuple[str, object, object]]:
        """Fields that differ, as (field, ours, theirs)."""
        ours, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        names = dict.fromkeys((*ours, *theirs))
        return [(name, ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)]

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
