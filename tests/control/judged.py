"""What a robot was really sent, against the limits of each of its numbers."""

import numpy as np

from lfm_policy.control.limits import Limits


class Recorded:
    """Keeps the commands that a robot's class is sent, and where it rested before the first.

    Args:
        kind: the class, whose `reset` and `send` are wrapped.
        patch: pytest's.
    """

    def __init__(self, kind, patch) -> None:
        self.episodes: list[tuple[np.ndarray, list[tuple[float, np.ndarray]]]] = []
        """Of each the place of rest, and the commands with when they were due [s]."""
        reset, send = kind.reset, kind.send

        def recording_reset(robot, seed):
            reading = reset(robot, seed)
            width = robot.contract.action_dim
            self.episodes.append((np.array(reading.rows[-1][:width], np.float64), []))
            return reading

        def recording_send(robot, action, due):
            self.episodes[-1][1].append((due, np.array(action, np.float64)))
            send(robot, action, due)

        patch.setattr(kind, "reset", recording_reset)
        patch.setattr(kind, "send", recording_send)


def broken(limits: Limits, rest: np.ndarray, commands: list[tuple[float, np.ndarray]], rate_hz: float) -> list[str]:
    """List what moves broke; a tick without a command, or with the last one again, holds the robot still."""
    ticks = np.round([(due - commands[0][0]) * rate_hz for due, _ in commands]).astype(int)
    path = np.repeat(rest[None], 4 + ticks[-1], axis=0)
    for tick, (_, action) in zip(ticks, commands, strict=True):
        path[3 + tick :] = action
    moved = np.flatnonzero((np.diff(path, axis=0) != 0).any(1)) + 1
    found = []
    for column, entry in enumerate(limits.numbers):
        values = path[:, column]
        outside = (values < np.minimum(entry.low, rest[column])) | (values > np.maximum(entry.high, rest[column]))
        found += [f"{entry.name}: out of range at {at}" for at in np.flatnonzero(outside)]
        for order, power, allowed in (
            (1, 0, entry.step),
            (1, 1, entry.speed),
            (2, 2, entry.acceleration),
            (3, 3, entry.jerk),
        ):
            if allowed is not None:
                change = np.abs(np.diff(values, n=order)) * rate_hz**power
                too_much = [at for at in moved if at >= order and change[at - order] > allowed * (1 + 1e-5)]
                found += [f"{entry.name}: difference {order} at {at}" for at in too_much]
    return found
