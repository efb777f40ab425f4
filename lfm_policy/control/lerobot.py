"""Arms behind LeRobot's `Robot` classes: SO-100, SO-101, Koch, and whatever else its configurations name."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from lfm_policy.contract import Camera, Contract
from lfm_policy.control.robot import Reading
from lfm_policy.errors import ConfigError, ContractError, RolloutError, nearest

STATE = "observation.state"
"""All numbers that a LeRobot robot shows, in its order, as LeRobot's data sets have them."""
PICTURES = "observation.images."
UNITS = {"degrees": "deg", "range_0_100": "%", "range_m100_100": "%"}
"""Of the numbers of a LeRobot motor, by its norm mode."""
LOST = (OSError, RuntimeError)
"""What LeRobot raises where a bus or a camera does not answer; ConnectionError and TimeoutError are of the first."""


def open_lerobot(contract: Contract, kind: str, options: Mapping[str, Any]) -> "LeRobotArm":
    """Make and connect a robot of LeRobot's.

    Args:
        contract: of the policy.
        kind: as `--robot.type=` of LeRobot's commands names it ("so101_follower").
        options: the rest of its configuration (port, id, cameras …).

    Raises:
        ConfigError: LeRobot is missing, it knows no such robot, an option is wrong, or the robot is not calibrated.
        ContractError: the robot's numbers, units or pictures are not the contract's.
        RolloutError: the robot does not answer.
    """
    try:
        import draccus
        from lerobot.robots import RobotConfig, make_robot_from_config
    except ImportError as error:
        raise ConfigError(f"robot=lerobot:{kind} needs LeRobot ({error}): pip install 'lerobot[feetech]'") from None
    _register(kind, RobotConfig)
    try:
        configuration = draccus.decode(RobotConfig, {"type": kind, **options})
    except (draccus.utils.DecodingError, TypeError, ValueError) as error:
        raise ConfigError(f"robot_options do not fit LeRobot's '{kind}': {error}") from error
    try:
        return LeRobotArm(contract, make_robot_from_config(configuration))
    except ImportError as error:
        raise ConfigError(f"LeRobot's '{kind}' needs another package: {error}") from error


def _register(kind: str, registry: Any) -> None:
    """Import LeRobot's packages, the likeliest first, until one has declared this kind; then those of third parties."""
    import lerobot.robots
    from lerobot.utils.import_utils import register_third_party_plugins

    packages = [found.name for found in pkgutil.iter_modules(lerobot.robots.__path__) if found.ispkg]
    broken = []
    for name in sorted(packages, key=lambda name: -SequenceMatcher(None, name, kind).ratio()):
        if kind in registry.get_known_choices():
            return
        try:
            importlib.import_module(f"lerobot.robots.{name}")
        except ImportError as error:
            broken.append(f"{name} ({error})")
    register_third_party_plugins()
    known = registry.get_known_choices()
    if kind not in known:
        missing = f"; not importable: {', '.join(broken)}" if broken else ""
        raise ConfigError(f"LeRobot knows no robot '{kind}': {nearest(kind, known)}{missing}")


class LeRobotArm:
    """A `lerobot.robots.Robot`, which is connected here. Implements `Robot`.

    An action's numbers are LeRobot's action features, by their names ("shoulder_pan.pos", or without ".pos"). An
    observation's entry is `observation.state`, or a single number; pictures are those of the cameras' names. The bus is
    read and written in the control loop's own time: what that takes counts as lateness.

    Args:
        contract: of the policy.
        robot: not yet connected.
    """

    def __init__(self, contract: Contract, robot: Any) -> None:
        self.contract, self._robot = contract, robot
        seen = robot.observation_features
        numbers = [name for name, kind in seen.items() if not isinstance(kind, tuple)]
        self._commands = _commands(contract, list(robot.action_features))
        self._entries = {key.name: _numbers(key.name, key.dim, numbers) for key in contract.observations}
        self._pictures = {camera.key: _picture(camera.name, seen) for camera in contract.cameras}
        _require_order(contract, self._commands, self._entries)
        _require_units(contract, self._commands, robot)
        self._last: dict[str, float] = {}
        with _answering("connect"):
            robot.connect(calibrate=False)
            calibrated = robot.is_calibrated
        if not calibrated:
            self.close()
            raise ConfigError(f"{robot} is not calibrated, or its motors say otherwise: run lerobot-calibrate first")

    def reset(self, seed: int) -> Reading:
        """Begin an episode where the robot is."""
        return self.read()

    def read(self) -> Reading:
        """Tell what the robot sees now."""
        with _answering("get_observation"):
            seen = self._robot.get_observation()
        parts = {name: np.array([seen[key] for key in keys], np.float32) for name, keys in self._entries.items()}
        pictures = {
            camera.key: _sized(np.asarray(seen[self._pictures[camera.key]]), camera) for camera in self.contract.cameras
        }
        frames = self.contract.stack(pictures) if pictures else None
        return Reading(self.contract.flatten(parts)[None], frames=frames)

    def send(self, action: np.ndarray, due: float) -> None:
        """Command an action."""
        self._last = dict(zip(self._commands, (float(value) for value in action), strict=True))
        with _answering("send_action"):
            self._robot.send_action(self._last)

    def stop(self) -> None:
        """Stay where the joints are, grippers as they were told last; what is a speed becomes zero."""
        grippers = {self._commands[column] for column in self.contract.grippers} & set(self._last)
        with _answering("stop"):
            seen = self._robot.get_observation()
            held = {name: 0.0 if name.endswith(".vel") else float(seen[name]) for name in self._commands}
            self._robot.send_action(held | {name: self._last[name] for name in grippers})

    def close(self) -> None:
        """Disconnect; whether torque goes off is LeRobot's `disable_torque_on_disconnect`."""
        if self._robot.is_connected:
            with _answering("disconnect"):
                self._robot.disconnect()


@contextmanager
def _answering(call: str) -> Iterator[None]:
    """Say of LeRobot's errors in which call they came."""
    try:
        yield
    except LOST as error:
        raise RolloutError(f"the robot failed in LeRobot's {call}: {error}") from error


def _commands(contract: Contract, features: Sequence[str]) -> list[str]:
    """Return the action feature of each number of an action."""
    found = [_feature(number.name, features) for number in contract.actions]
    if not contract.actions or set(found) != set(features):
        raise ContractError(
            f"the policy commands {[number.name for number in contract.actions] or 'numbers without names'}, and the "
            f"robot takes {list(features)}"
        )
    return found


def _numbers(name: str, width: int, numbers: Sequence[str]) -> list[str]:
    """Return what an entry of the observation is made of."""
    found = list(numbers) if name == STATE else [_feature(name, numbers)]
    if len(found) != width:
        raise ContractError(f"'{name}' has {width} numbers in the policy's contract, and the robot shows {found}")
    return found


def _feature(name: str, features: Sequence[str]) -> str:
    for candidate in (name, f"{name}.pos"):
        if candidate in features:
            return candidate
    raise ContractError(f"the robot has no '{name}': {nearest(name, features)}")


def _picture(name: str, features: Mapping[str, Any]) -> str:
    pictures = [key for key, kind in features.items() if isinstance(kind, tuple)]
    wanted = name.removeprefix(PICTURES)
    if wanted not in pictures:
        raise ContractError(f"the robot has no camera '{wanted}': {nearest(wanted, pictures)}")
    return wanted


def _sized(picture: np.ndarray, camera: Camera) -> np.ndarray:
    """Make a picture as large as the policy's, by averaging over areas, as `lfm prepare` does with recorded ones."""
    if picture.shape[:2] == (camera.height, camera.width):
        return picture
    import cv2  # LeRobot brings it along

    return cv2.resize(picture, (camera.width, camera.height), interpolation=cv2.INTER_AREA)


def _require_order(contract: Contract, commands: Sequence[str], entries: Mapping[str, Sequence[str]]) -> None:
    """Check that the observation which measures an action has its numbers in the same order."""
    if contract.measured is not None and list(entries[contract.measured]) != list(commands):
        raise ContractError(
            f"'{contract.measured}' measures {list(entries[contract.measured])} on this robot, in another order than "
            f"actions have: {list(commands)}"
        )


def _require_units(contract: Contract, commands: Sequence[str], robot: Any) -> None:
    """Compare the units of an action with those that the robot's motors are driven in, where both are known."""
    motors = getattr(getattr(robot, "bus", None), "motors", {})
    for number, command in zip(contract.actions, commands, strict=True):
        motor = motors.get(command.removesuffix(".pos"))
        driven = UNITS.get(str(getattr(motor.norm_mode, "value", "")), "") if motor is not None else ""
        if number.unit and driven and number.unit != driven:
            raise ContractError(
                f"the policy commands '{number.name}' in '{number.unit}', and the robot takes '{driven}' "
                "(LeRobot's use_degrees)"
            )
