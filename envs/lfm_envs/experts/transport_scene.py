"""What the Transport expert sees and what it varies."""

from dataclasses import dataclass

import numpy as np

from lfm_envs.experts.base import Hand, Pose, body_pose, heading, nearest_turn, top_down, up
from lfm_envs.robosuite_env import RobosuiteEnvironment

LID, HAMMER, TRASH = "transport_start_bin_lid", "payload", "trash"
BIN_HALF_WIDTH = 0.14
REACHABLE_Z = 0.7
"""A hammer below this has fallen off the tables [m]."""


@dataclass(frozen=True)
class Style:
    """How one episode is performed, so that the demonstrations differ."""

    paces: tuple[float, float]
    hovers: np.ndarray
    """Points above lid, hammer and trash that the hands aim for first, relative to the grasp (3, 3) [m]."""
    grips: np.ndarray
    """Where each arm grips the handle, from its middle towards the right arm (2,) [m]."""
    lid_place: np.ndarray
    """Grip position at which the lid is let go, x and z (2,) [m]."""
    meeting: np.ndarray
    """The left arm's grip position at the hand-over (3,) [m]."""
    leans: np.ndarray
    """Forward tilt of each hand at the hand-over (2,) [rad]."""
    trash_drop: np.ndarray
    """Where the trash is let go, relative to the middle of the trash bin's floor (3,) [m]."""
    turn: float
    """Heading of the hammer in the target bin, from the y axis [rad]."""
    hold: int
    """Steps for which success must last."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Style":
        lowest, highest = np.full((3, 3), -0.02), np.full((3, 3), 0.02)
        lowest[:, 2], highest[:, 2] = (0.05, 0.17, 0.17), (0.08, 0.2, 0.2)
        return cls(
            paces=(rng.uniform(0.85, 1.0), rng.uniform(0.8, 1.0)),
            hovers=rng.uniform(lowest, highest),
            grips=rng.uniform((-0.045, 0.06), (-0.03, 0.07)),
            lid_place=rng.uniform((-0.18, 0.87), (-0.15, 0.89)),
            meeting=rng.uniform((-0.02, -0.055, 1.07), (0.02, -0.035, 1.1)),
            leans=rng.uniform(0.25, 0.35, 2),
            trash_drop=rng.uniform((-0.03, -0.03, 0.18), (0.03, 0.03, 0.22)),
            turn=rng.uniform(-0.3, 0.3),
            hold=int(rng.integers(10, 14)),
        )


class Scene:
    """Where things are now, in the world [m]."""

    def __init__(self, env: RobosuiteEnvironment):
        self._env = env
        group = env.simulation.transport
        self.target_bin: np.ndarray = group.target_bin_pos
        """Middle of the target bin's floor (3,)."""
        self.trash_bin: np.ndarray = group.trash_bin_pos
        """Middle of the trash bin's floor (3,)."""

    def lid(self) -> Pose:
        """Return the lid's centre, 5 mm below the middle of its handle."""
        return body_pose(self._env, f"{LID}_root")

    def trash(self) -> Pose:
        """Return the cube of trash."""
        return body_pose(self._env, f"{TRASH}_main")

    def hammer(self) -> Pose:
        """Return the hammer: middle of its handle."""
        return body_pose(self._env, f"{HAMMER}_root")

    def handle(self, along: float, hand: Hand, lean: float = 0.0) -> Pose:
        """Return a grasp of the hammer's handle `along` [m] from its middle to the right arm, closing across it."""
        position, matrix = self.hammer()
        axis = matrix[:, 2] * np.sign(matrix[1, 2])
        return Pose(position + along * axis, facing(hand, heading(axis) - np.pi / 2, lean))

    def trash_is_out(self) -> bool:
        """Say whether the trash is in or above the trash bin."""
        return bool(np.all(np.abs(self.trash().position - self.trash_bin)[:2] < BIN_HALF_WIDTH))

    def lost(self) -> bool:
        """Say whether the hammer lies where no arm reaches it."""
        return bool(self.hammer().position[2] < REACHABLE_Z)


def forward(hand: Hand) -> float:
    """Return the direction along the y axis in which this hand's arm faces the other: +1 or -1."""
    return float(-np.sign(hand.pose.position[1]))


def facing(hand: Hand, yaw: float, lean: float = 0.0) -> np.ndarray:
    """Close a hand along the heading `yaw`, whichever finger is first, tilted forward by `lean` [rad]: (3, 3)."""
    yaw = nearest_turn(yaw, hand.yaw, np.pi)
    return top_down(yaw, lean * forward(hand) * np.sign(np.cos(yaw)))


def above(point: np.ndarray, z: float) -> np.ndarray:
    """Return the point (3,) over or under `point` at the height `z` [m]."""
    return point + up(z - point[2])
