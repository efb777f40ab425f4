"""Whose numbers are whose: the features of a LeRobot data set, and the entries of a contract.

`observation.state` holds what the robot measures of itself, `observation.environment_state` the objects, as in
lerobot-policy-robomimic; a contract's entry that is called as a feature of LeRobot ("observation.velocity") is one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from lfm_policy.contract import ActionNumber, Camera, Contract, Drawing, ObservationKey, Space
from lfm_policy.data.demos.recording import Recording
from lfm_policy.data.lerobot.info import ACTION, ENV_STATE, OBSERVATION, PICTURES, STATE, Feature, Info
from lfm_policy.errors import ContractError, DataError

OBJECT = "object"
"""The entry of robomimic's observations that holds the objects' poses."""
SURROUNDINGS = (OBJECT, "environment_state")
"""Entries of what is not the robot's own: robomimic's, and that of environments which LeRobot knows."""
MOTOR = ".pos"
"""Ends the names of the numbers of LeRobot's own arms ("shoulder_pan.pos")."""
_NUMBERED = re.compile(r"(?P<name>.+)\.(?P<number>\d+)")
_UNIT = re.compile(r"(?P<name>.+?)\s*[\[(](?P<unit>[^\])]+)[\])]")
_POSE = {
    "rot6d_rows": ("pos.x", "pos.y", "pos.z", *(f"row{row}.{axis}" for row in (1, 2) for axis in "xyz"), "gripper"),
    "rot6d_columns": ("pos.x", "pos.y", "pos.z", *(f"column{c}.{axis}" for c in (1, 2) for axis in "xyz"), "gripper"),
    "axis_angle": ("pos.x", "pos.y", "pos.z", "rot.x", "rot.y", "rot.z", "gripper"),
}


@dataclass(frozen=True)
class Meaning:
    """What a user says of a data set that does not say it itself."""

    space: Space | None = None
    """What actions are; None: joints if their names end in .pos, as those of LeRobot's arms, else a vector."""
    unit: tuple[str, ...] | None = None
    """Of the numbers of an action that name none: one unit for all but grippers, or one for each number."""
    contract: Contract | None = None
    """That of the environment or robot that the data are of; then nothing else is asked."""


def feature_of(key: ObservationKey) -> str:
    """Return the feature that holds an entry of an observation."""
    if key.name.startswith(OBSERVATION):
        return key.name
    return ENV_STATE if key.name in SURROUNDINGS else STATE


def vectors_of(contract: Contract) -> dict[str, tuple[ObservationKey, ...]]:
    """Return the features of a contract's observation, each with its entries in order."""
    found: dict[str, tuple[ObservationKey, ...]] = {}
    for key in contract.observations:
        found[feature_of(key)] = (*found.get(feature_of(key), ()), key)
    return found


def columns_of(contract: Contract) -> dict[str, list[int]]:
    """Return the columns of a flattened observation that each feature holds, in the feature's order."""
    places = contract.columns
    return {
        feature: [column for key in keys for column in range(places[key.name].start, places[key.name].stop)]
        for feature, keys in vectors_of(contract).items()
    }


def cameras_of(info: Info) -> dict[str, tuple[int, int]]:
    """Return the cameras by name, with height and width; depth maps are none."""
    return {
        camera_name(key): feature.size
        for key, feature in info.pictures.items()
        if len(feature.shape) == 3 and 3 in feature.shape and not _is_depth(feature)
    }


def camera_name(key: str) -> str:
    """Return the camera's name in a contract: "top" of "observation.images.top"."""
    return key.removeprefix(PICTURES).removeprefix(OBSERVATION)


def features_of(contract: Contract, video: bool) -> dict[str, dict[str, Any]]:
    """Return the features of a data set under this contract, as info.json holds them.

    Raises:
        ContractError: a name cannot be one of LeRobot's.
    """
    features: dict[str, dict[str, Any]] = {}
    for feature, keys in vectors_of(contract).items():
        names = [f"{key.name}.{number}" for key in keys for number in range(key.dim)]
        if feature == contract.measured and contract.actions:
            names = [number.name for number in contract.actions]
        features[feature] = {"dtype": "float32", "shape": [len(names)], "names": names}
    for camera in contract.cameras:
        features[f"{PICTURES}{camera.name}"] = {
            "dtype": "video" if video else "image",
            "shape": [camera.height, camera.width, camera.channels],
            "names": ["height", "width", "channels"],
        }
    features[ACTION] = {"dtype": "float32", "shape": [contract.action_dim], "names": action_names(contract)}
    if bad := [name for name in features if "/" in name]:
        raise ContractError(f"LeRobot's features have no / in their names, found {bad}: rename them in the contract")
    return features


def action_names(contract: Contract) -> list[str] | None:
    """Name the numbers of an action; None if they have no names."""
    if contract.poses:
        return [f"arm{arm}.{name}" for arm in range(contract.arms) for name in _POSE[contract.rotation]]
    return [number.name for number in contract.actions] or None


def contract_of(info: Info, name: str, meaning: Meaning, recording: Recording | None) -> tuple[Contract, list[str]]:
    """Describe a data set by its features; cameras are left to the caller.

    Args:
        info: its info.json.
        name: of the data set.
        meaning: what the user says of it.
        recording: the simulator's settings, of robomimic's data.

    Returns:
        The contract, and what was passed over.

    Raises:
        DataError: the features are not those of a robot's data.
    """
    action, keys, notes = info.features[ACTION], [], []
    if not action.is_vector:
        raise DataError(f"{name}: expected actions of one row of numbers, found {action.dtype} {list(action.shape)}")
    for key, feature in info.features.items():
        if key.startswith(OBSERVATION) and feature.is_vector:
            keys += _entries(key, feature, recording)
        elif key.startswith(OBSERVATION) and not feature.is_picture:
            notes.append(f"{key} passed over: {feature.dtype} {list(feature.shape)} is no row of numbers")
    if not keys:
        raise DataError(f"{name}: expected a feature {STATE}, found {sorted(info.features)}")
    state, numbers = info.features.get(STATE), _numbers(action, meaning)
    same = state is not None and action.labels is not None and state.labels == action.labels
    values: dict[str, Any] = {
        "suite": "lerobot",
        "suite_version": info.codebase_version,
        "environment": name,
        "robots": (info.robot_type,) if info.robot_type else (),
        "control_hz": info.fps,
        "action_dim": action.shape[0],
        "observations": keys,
        "space": meaning.space or _space(action),
        "actions": numbers,
        "measured": STATE if same and any(key.name == STATE for key in keys) else None,
    }
    if recording is not None:
        values |= {"suite": "robosuite", "suite_version": recording.suite_version, "robots": recording.robots}
        values |= {"environment": recording.environment, "action_form": recording.forms[0]}
    return Contract(**values), notes


def _entries(key: str, feature: Feature, recording: Recording | None) -> list[ObservationKey]:
    """Return the contract's entries of a feature: as its names "robot0_eef_pos.0", … say, or one of all its numbers."""
    if key == ENV_STATE and recording is not None:
        return [ObservationKey(name=OBJECT, dim=feature.shape[0])]
    matches = [_NUMBERED.fullmatch(label) for label in feature.labels or ()]
    if matches and all(matches):
        parts = [(match["name"], int(match["number"])) for match in matches if match]
        groups = [(name, [number for _, number in rows]) for name, rows in groupby(parts, lambda part: part[0])]
        if len({name for name, _ in groups}) == len(groups) and all(n == list(range(len(n))) for _, n in groups):
            found = [ObservationKey(name=name, dim=len(numbers)) for name, numbers in groups]
            if all(feature_of(entry) == key for entry in found):
                return found
    return [ObservationKey(name=key, dim=feature.shape[0])]


def _numbers(action: Feature, meaning: Meaning) -> tuple[ActionNumber, ...]:
    """Name the numbers of an action, with units: of the name ("pan [deg]"), of info.json, or what the user says.

    Raises:
        DataError: the user gives a unit for each number, and there are more or fewer.
    """
    labels, given, extra = action.labels or (), meaning.unit or (), action.model_extra or {}
    if len(given) not in (0, 1, action.shape[0]):
        raise DataError(f"unit= has {len(given)} units for {action.shape[0]} numbers of an action: {labels}")
    said = extra.get("units", extra.get("unit", given))
    units = [str(unit) for unit in (said if isinstance(said, list | tuple) else [said])]
    found = []
    for column, label in enumerate(labels):
        inside, gripper = _UNIT.fullmatch(label), _is_gripper(label)
        unit = units[0] if len(units) == 1 else ""
        if len(units) == len(labels):
            unit = units[column]
        elif gripper:
            unit = _gripper_unit(label)
        found.append(ActionNumber(name=label, unit=inside["unit"] if inside else unit, gripper=gripper))
    return tuple(found)


def _is_gripper(label: str) -> bool:
    return "gripper" in label.lower()


def _gripper_unit(label: str) -> str:
    """Return the unit of a gripper of which nobody says one: LeRobot's arms have theirs from 0 to 100."""
    return "%" if label.endswith(MOTOR) else ""


def _space(action: Feature) -> Space:
    labels = action.labels or ("",)
    return "joints" if all(label.endswith(MOTOR) or _is_gripper(label) for label in labels) else "vector"


def _is_depth(feature: Feature) -> bool:
    said: Any = (feature.model_extra or {}).get("info") or {}
    return bool(isinstance(said, Mapping) and (said.get("is_depth_map") or said.get("video.is_depth_map")))


def see(
    contract: Contract, cameras: Mapping[str, tuple[int, int]], chosen: Sequence[str] | None, size: int | None
) -> Contract:
    """Return the contract of a policy that sees pictures in place of the objects' poses.

    Args:
        contract: of all that is there.
        cameras: height and width of each camera's pictures.
        chosen: cameras, in this order; None: all.
        size: side of the pictures that the policy gets [pixels]; None: as they are.

    Raises:
        DataError: there is no such camera, or their pictures are not of one size.
    """
    names = list(cameras) if chosen is None else chosen
    if missing := [name for name in names if name not in cameras] or not names:
        raise DataError(f"no pictures of {missing or 'any camera'}: found {sorted(cameras)}; leave out cameras=")
    sizes = {name: cameras[name] if size is None else (size, size) for name in names}
    if len(set(sizes.values())) > 1:
        raise DataError(f"expected pictures of one size, found {sizes}: choose cameras=, or give image_size=")
    drawn: dict[str, Drawing] = {camera.name: camera.drawing for camera in contract.cameras}
    seen = tuple(
        Camera(name=name, height=height, width=width, drawing=drawn.get(name, "full"))
        for name, (height, width) in sizes.items()
    )
    kept = tuple(key for key in contract.observations if feature_of(key) != ENV_STATE)
    if not kept:
        raise DataError(f"beside pictures there is nothing to observe: expected a feature {STATE}")
    return Contract.model_validate(dict(contract) | {"observations": kept, "cameras": seen})
