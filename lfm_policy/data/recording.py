"""How a demonstration file was recorded, read from its JSON metadata in any of the forms that robosuite's eras left.

robomimic's `env_args` holds robosuite's keyword arguments; raw robosuite collections keep the same in `env_info`.
Up to robosuite 1.4 the controller is one flat table whose commands are in the world frame; since 1.5 it is a table
of body parts, each with its own `input_type` and `input_ref_frame` (the robot's base unless it says so).
"""

import json
from collections.abc import Mapping
from typing import Any

from lfm_policy.data.contract import ArmController, Contract, Frozen
from lfm_policy.errors import DataError


class Recording(Frozen):
    """The simulator and controllers that a file's delta actions were recorded with."""

    environment: str
    suite_version: str
    robots: tuple[str, ...]
    control_hz: float
    lite_physics: bool
    controllers: tuple[ArmController, ...]
    notes: tuple[str, ...] = ()
    """What had to be inferred because the file does not state it."""

    def require_controllers(self, contract: Contract, where: str) -> None:
        """Check that this file's deltas mean what the current controllers make of them (frames are converted).

        Raises:
            DataError: robots, control rate or a controller's gains or reach differ.
        """
        ours = {"robots": contract.robots, "control_hz": contract.control_hz}
        theirs: dict[str, Any] = {"robots": self.robots, "control_hz": self.control_hz}
        for arm, (a, b) in enumerate(zip(contract.controllers, self.controllers, strict=False)):
            ours |= {f"arm {arm} {name}": value for name, value in a.model_dump(exclude={"frame"}).items()}
            theirs |= {f"arm {arm} {name}": value for name, value in b.model_dump(exclude={"frame"}).items()}
        rows = [f"  {name}: file {theirs[name]}, expected {ours[name]}" for name in ours if theirs[name] != ours[name]]
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
        DataError: not JSON, a key is missing, or the actions are not OSC_POSE deltas.
    """
    try:
        table = json.loads(text)
        kwargs = table.get("env_kwargs", table)
        environment, robots, configs = table["env_name"], kwargs["robots"], kwargs["controller_configs"]
        robots = (robots,) if isinstance(robots, str) else tuple(robots)
        configs = list(configs) if isinstance(configs, list) else [configs] * len(robots)
        version = table.get("env_version") or version
        composite = any("body_parts" in config for config in configs)
        notes = _notes(version, composite, configs)
        return Recording(
            environment=environment,
            suite_version=version or "unknown",
            robots=robots,
            control_hz=kwargs.get("control_freq", 20),
            lite_physics=kwargs.get("lite_physics", composite),
            controllers=tuple(_controller(config, where) for config in configs),
            notes=notes,
        )
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{where}: expected robosuite's settings as JSON, cannot read them ({error})") from error
    except KeyError as error:
        raise DataError(f"{where}: expected robosuite's settings with a key {error}, found none") from error


def _controller(config: Mapping[str, Any], where: str) -> ArmController:
    composite = "body_parts" in config
    part = _arm_part(config) if composite else config
    if part.get("type") != "OSC_POSE":
        raise DataError(f"{where}: expected the controller OSC_POSE, found {part.get('type')!r}: not supported")
    if _is_absolute(part):
        raise DataError(
            f"{where}: expected delta actions, but its controller says absolute "
            f"(input_type {part.get('input_type')!r}, control_delta {part.get('control_delta')!r}): "
            "prepare the delta file that it was made from"
        )
    return ArmController(
        frame=part.get("input_ref_frame", "base") if composite else "world",
        kp=_one(part.get("kp", 150), where),
        damping_ratio=_one(part.get("damping_ratio", part.get("damping", 1)), where),
        delta_position_m=_one(_triple(part, 0), where),
        delta_rotation_rad=_one(_triple(part, 1), where),
        uncouple_pos_ori=part.get("uncouple_pos_ori", True),
    )


def _arm_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    parts = config["body_parts"]
    return parts.get("arms", parts)["right"]


def _is_absolute(part: Mapping[str, Any]) -> bool:
    """Whether the actions may be absolute; robosuite 1.5 ignores `control_delta`, so a lone false one is no proof."""
    if "input_type" in part:
        return part["input_type"] != "delta"
    return not part.get("control_delta", True)


def _triple(part: Mapping[str, Any], index: int) -> Any:
    reach = part.get("output_max", [0.05, 0.05, 0.05, 0.5, 0.5, 0.5])
    return reach[3 * index : 3 * index + 3] if isinstance(reach, list) else reach


def _one(value: Any, where: str) -> float:
    """A setting that may be given per axis; the contract has one value for all axes."""
    values = set(value) if isinstance(value, list) else {value}
    if len(values) != 1:
        raise DataError(f"{where}: expected one controller setting for all axes, found {value}: not supported")
    return float(values.pop())


def _notes(version: str | None, composite: bool, configs: list[Mapping[str, Any]]) -> tuple[str, ...]:
    notes = []
    if not composite:
        notes.append(
            f"controller settings of robosuite {version or 'before 1.5'} (one flat table) were converted: "
            "deltas are in the world frame, lite_physics off"
        )
    elif any("input_ref_frame" not in _arm_part(config) for config in configs):
        notes.append("the controller names no input_ref_frame: taken as robosuite 1.5's default, the robot's base")
    return tuple(notes)
