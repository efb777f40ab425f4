"""The contract: everything that has to agree between data, checkpoint, environment and robot.

A policy trained under one contract and run under another trains and runs without an error and fails at the task.
So the contract is data: stored with every data set and checkpoint, compared on every load.

What an action is, the contract declares: poses of arms, the position of one point, joint positions, or a plain vector.
Whatever needs positions in space (anchored chunks, the workspace of the safety gate, rows of rotations) asks for that.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, StringConstraints, model_serializer, model_validator

from lfm_policy.errors import ContractError
from lfm_policy.settings import Frozen

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$")]
"""A name without line breaks, escapes and other control characters."""
Unit = Annotated[str, StringConstraints(max_length=40, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
Space = Literal["poses", "position", "joints", "vector"]
"""What the numbers of an action are: poses of arms (position, rotation, gripper each); the position of one point;
joint positions; or numbers that mean nothing in common."""
Score = Literal["largest_reward", "mean_reward", "final_reward"]

Drawing = Literal["coarse", "full"]
"""How a simulator draws: coarse leaves out fine meshes, reflections and shadows; full leaves out nothing."""

ARM_WIDTHS = {"rot6d_rows": 10, "rot6d_columns": 10, "axis_angle": 7}
"""Numbers per arm in an action of poses, by the form of the rotation."""
LARGEST_DIM = 100_000


class ObservationKey(Frozen):
    """One entry of the observation vector: the name in the demonstration files and its width."""

    name: Name
    dim: int = Field(ge=1, le=LARGEST_DIM)


class ActionNumber(Frozen):
    """One number of an action that is no pose."""

    name: Name
    unit: Unit = ""
    """As the robot takes it ("rad", "deg", "%", "m"); empty where it has none."""
    gripper: bool = False
    """It opens and closes a gripper: clipped to its range and not refused, and kept where the robot holds still."""


class Camera(Frozen):
    """One camera whose newest picture is part of the observation: uint8 (height, width, 3), RGB, first row on top."""

    name: Name
    """The simulator's or the robot's name of it ("agentview")."""
    height: int = Field(ge=1, le=LARGEST_DIM)
    width: int = Field(ge=1, le=LARGEST_DIM)
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
    """What actions and observations mean. Poses are per arm; their gripper command is -1 open, +1 closed.

    `action_form` "absolute" with rotation "rot6d_rows" is position [m] 3, the first two rows of the rotation
    matrix 6, gripper 1: ten numbers per arm. Actions without poses have rotation "none", no controllers, and `actions`
    that name their numbers.
    """

    suite: Name = "robosuite"
    suite_version: Name
    environment: Name
    robots: tuple[Name, ...]
    control_hz: float = Field(default=20.0, gt=0, le=10_000, allow_inf_nan=False)
    lite_physics: bool = True
    controllers: tuple[ArmController, ...] = ()
    action_form: Literal["absolute", "delta"] = "absolute"
    """absolute: repeating an action holds the robot still; delta (displacements, velocities, efforts): zeros do."""
    rotation: Literal["rot6d_rows", "rot6d_columns", "axis_angle", "none"] = "rot6d_rows"
    action_dim: int = Field(ge=1, le=LARGEST_DIM)
    observations: tuple[ObservationKey, ...] = Field(min_length=1)
    cameras: tuple[Camera, ...] = ()
    """Whose pictures are seen beside `observations`; all of one size."""
    space: Space = "poses"
    """Where it is not said, actions without a rotation are a position: so are contracts from before this was asked."""
    actions: tuple[ActionNumber, ...] = ()
    """The numbers of an action that is no pose, in order; empty: they have no names."""
    measured: Name | None = None
    """The observation that measures what the action commands, in its order and units ("observation.state")."""
    made_by: Name | None = None
    """What `lfm_envs.make` makes the environment from; an address, and so never compared."""
    score: Score | None = None
    """The reward that the task is judged by, beside success; never compared."""
    modes: tuple[Name, ...] = ()
    """Ways in which the demonstrations do the task, between which the environment tells; never compared."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Declare what older contracts leave to be understood."""
        if not isinstance(values, Mapping):
            return values
        values = dict(values)
        space = values.get("space")
        if space in ("position", "joints", "vector"):
            values.setdefault("rotation", "none")
        if space is None:
            values["space"] = "position" if values.get("rotation") == "none" else "poses"
        return values

    @model_validator(mode="after")
    def _check(self) -> "Contract":
        self._check_names()
        width = ARM_WIDTHS.get(self.rotation)
        if self.poses != (width is not None):
            raise ValueError(f"space '{self.space}' does not go with rotation '{self.rotation}'")
        if width is None and self.controllers:
            raise ValueError(f"controllers command poses, found {len(self.controllers)} with space '{self.space}'")
        if width is not None and self.action_dim != width * len(self.controllers):
            raise ValueError(
                f"{len(self.controllers)} arm(s) with rotation '{self.rotation}' need action_dim "
                f"{width * len(self.controllers)}, found {self.action_dim}"
            )
        if self.actions and (self.poses or len(self.actions) != self.action_dim):
            raise ValueError(f"{len(self.actions)} names of numbers for {self.action_dim} numbers of '{self.space}'")
        sizes = {(camera.height, camera.width) for camera in self.cameras}
        if len(sizes) > 1 or len({camera.name for camera in self.cameras}) < len(self.cameras):
            raise ValueError(f"cameras need one size and different names, found {[dict(c) for c in self.cameras]}")
        widths = {key.name: key.dim for key in self.observations}
        if self.measured is not None and widths.get(self.measured) != self.action_dim:
            raise ValueError(
                f"measured must name an observation of width {self.action_dim}, found '{self.measured}' among {widths}"
            )
        return self

    def _check_names(self) -> None:
        for what, names in (("observations", self.observations), ("actions", self.actions)):
            twice = [name for name, count in Counter(entry.name for entry in names).items() if count > 1]
            if twice:
                raise ValueError(f"{what} need names of their own, found twice: {twice}")

    @model_serializer(mode="wrap")
    def _plain(self, write: Any) -> dict[str, Any]:
        """Leave out what older contracts had no word for, where it says nothing new: their files stay as they are."""
        values = write(self)
        understood = {"space": "poses" if self.rotation != "none" else "position"}
        for name in ("cameras", "space", "actions", "measured", "made_by", "score", "modes"):
            if name in values and values[name] in (understood.get(name), (), []):
                del values[name]
        return values

    @property
    def poses(self) -> bool:
        """Whether actions are poses of arms."""
        return self.space == "poses"

    @property
    def arms(self) -> int:
        """Arms whose poses an action holds; 0 without poses."""
        return len(self.controllers)

    @property
    def arm_width(self) -> int:
        """Numbers per arm in an action of poses."""
        return ARM_WIDTHS[self.rotation]

    @property
    def unit(self) -> str:
        """Unit of the commanded motion; empty where it has none, or several."""
        if self.space in ("poses", "position") and not self.actions:
            return "m"
        units = {number.unit for number in self.actions if not number.gripper}
        return units.pop() if len(units) == 1 else ""

    @property
    def grippers(self) -> list[int]:
        """Columns of an action that command grippers."""
        if self.poses:
            return list(range(self.arm_width - 1, self.action_dim, self.arm_width))
        return [column for column, number in enumerate(self.actions) if number.gripper]

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

    @property
    def columns(self) -> dict[str, slice]:
        """Where each entry is in a flattened observation."""
        ends = accumulate(key.dim for key in self.observations)
        return {key.name: slice(end - key.dim, end) for key, end in zip(self.observations, ends, strict=True)}

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
        """List the fields that differ, as (field, ours, theirs); where an environment is found is none of them."""
        ours, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        names = [name for name in type(self).model_fields if name not in ("made_by", "score", "modes")]
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
