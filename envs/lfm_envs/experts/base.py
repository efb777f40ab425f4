"""What scripted experts are made of.

A skill is a generator: it yields one `Command` per control step, looks at the simulator again when it is resumed, and
so reads like the instructions one would give a person. An expert is a skill that ends when its task is done.
Positions are in the world [m]; a hand's matrix is its grip site's: +z is the approach, the fingers close along x.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np

from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_policy.actions.poses import DELTA_WIDTH, matrix_to_rotvec

FREE = 0.1
"""Action noise (standard deviation, in units of a delta action) that free motion can take."""
PRECISE = 0.03
"""Action noise that grasping and placing can take."""
OPEN, CLOSED = -1.0, 1.0
REST_YAW = np.pi / 2
"""Heading of the fingers of a Panda at rest that faces along x [rad]."""
LEAD_M = 0.06
"""How far ahead the next point on a way lies: further than one step takes."""


class Pose(NamedTuple):
    """Position (3,) [m] and rotation matrix (3, 3) in the world."""

    position: np.ndarray
    matrix: np.ndarray


@dataclass(frozen=True)
class Command:
    """What an expert wants done in one control step."""

    action: np.ndarray
    """The expert's own delta action, (7 * arms,): what gets recorded."""
    noise: np.ndarray
    """Standard deviation (7 * arms,) of the disturbance that may be added to what is executed."""

    def disturbed(self, rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
        """Return the action to execute: this command plus `scale` times its white noise, within [-1, 1]."""
        return np.clip(self.action + scale * self.noise * rng.standard_normal(self.noise.shape), -1, 1)


Skill = Generator[Command, None, None]
Expert = Callable[[RobosuiteEnvironment, np.random.Generator], Skill]


class Hand:
    """One arm's gripper: where it is, what it holds, and how to servo it.

    Args:
        env: the environment to read and to command.
        arm: which arm.
        pace: largest translation and rotation, as parts of a full delta action.
    """

    POSITION_GAIN = 1.6
    ROTATION_GAIN = 1.2

    def __init__(self, env: RobosuiteEnvironment, arm: int = 0, pace: float = 1.0):
        self._env = env
        self._arm = arm
        self.pace = pace
        self.gripper = OPEN
        """The fingers' command given last."""

    @property
    def pose(self) -> Pose:
        """The grip site now."""
        return Pose(*self._env.grip_poses()[self._arm])

    @property
    def yaw(self) -> float:
        """Heading of the fingers' closing direction about the vertical [rad]."""
        return heading(self.pose.matrix[:, 0])

    @property
    def opening(self) -> float:
        """Gap between the fingers [m]."""
        simulation = self._env.simulation
        fingers = simulation.robots[self._arm]._ref_gripper_joint_pos_indexes["right"]
        return float(np.abs(simulation.sim.data.qpos[fingers]).sum())

    def holds(self, name: str) -> bool:
        """Say whether both fingers touch the robosuite object `name`."""
        simulation = self._env.simulation
        model = next(item for item in simulation.model.mujoco_objects if item.name == name)
        return bool(simulation._check_grasp(simulation.robots[self._arm].gripper, model))

    def toward(self, target: Pose, gripper: float, noise: float) -> Command:
        """Make a step of a proportional servo; a command that saturates is scaled as a whole, keeping its direction."""
        now, (position_reach, rotation_reach) = self.pose, self._reach()
        move = self.POSITION_GAIN * (target.position - now.position) / position_reach
        turn = self.ROTATION_GAIN * matrix_to_rotvec(target.matrix @ now.matrix.T) / rotation_reach
        pose = np.concatenate([_limited(move, self.pace), _limited(turn, self.pace)])
        self.gripper = gripper
        return Command(np.append(pose, gripper), noise * (np.arange(DELTA_WIDTH) < 6))

    def error(self, target: Pose) -> tuple[float, float]:
        """Return distance [m] and angle [rad] from the hand to `target`."""
        now = self.pose
        turn = matrix_to_rotvec(target.matrix @ now.matrix.T)
        return float(np.linalg.norm(target.position - now.position)), float(np.linalg.norm(turn))

    def _reach(self) -> tuple[float, float]:
        controller = self._env.contract.controllers[self._arm]
        return controller.delta_position_m, controller.delta_rotation_rad


def move(
    hand: Hand,
    target: Callable[[], Pose],
    gripper: float,
    within: tuple[float, float],
    steps: int,
    noise: float = FREE,
) -> Generator[Command, None, bool]:
    """Servo towards a live target until within ([m], [rad]) of it, for at most `steps`. Returns whether it arrived."""
    for _ in range(steps):
        goal = target()
        distance, angle = hand.error(goal)
        if distance < within[0] and angle < within[1]:
            return True
        yield hand.toward(goal, gripper, noise)
    return False


def close_on(hand: Hand, name: str, at: Pose, steps: int, settle: int = 2) -> Generator[Command, None, bool]:
    """Close the fingers at a pose until both have touched the object for `settle` steps. Returns whether they do."""
    touching = 0
    for _ in range(steps):
        touching = touching + 1 if hand.holds(name) else 0
        if touching > settle:
            return True
        yield hand.toward(at, CLOSED, PRECISE)
    return False


def retreat(env: RobosuiteEnvironment, hand: Hand, goal: Pose, hold: int, steps: int) -> Generator[Command, None, bool]:
    """Go to `goal` with open fingers until success has held for `hold` steps in a row. Returns whether it has."""
    held = 0
    for _ in range(steps):
        if held >= hold:
            return True
        yield hand.toward(goal, OPEN, FREE)
        held = held + 1 if env.success() else 0
    return held >= hold


def let_go(
    env: RobosuiteEnvironment, hand: Hand, opened: float, rise: float, success: int
) -> Generator[Command, None, bool]:
    """Open the fingers to `opened` [m] and rise by `rise` [m], until success has held for `success` steps.

    Returns whether it has.
    """
    yield from hold(hand, OPEN, until=lambda: hand.opening > opened, steps=10)
    goal = Pose(hand.pose.position + up(rise), top_down(hand.yaw))
    return (yield from retreat(env, hand, goal, success, steps=20))


def funnelled(hand: Hand, target: Pose, tolerance: float) -> Pose:
    """Return `target`, raised while the hand is further aside from it than `tolerance` [m]."""
    aside = float(np.linalg.norm((target.position - hand.pose.position)[:2]))
    return Pose(target.position + up(max(0.0, 2 * (aside - tolerance))), target.matrix)


def arched(now: np.ndarray, goal: np.ndarray, clearance: float, descend: tuple[float, float]) -> np.ndarray:
    """Find the next point (3,) [m] on a way over obstacles: across as fast as the climb allows, down near the goal.

    Args:
        now: where the thing on its way is.
        goal: where it goes.
        clearance: its height while it crosses [m].
        descend: how far aside [m] it may be at the goal's height, and how steeply that opens upwards.
    """
    across, (mouth, slope) = goal[:2] - now[:2], descend
    aside = max(float(np.linalg.norm(across)), 1e-9)
    height = min(clearance, goal[2] + slope * max(0.0, aside - mouth))
    lead = np.clip(LEAD_M - (height - now[2]), 0, LEAD_M)
    return np.append(now[:2] + across * min(1.0, lead / aside), height)


def hold(
    hand: Hand, gripper: float, until: Callable[[], bool], steps: int | None = None
) -> Generator[Command, None, bool]:
    """Keep the hand where it is while the fingers open or close. Returns whether `until` came true within `steps`."""
    pose = hand.pose
    for _ in count() if steps is None else range(steps):
        if until():
            return True
        yield hand.toward(pose, gripper, PRECISE)
    return until()


def unless(broken: Callable[[], bool], skill: Generator[Command, None, bool]) -> Generator[Command, None, bool]:
    """Run a skill and return what it returns; give up and return False as soon as `broken`."""
    while not broken():
        try:
            command = next(skill)
        except StopIteration as end:
            return end.value
        yield command
    return False


def together(*parts: tuple[Hand, Generator[Command, None, object]]) -> Skill:
    """Run one skill per arm side by side, in the order of the action; ends with the last, who ended earlier rests."""
    going = [True] * len(parts)

    def part(index: int, hand: Hand, skill: Generator[Command, None, object]) -> Skill:
        yield from skill
        going[index] = False
        yield from hold(hand, hand.gripper, until=lambda: False)

    arms = [part(index, *pair) for index, pair in enumerate(parts)]
    while True:
        commands = [next(arm) for arm in arms]
        if not any(going):
            return
        yield Command(*(np.concatenate(field) for field in zip(*((c.action, c.noise) for c in commands), strict=True)))


def body_pose(env: RobosuiteEnvironment, body: str) -> Pose:
    """Return where a body is now."""
    env.refresh()
    data = env.simulation.sim.data
    index = env.simulation.sim.model.body_name2id(body)
    return Pose(data.body_xpos[index].copy(), data.body_xmat[index].reshape(3, 3).copy())


def drawn_aside(rng: np.random.Generator, furthest: float) -> np.ndarray:
    """Return a horizontal offset (2,) [m], its direction and its length up to `furthest` drawn uniformly."""
    direction, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0, furthest)
    return np.array([radius * np.cos(direction), radius * np.sin(direction)])


def up(height: float) -> np.ndarray:
    """Return a vertical vector (3,) [m]."""
    return np.array([0.0, 0.0, height])


def top_down(yaw: float, lean: float = 0.0) -> np.ndarray:
    """Point a hand down, closing along the heading `yaw`; `lean` tilts it to point towards yaw + 90° [rad]: (3, 3)."""
    c, s = np.cos(yaw), np.sin(yaw)
    down = np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]])
    c, s = np.cos(lean), np.sin(lean)
    return down @ np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def heading(vector: np.ndarray) -> float:
    """Return the angle of a vector's horizontal part from the world's x axis [rad]."""
    return float(np.arctan2(vector[1], vector[0]))


def nearest_turn(angle: float, reference: float, symmetry: float) -> float:
    """Return the angle equal to `angle` modulo `symmetry` that is nearest to `reference` [rad]."""
    return angle + symmetry * round((reference - angle) / symmetry)


def _limited(vector: np.ndarray, limit: float) -> np.ndarray:
    return vector * min(1.0, limit / max(float(np.abs(vector).max()), 1e-12))
