"""The gate before every command: what breaks a limit is not sent, the robot holds still, and the reason is kept."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from lfm_policy.actions.motion import command_positions, gripper_commands
from lfm_policy.contract import Contract
from lfm_policy.errors import ConfigError
from lfm_policy.settings import Frozen

Point = tuple[float, float, float]
Reason = Literal[
    "emergency stop", "stale", "shape", "not finite", "workspace", "gripper", "speed", "acceleration", "jerk"
]


class Limits(Frozen):
    """What a robot may be asked to do; None does not limit. All of it is about commanded positions, arm by arm."""

    low_m: Point | None = None
    """Corner of the workspace [m], in the frame of the contract's actions."""
    high_m: Point | None = None
    speed_m_s: float | None = Field(default=2.0, gt=0)
    acceleration_m_s2: float | None = Field(default=60.0, gt=0)
    jerk_m_s3: float | None = Field(default=2000.0, gt=0)
    gripper: tuple[float, float] = (-1.5, 1.5)
    """Gripper command; -1 opens, +1 closes."""
    stale_s: float = Field(default=0.75, gt=0)
    """Longest time between the observation that a chunk was predicted from and the execution of its actions [s]."""

    @model_validator(mode="after")
    def _check(self) -> "Limits":
        if (self.low_m is None) != (self.high_m is None):
            raise ValueError("a workspace needs both corners, low_m and high_m")
        if self.low_m and self.high_m and not all(a < b for a, b in zip(self.low_m, self.high_m, strict=True)):
            raise ValueError(f"low_m must be below high_m in every direction, found {self.low_m} and {self.high_m}")
        return self


def limits_of(
    contract: Contract, episodes: Iterable[tuple[np.ndarray, np.ndarray]], margin: float = 1.5, room_m: float = 0.05
) -> Limits:
    """What demonstrations asked of the robot, with a margin.

    Args:
        contract: what their numbers mean, actions absolute.
        episodes: observation (L, observation_dim) and action (L, action_dim) of each.
        margin: factor on the largest speed, acceleration and jerk.
        room_m: added to the box that the commands lie in, on every side [m].
    """
    low, high, largest = np.full(3, np.inf), np.full(3, -np.inf), np.zeros(3)
    for observation, action in episodes:
        positions = command_positions(contract, action)
        low, high = np.minimum(low, positions.min((0, 1))), np.maximum(high, positions.max((0, 1)))
        start = start_positions(contract, observation[0])
        rest = np.repeat((positions[0] if start is None else start)[None], 3, axis=0)
        path = np.concatenate([rest, positions])
        for order in (1, 2, 3):
            steepest = np.linalg.norm(np.diff(path, n=order, axis=0), axis=-1).max()
            largest[order - 1] = max(largest[order - 1], steepest * contract.control_hz**order)
    speed, acceleration, jerk = (round(float(margin * value), 4) for value in largest)
    x, y, z = (round(float(value - room_m), 4) for value in low)
    to_x, to_y, to_z = (round(float(value + room_m), 4) for value in high)
    return Limits(
        low_m=(x, y, z), high_m=(to_x, to_y, to_z), speed_m_s=speed, acceleration_m_s2=acceleration, jerk_m_s3=jerk
    )


def start_positions(contract: Contract, observation: np.ndarray) -> np.ndarray | None:
    """Where an observation (observation_dim,) says that the arms' hands are, (arms, 3) [m]; None if it does not."""
    columns, first = {}, 0
    for key in contract.observations:
        columns[key.name] = slice(first, first := first + key.dim)
    names = [f"robot{arm}_eef_pos" for arm in range(len(contract.controllers))]
    if not names or not all(name in columns for name in names):
        return None
    return np.stack([np.asarray(observation, np.float64)[columns[name]] for name in names])


class EmergencyStop:
    """A latch that anyone may pull, from any thread; nobody releases it."""

    def __init__(self) -> None:
        self._pulled, self.reason = threading.Event(), ""

    def pull(self, reason: str) -> None:
        """Stop the robot, now and for good."""
        if not self._pulled.is_set():
            self.reason = reason
            self._pulled.set()

    @property
    def pulled(self) -> bool:
        """Whether somebody has."""
        return self._pulled.is_set()


@dataclass(frozen=True)
class Refusal:
    """A command that was not sent."""

    step: int
    reason: Reason
    found: str
    """What the command asked for, and the limit."""


class Gate:
    """Judges every command of one robot.

    Args:
        contract: what the actions mean; absolute ones.
        limits: what is allowed.
        rate_hz: of the control loop; the contract's if None.
        stop: the emergency stop.
        report: hears every refusal.

    Raises:
        ConfigError: the actions are displacements, or no positions in space though a workspace is given.
    """

    def __init__(
        self,
        contract: Contract,
        limits: Limits,
        rate_hz: float | None = None,
        stop: EmergencyStop | None = None,
        report: Callable[[Refusal], Any] = lambda refusal: None,
    ) -> None:
        if contract.action_form != "absolute":
            raise ConfigError("the safety gate judges positions: expected absolute actions, found displacements")
        if contract.rotation == "none" and contract.action_dim != 3 and limits.low_m is not None:
            raise ConfigError(f"a workspace in space needs positions in it, found {contract.action_dim} numbers")
        self.limits, self.stop = limits, stop or EmergencyStop()
        self._contract, self._rate, self._report = contract, rate_hz or contract.control_hz, report
        self.refused: Counter[str] = Counter()
        self._path: deque[np.ndarray] = deque(maxlen=3)

    def reset(self, observation: np.ndarray) -> None:
        """The robot rests where `observation` (observation_dim,) says; where it says nothing, at the first command."""
        start = start_positions(self._contract, observation)
        self._path.clear()
        if start is not None:
            self._path.extend([start] * 3)

    def admit(self, action: np.ndarray | None, age_s: float, step: int) -> bool:
        """Whether `action` (action_dim,) may be sent; if not, the robot is taken to hold still.

        Args:
            action: None where no chunk reaches.
            age_s: time since the observation it was predicted from [s].
            step: for the report.
        """
        fault = self._fault(action, age_s)
        if fault is None:
            assert action is not None
            position = command_positions(self._contract, action[None])[0]
            self._path.extend([position] * (1 if self._path else 3))
            return True
        self.hold(1)
        refusal = Refusal(step, *fault)
        self.refused[refusal.reason] += 1
        self._report(refusal)
        return False

    def hold(self, periods: int) -> None:
        """Nothing new was sent for some control periods."""
        if self._path:
            self._path.extend([self._path[-1]] * periods)

    def _fault(self, action: np.ndarray | None, age_s: float) -> tuple[Reason, str] | None:
        limits, width = self.limits, self._contract.action_dim
        if self.stop.pulled:
            return "emergency stop", self.stop.reason
        if action is None:
            return "stale", f"no chunk reaches this step; the last one's observation is {age_s:.3f} s old"
        if age_s > limits.stale_s:
            return "stale", f"observation {age_s:.3f} s old, limit {limits.stale_s:g} s"
        if action.shape != (width,):
            return "shape", f"{action.shape}, expected ({width},)"
        if not np.isfinite(action).all():
            return "not finite", f"{np.flatnonzero(~np.isfinite(action)).tolist()} are NaN or infinity"
        position = command_positions(self._contract, action[None])[0]
        return self._place(position, gripper_commands(self._contract, action[None])[0]) or self._motion(position)

    def _place(self, position: np.ndarray, gripper: np.ndarray) -> tuple[Reason, str] | None:
        limits = self.limits
        if limits.low_m is not None and limits.high_m is not None:
            outside = (position < np.array(limits.low_m)) | (position > np.array(limits.high_m))
            if outside.any():
                return "workspace", f"{position.round(4).tolist()} m, limits {limits.low_m} to {limits.high_m}"
        least, most = limits.gripper
        if ((gripper < least) | (gripper > most)).any():
            return "gripper", f"{gripper.round(3).tolist()}, limits {least:g} to {most:g}"
        return None

    def _motion(self, position: np.ndarray) -> tuple[Reason, str] | None:
        if not self._path:
            return None
        path = np.stack([*self._path, position])
        bounds: tuple[tuple[Reason, float | None, str], ...] = (
            ("speed", self.limits.speed_m_s, "m/s"),
            ("acceleration", self.limits.acceleration_m_s2, "m/s²"),
            ("jerk", self.limits.jerk_m_s3, "m/s³"),
        )
        for order, (reason, limit, unit) in enumerate(bounds, start=1):
            change = np.diff(path, n=order, axis=0)[-1]
            found = float(np.linalg.norm(change, axis=-1).max()) * self._rate**order
            if limit is not None and found > limit:
                return reason, f"{found:.4g} {unit}, limit {limit:g} {unit}"
        return None
