"""How a demonstration file was recorded, read from its JSON metadata in any of the forms that robosuite's eras left.

robomimic's `env_args` holds robosuite's keyword arguments; raw robosuite collections keep the same in `env_info`.
Up to robosuite 1.4 the controller is one flat table whose commands are in the world frame; since 1.5 it is a table
of body parts, each with its own `input_type` and `input_ref_frame` (the robot's base unless it says so). robosuite 1.5
still takes the flat table and reads it like one of its own, in the base frame and without `control_delta`.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

from lfm_policy.contract import ArmController, Contract
from lfm_policy.errors import DataError, shown
from lfm_policy.settings import Frozen

Form = Literal["delta", "absolute"]


class Recording(Frozen):
    """The simulator and controllers that a file's actions were recorded with, as the file says."""

    environment: str
    suite_version: str
    robots: tuple[str, ...]
    control_hz: float
    lite_physics: bool
    controllers: tuple[ArmController, ...]
    forms: tuple[Form, ...]
    """What each arm's actions are meant to be."""
    ignored_control_delta: bool = False
    """An arm is meant to be absolute by `control_delta` alone, which robosuite 1.5 ignores."""
    notes: tuple[str, ...] = ()
    """What had to be inferred because the file does not state it."""

    def require_deltas(self, where: str) -> None:
        """Check that the actions are said to be deltas on every arm.

        Raises:
            DataError: an arm's are absolute.
        """
        if "absolute" in self.forms:
            raise DataError(
                f"{where}: expected delta actions on every arm, but its controllers say {', '.join(self.forms)}: "
                f"prepare the delta file that it was made from; lfm doctor source={where} tells what it holds"
            )

    def differences(self, contract: Contract) -> list[tuple[str, Any, Any]]:
        """Return settings that differ and change what a delta does: (name, file's, expected); frames can be turned."""
        ours: dict[str, Any] = {"robots": contract.robots, "control_hz": contract.control_hz}
        theirs: dict[str, Any] = {"robots": self.robots, "control_hz": self.control_hz}
        for arm, (a, b) in enumerate(zip(contract.controllers, self.controllers, strict=False)):
            ours |= {f"arm {arm} {name}": value for name, value in a.model_dump(exclude={"frame"}).items()}
            theirs |= {f"arm {arm} {name}": value for name, value in b.model_dump(exclude={"frame"}).items()}
        return [(name, theirs[name], ours[name]) for name in ours if theirs[name] != ours[name]]

    def require_controllers(self, contract: Contract, where: str) -> None:
        """Check that this file's deltas mean what the current controllers make of them (frames are converted).

        Raises:
            DataError: robots, control rate or a controller's gains or reach differ.
        """
        rows = [f"  {name}: file {found}, expected {expected}" for name, found, expected in self.differences(contract)]
        if rows:
            raise DataError(
                f"{where} was recorded with another robot or controller than {contract.environment} uses here, so its "
                "actions would be misread:\n" + "\n".join(rows)
            )


def parse_recording(text: str | bytes, version: str | None, where: str) -> Recording:
    """Read `env_args` (robomimic) or `env_info` (raw robosuite collections).

    Args:
        text: the JSON.
        version: robosuite's version where the file states it elsewhere.
        where: what the text belongs to, for messages.

    Raises:
        DataError: not JSON, a key is missing, or the controller is not OSC_POSE.
    """
    try:
        table = json.loads(text)
        if not isinstance(table, dict):
            raise TypeError(f"found {shown(table)}")
        kwargs = table.get("env_kwargs", table)
        environment, robots, configs = table["env_name"], kwargs["robots"], kwargs["controller_configs"]
        robots = (robots,) if isinstance(robots, str) else tuple(robots)
        configs = list(configs) if isinstance(configs, list) else [configs] * len(robots)
        version = table.get("env_version") or version
        composite = any("body_parts" in config for config in configs)
        modern = composite or _series(version) >= (1, 5)
        return Recording(
            environment=environment,
            suite_version=version or "unknown",
            robots=robots,
            control_hz=kwargs.get("control_freq", 20),
            lite_physics=kwargs.get("lite_physics", modern),
            controllers=tuple(_controller(config, modern, where) for config in configs),
            forms=tuple(_form(_arm_part(config)) for config in configs),
            ignored_control_delta=modern and any(_only_control_delta(_arm_part(config)) for config in configs),
            notes=_notes(version, composite, modern, configs),
        )
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{where}: expected robosuite's settings as JSON, cannot read them ({error})") from error
    except KeyError as error:
        raise DataError(f"{where}: expected robosuite's settings with a key {error}, found none") from error


def _controller(config: Mapping[str, Any], modern: bool, where: str) -> ArmController:
    part = _arm_part(config)
    if part.get("type") != "OSC_POSE":
        raise DataError(f"{where}: expected the controller OSC_POSE, found {part.get('type')!r}: not supported")
    return ArmController(
        frame=part.get("input_ref_frame", "base") if modern else "world",
        kp=_one(part.get("kp", 150), where),
        damping_ratio=_one(part.get("damping_ratio", part.get("damping", 1)), where),
        delta_position_m=_one(_triple(part, 0), where),
        delta_rotation_rad=_one(_triple(part, 1), where),
        uncouple_pos_ori=part.get("uncouple_pos_ori", True),
    )


def _arm_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    if "body_parts" not in config:
        return config
    parts = config["body_parts"]
    return parts.get("arms", parts)["right"]


def _form(part: Mapping[str, Any]) -> Form:
    if "input_type" in part:
        return "delta" if part["input_type"] == "delta" else "absolute"
    return "delta" if part.get("control_delta", True) else "absolute"


def _only_control_delta(part: Mapping[str, Any]) -> bool:
    return "input_type" not in part and _form(part) == "absolute"


def _series(version: str | None) -> tuple[int, ...]:
    """Return the version's first two numbers; nothing if it is not told."""
    return tuple(int(number) for number in (version or "").split(".")[:2] if number.isdigit())


def _triple(part: Mapping[str, Any], index: int) -> Any:
    reach = part.get("output_max", [0.05, 0.05, 0.05, 0.5, 0.5, 0.5])
    return reach[3 * index : 3 * index + 3] if isinstance(reach, list) else reach


def _one(value: Any, where: str) -> float:
    """Read a setting that may be given per axis; the contract has one value for all axes."""
    values = set(value) if isinstance(value, list) else {value}
    if len(values) != 1:
        raise DataError(f"{where}: expected one controller setting for all axes, found {value}: not supported")
    return float(values.pop())


def _notes(version: str | None, composite: bool, modern: bool, configs: list[Mapping[str, Any]]) -> tuple[str, ...]:
    notes = []
    if not modern:
        notes.append(
            f"controller settings of robosuite {version or 'before 1.5'} (one flat table) were converted: "
            "deltas are in the world frame, lite_physics off"
        )
    elif not composite:
        notes.append(f"robosuite {version} was given one flat controller table and read it as its own")
    if modern and any("input_ref_frame" not in _arm_part(config) for config in configs):
        notes.append("the controller names no input_ref_frame: taken as robosuite 1.5's default, the robot's base")
    return tuple(notes)
