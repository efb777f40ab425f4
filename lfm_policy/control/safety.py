"""The gate before every command: what breaks a limit is not sent, the robot holds still, and the reason is kept."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lfm_policy.actions.motion import blend, command_positions, rest_actions
from lfm_policy.actions.poses import moving_columns
from lfm_policy.contract import Contract
from lfm_policy.control.limits import Limits, first_move_s, in_metres, start_positions
from lfm_policy.control.stops import EmergencyStop
from lfm_policy.errors import ConfigError

Reason = Literal[
    "emergency stop", "stale", "shape", "not finite", "workspace", "range", "step", "speed", "acceleration", "jerk"
]


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
        ConfigError: the limits do not fit the contract (see `Limits.require_fit`), or a first-move ramp is asked for
            where no observation says at which pose or numbers the robot rests.
    """

    def __init__(
        self,
        contract: Contract,
        limits: Limits,
        rate_hz: float | None = None,
        stop: EmergencyStop | None = None,
        report: Callable[[Refusal], Any] = lambda refusal: None,
    ) -> None:
        limits.require_fit(contract)
        if limits.ramp_s and rest_actions(contract, np.zeros((1, contract.observation_dim))) is None:
            raise ConfigError(
                "a first-move ramp (limits.ramp_s) begins where the robot rests, which no observation tells: "
                "name it in the contract ('measured'), or use ramp_s=0"
            )
        self.limits, self.stop = limits, stop or EmergencyStop()
        self._contract, self._rate, self._report = contract, rate_hz or contract.control_hz, report
        self._low, self._high = _ranges(contract, limits)
        self._numbers = [limits.numbers[column] for column in moving_columns(contract)] if limits.numbers else []
        self.refused: Counter[str] = Counter()
        self._path: deque[np.ndarray] = deque(maxlen=3)
        self._rest: np.ndarray | None = None
        self._sent: np.ndarray | None = None
        self._admitted, self._periods = 0, 0.0

    def reset(self, observation: np.ndarray) -> None:
        """Begin where `observation` (observation_dim,) says that the robot rests; or else at the first command."""
        start = start_positions(self._contract, observation)
        self._path.clear()
        if start is not None:
            self._path.extend([start] * 3)
        rest = rest_actions(self._contract, observation[None]) if self.limits.ramp_s else None
        self._rest, self._admitted, self._sent = None if rest is None else rest[0], 0, None

    def admit(self, action: np.ndarray | None, age_s: float, step: int) -> np.ndarray | None:
        """Judge a command; if it is refused, the robot is taken to hold still.

        Args:
            action: (action_dim,); None where no chunk reaches.
            age_s: time since the observation it was predicted from [s].
            step: for the report.

        Returns:
            What to send: the action, grippers clipped to their range, behind the ramp of the first move where there is
            one; None if nothing may be sent.
        """
        fault = self._unusable(action, age_s)
        if fault is None:
            assert action is not None
            action = self._ramped(np.clip(action, self._low, self._high).astype(action.dtype, copy=False))
            position = command_positions(self._contract, action[None])[0]
            fault = self._place(position) or self._in_space(position) or self._by_number(position)
            if fault is None:
                self._path.extend([position] * (1 if self._path else 3))
                self._admitted, self._sent = self._admitted + 1, action
                return action
        self.hold(1)
        if self.limits.ramp_s and self._sent is not None:  # it rests there, and has a way to begin again
            self._rest, self._admitted = np.asarray(self._sent, np.float64), 0
        refusal = Refusal(step, *fault)
        self.refused[refusal.reason] += 1
        self._report(refusal)
        return None

    def hold(self, periods: int) -> None:
        """Take it that nothing new was sent for some control periods."""
        if self._path:
            self._path.extend([self._path[-1]] * periods)

    def _unusable(self, action: np.ndarray | None, age_s: float) -> tuple[Reason, str] | None:
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
        return None

    def _ramped(self, action: np.ndarray) -> np.ndarray:
        """Keep the first commands after a rest near it: smoothly, from there to what is asked for."""
        if self._rest is None:
            return action
        if self._admitted == 0:
            self._periods = self._rate * first_move_s(self._contract, self.limits, self._rate, self._rest, action)
        part = (self._admitted + 1) / max(self._periods, 1.0)
        if part >= 1:
            return action
        part = part**3 * (10 - 15 * part + 6 * part**2)
        return blend(self._contract, self._rest, action, part).astype(action.dtype, copy=False)

    def _place(self, position: np.ndarray) -> tuple[Reason, str] | None:
        """Judge where a command leads; what rests beyond a limit when the first move begins may come nearer."""
        limits = self.limits
        before = self._path[-1] if self._path and self._rest is not None else None
        if limits.low_m is not None and limits.high_m is not None:
            low, high = _widened(np.array(limits.low_m), np.array(limits.high_m), before)
            if ((position < low) | (position > high)).any():
                return "workspace", f"{position.round(4).tolist()} m, limits {limits.low_m} to {limits.high_m}"
        if self._numbers:
            ends = [(-np.inf if n.low is None else n.low, np.inf if n.high is None else n.high) for n in self._numbers]
            values, (low, high) = position.ravel(), np.transpose(ends)
            low, high = _widened(low, high, None if before is None else before.ravel())
            for entry, value, bad in zip(self._numbers, values, (values < low) | (values > high), strict=True):
                if bad:
                    return "range", f"{entry.name} {value:.4g}, limits {_shown(entry.low)} to {_shown(entry.high)}"
        return None

    def _in_space(self, position: np.ndarray) -> tuple[Reason, str] | None:
        if not self._path or not in_metres(self._contract):
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

    def _by_number(self, position: np.ndarray) -> tuple[Reason, str] | None:
        if not self._path or not self._numbers:
            return None
        path = np.stack([*self._path, position]).reshape(-1, position.size)
        changes = [np.abs(np.diff(path, n=order, axis=0)[-1]) for order in (1, 2, 3)]
        for place, entry in enumerate(self._numbers):
            bounds: tuple[tuple[Reason, float | None, int, int], ...] = (
                ("step", entry.step, 1, 0),
                ("speed", entry.speed, 1, 1),
                ("acceleration", entry.acceleration, 2, 2),
                ("jerk", entry.jerk, 3, 3),
            )
            for reason, limit, order, power in bounds:
                found = float(changes[order - 1][place]) * self._rate**power
                if limit is not None and found > limit:
                    return reason, f"{entry.name} {found:.4g}, limit {limit:g}"
        return None


def _ranges(contract: Contract, limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest value of each number that is clipped to them: those of grippers."""
    low, high = np.full(contract.action_dim, -np.inf), np.full(contract.action_dim, np.inf)
    for column in contract.grippers:
        entry = limits.numbers[column] if limits.numbers else None
        ends = limits.gripper if contract.poses else (entry and entry.low, entry and entry.high)
        low[column] = -np.inf if ends[0] is None else ends[0]
        high[column] = np.inf if ends[1] is None else ends[1]
    return low, high


def _widened(low: np.ndarray, high: np.ndarray, place: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return limits that `place` is inside of."""
    return (low, high) if place is None else (np.minimum(low, place), np.maximum(high, place))


def _shown(limit: float | None) -> str:
    return "none" if limit is None else f"{limit:g}"
