"""What a robot may be asked to do: limits in space for poses and positions in metres, per number for the rest."""

from collections.abc import Iterable

import numpy as np
from pydantic import Field, model_validator

from lfm_policy.actions.motion import command_positions, gripper_commands
from lfm_policy.actions.poses import moving_columns
from lfm_policy.contract import Contract
from lfm_policy.errors import ConfigError
from lfm_policy.settings import Frozen

Point = tuple[float, float, float]

STEEPEST = {1: 1.875, 2: 5.774, 3: 60.0}
"""Largest first, second and third derivative of 10 t³ - 15 t⁴ + 6 t⁵, which leads from rest at 0 to rest at 1."""
LONGEST_RAMP_S = 30.0
"""A way that would take longer is too far, or along a number that may not move: the gate then says which."""


class NumberLimits(Frozen):
    """What one number of an action may do, in its own unit; None does not limit. Of grippers only the range counts."""

    name: str
    """As the contract names it; by its place ("0", "1", …) where it has no name."""
    low: float | None = None
    high: float | None = None
    step: float | None = Field(default=None, gt=0)
    """Largest change from one command to the next, at whatever rate [unit]."""
    speed: float | None = Field(default=None, gt=0)
    """[unit/s]"""
    acceleration: float | None = Field(default=None, gt=0)
    """[unit/s²]"""
    jerk: float | None = Field(default=None, gt=0)
    """[unit/s³]"""

    @model_validator(mode="after")
    def _check(self) -> "NumberLimits":
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise ValueError(f"low must not be above high, found {self.low} and {self.high}")
        return self


class Limits(Frozen):
    """What a robot may be asked to do; None does not limit. Commands are judged, not what the robot makes of them."""

    low_m: Point | None = Field(
        default=None, description="corner of the workspace [x,y,z] [m], in the frame of the contract's actions"
    )
    high_m: Point | None = Field(default=None, description="the opposite corner [m]")
    speed_m_s: float | None = Field(default=2.0, gt=0, description="largest speed of the commanded position [m/s]")
    acceleration_m_s2: float | None = Field(default=60.0, gt=0, description="its largest acceleration [m/s²]")
    jerk_m_s3: float | None = Field(default=2000.0, gt=0, description="its largest jerk [m/s³]")
    gripper: tuple[float, float] = Field(
        default=(-1.0, 1.0),
        description="range of a pose's gripper command; -1 opens, +1 closes; what is beyond is clipped and sent",
    )
    numbers: tuple[NumberLimits, ...] = Field(
        default=(),
        description="of actions that are no poses, per number: {name, low, high, step, speed, acceleration, jerk}",
    )
    stale_s: float = Field(
        default=0.75, gt=0, description="longest time since the observation that an action was predicted from [s]"
    )
    ramp_s: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="first move: for so long at least after a reset or a refusal, commands lie between where the robot "
        "rests and what is asked for; 0: without, so that one that was held while it moved may find every next command "
        "too far away; null: 1 for a robot whose place is observed, 0 for a simulated one [s]",
    )
    ramp_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="share of the limits of step, speed, acceleration and jerk that the first move may use: it takes "
        "longer than ramp_s where the way is long",
    )

    @model_validator(mode="after")
    def _check(self) -> "Limits":
        if (self.low_m is None) != (self.high_m is None):
            raise ValueError("a workspace needs both corners, low_m and high_m")
        if self.low_m and self.high_m and not all(a < b for a, b in zip(self.low_m, self.high_m, strict=True)):
            raise ValueError(f"low_m must be below high_m in every direction, found {self.low_m} and {self.high_m}")
        return self

    def require_fit(self, contract: Contract) -> None:
        """Check that these limits can judge the contract's actions.

        Raises:
            ConfigError: displacements; a workspace for what lies in no space; limits of other numbers, or of none.
        """
        if contract.action_form != "absolute":
            raise ConfigError("the safety gate judges positions: expected absolute actions, found displacements")
        axes = 3 if contract.poses else contract.action_dim - len(contract.grippers)
        if self.low_m is not None and not (in_metres(contract) and axes == 3):
            raise ConfigError(
                f"a workspace in space needs positions in it, found {axes} numbers of '{contract.space}' "
                f"in '{contract.unit}': use limits per number"
            )
        names = [] if contract.poses else number_names(contract)
        found = [number.name for number in self.numbers]
        if found != names and (found or not in_metres(contract)):
            raise ConfigError(
                f"expected limits for the numbers {names}, found {found or 'none'}: learn them from demonstrations "
                "(limits_from=DATA), or give limits.numbers"
            )


def in_metres(contract: Contract) -> bool:
    """Say whether actions are points in a space that is measured in metres."""
    return contract.space in ("poses", "position") and contract.unit == "m"


def number_names(contract: Contract) -> list[str]:
    """Name every number of an action that is no pose; by its place where the contract has no names."""
    named = [number.name for number in contract.actions]
    return named or [str(place) for place in range(contract.action_dim)]


def first_move_s(contract: Contract, limits: Limits, rate_hz: float, rest: np.ndarray, goal: np.ndarray) -> float:
    """Return how long a smooth first move takes that uses a share of what is allowed, `ramp_s` at least [s].

    Args:
        contract: what the actions mean.
        limits: what is allowed.
        rate_hz: commands per second.
        rest: action (action_dim,) that keeps the robot where it is.
        goal: the first one that is asked for.
    """
    ways = np.abs(np.diff(command_positions(contract, np.stack([rest, goal])), axis=0))[0]
    bounds: list[tuple[int, float | None, float]] = []
    if in_metres(contract):
        way = float(np.linalg.norm(ways, axis=-1).max())
        per_order = (limits.speed_m_s, limits.acceleration_m_s2, limits.jerk_m_s3)
        bounds += [(order, limit, way) for order, limit in enumerate(per_order, start=1)]
    entries = [limits.numbers[column] for column in moving_columns(contract)] if limits.numbers else []
    for entry, way in zip(entries, ways.ravel() if entries else (), strict=True):
        per_step = None if entry.step is None else entry.step * rate_hz
        per_order = ((1, per_step), (1, entry.speed), (2, entry.acceleration), (3, entry.jerk))
        bounds += [(order, limit, float(way)) for order, limit in per_order]
    needed = [(STEEPEST[o] * way / (limits.ramp_share * limit)) ** (1 / o) for o, limit, way in bounds if limit]
    return max(limits.ramp_s or 0.0, min(max(needed, default=0.0), LONGEST_RAMP_S))


def limits_of(
    contract: Contract,
    episodes: Iterable[tuple[np.ndarray, np.ndarray]],
    margin: float = 1.5,
    room_m: float = 0.05,
    room: float = 0.05,
) -> Limits:
    """Learn what demonstrations asked of the robot, with a margin.

    Args:
        contract: what their numbers mean, actions absolute.
        episodes: observation (L, observation_dim) and action (L, action_dim) of each.
        margin: factor on the largest step, speed, acceleration and jerk.
        room_m: added to the box that commands in space lie in, on every side [m].
        room: added to the range of other numbers on both sides, as a share of it.
    """
    lows, highs, steepest = [], [], []
    grips: list[np.ndarray] = []
    for observation, action in episodes:
        positions = command_positions(contract, action)
        start = start_positions(contract, observation[0])
        rest = np.repeat((positions[0] if start is None else start)[None], 3, axis=0)
        path = np.concatenate([rest, positions])
        lows.append(positions.min(0))
        highs.append(positions.max(0))
        steepest.append([np.abs(np.diff(path, n=order, axis=0)) for order in (1, 2, 3)])
        grips.append(gripper_commands(contract, action))
    if in_metres(contract) and lows[0].shape[-1] == 3:
        return _in_space(contract, np.stack(lows), np.stack(highs), steepest, margin, room_m)
    return _per_number(contract, np.stack(lows), np.stack(highs), steepest, np.concatenate(grips), margin, room)


def _in_space(
    contract: Contract, lows: np.ndarray, highs: np.ndarray, steepest: list, margin: float, room_m: float
) -> Limits:
    low, high = lows.min((0, 1)) - room_m, highs.max((0, 1)) + room_m
    speed, acceleration, jerk = (
        round(
            margin
            * max(float(np.linalg.norm(orders[order], axis=-1).max()) for orders in steepest)
            * contract.control_hz ** (order + 1),
            4,
        )
        for order in range(3)
    )
    x, y, z = (round(float(value), 4) for value in low)
    to_x, to_y, to_z = (round(float(value), 4) for value in high)
    return Limits(
        low_m=(x, y, z), high_m=(to_x, to_y, to_z), speed_m_s=speed, acceleration_m_s2=acceleration, jerk_m_s3=jerk
    )


def _per_number(
    contract: Contract,
    lows: np.ndarray,
    highs: np.ndarray,
    steepest: list,
    grips: np.ndarray,
    margin: float,
    room: float,
) -> Limits:
    """Return the limits of each number by itself; a number that never moved is held where it was."""
    low, high = lows.min(0).ravel(), highs.max(0).ravel()
    change = [np.max([orders[order].reshape(-1, len(low)).max(0) for orders in steepest], axis=0) for order in range(3)]
    entries, moving, gripping = [], iter(range(len(low))), iter(range(grips.shape[1]))
    for column, name in enumerate(number_names(contract)):
        if column in contract.grippers:
            values = grips[:, next(gripping)]
            entries.append(NumberLimits(name=name, low=float(values.min()), high=float(values.max())))
            continue
        place = next(moving)
        slack = room * float(high[place] - low[place])
        step, second, third = (max(margin * float(order[place]), 1e-9) for order in change)
        entries.append(
            NumberLimits(
                name=name,
                low=float(low[place]) - slack,
                high=float(high[place]) + slack,
                step=step,
                speed=step * contract.control_hz,
                acceleration=second * contract.control_hz**2,
                jerk=third * contract.control_hz**3,
            )
        )
    return Limits(numbers=tuple(entries))


def start_positions(contract: Contract, observation: np.ndarray) -> np.ndarray | None:
    """Find where an observation (observation_dim,) says that the commanded points are; None if it does not.

    Returns:
        (points, axes), as `command_positions` has them.
    """
    columns, observed = contract.columns, np.asarray(observation, np.float64)
    if contract.measured is not None:
        return command_positions(contract, observed[None, columns[contract.measured]])[0]
    names = [f"robot{arm}_eef_pos" for arm in range(contract.arms)]
    if not names or not all(name in columns for name in names):
        return None
    return np.stack([observed[columns[name]] for name in names])
