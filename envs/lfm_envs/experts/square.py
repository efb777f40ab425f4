"""Scripted expert for NutAssemblySquare: grasp the nut by its handle, turn that to the robot, lower over the peg."""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import product

import numpy as np

from lfm_envs.experts.base import (
    OPEN,
    PRECISE,
    REST_YAW,
    Command,
    Hand,
    Pose,
    Skill,
    arched,
    body_pose,
    close_on,
    drawn_aside,
    funnelled,
    heading,
    let_go,
    move,
    nearest_turn,
    top_down,
    up,
)
from lfm_envs.experts.held import Held, carry
from lfm_envs.robosuite_env import RobosuiteEnvironment

NUT, BODY, SITE, PEG = "SquareNut", "SquareNut_main", "SquareNut_center_site", "peg1"
PLACED_HEADINGS = np.pi, -np.pi / 2
"""Where the handle may point on the peg: to the robot or to the middle; the other sides are out of reach [rad]."""
YAW_LIMIT = 2.0
"""Largest yaw from the rest posture: beyond, the arm twists itself rather than its last joint [rad]."""
STRIDE_RAD = 1.2
"""Longer turns are made in strides, so that they go back the way they came [rad]."""
ALIGNED_RAD = 0.15
"""Largest tilt or twist with which the nut may go down on the peg."""
TURNED_M = 0.05
"""Distance from the peg at which the turn is to be complete: turned earlier, the hand would be too near the robot."""
OPENED_M = 0.05
"""Gap between the fingers that lets go of the handle, 0.032 m wide."""


@dataclass(frozen=True)
class Style:
    """How one episode is performed, so that the demonstrations differ."""

    pace: float
    hover: np.ndarray
    """Point above the handle that the approach aims for first, relative to the grip [m]."""
    skew: float
    """Grasp yaw relative to the handle [rad]."""
    grip: np.ndarray
    """Where the handle is gripped: along it from the hole's centre, and above its middle [m]."""
    clearance: float
    """Height of the nut while it crosses to the peg, whose top is at 0.95 m [m]."""
    release: float
    """Height of the nut when the hand lets go [m]."""
    rise: float
    """Height to retreat to, above the release [m]."""
    hold: int
    """Steps for which success must last."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Style":
        aside = drawn_aside(rng, 0.03)
        return cls(
            pace=rng.uniform(0.85, 1.0),
            hover=np.append(aside, rng.uniform(0.05, 0.09)),
            skew=float(np.clip(rng.normal(0, 0.06), -0.15, 0.15)),
            grip=np.array([rng.uniform(0.058, 0.066), rng.uniform(0.0, 0.006)]),
            clearance=rng.uniform(0.98, 1.01),
            release=rng.uniform(0.845, 0.875),
            rise=rng.uniform(0.06, 0.1),
            hold=int(rng.integers(5, 9)),
        )


@dataclass(frozen=True)
class Plan:
    """How to get the handle from where it points to where it may point: yaws are relative to the rest posture [rad]."""

    grasp_yaw: float
    place_yaw: float
    placed: float
    """Where the handle points on the peg."""

    @classmethod
    def make(cls, handle: float) -> "Plan":
        """Return the plan with the least turning, for a handle that points along a heading [rad]."""
        plans = []
        for grasp, placed in product((handle, handle - np.pi), PLACED_HEADINGS):
            grasp, turn = (nearest_turn(angle, 0.0, 2 * np.pi) for angle in (grasp, placed - handle))
            if max(abs(grasp), abs(grasp + turn)) <= YAW_LIMIT:
                plans.append((abs(grasp) + abs(turn) + abs(grasp + turn), cls(grasp, grasp + turn, placed)))
        return min(plans, key=lambda plan: plan[0])[1]


def square(env: RobosuiteEnvironment, rng: np.random.Generator) -> Skill:
    """Put the square nut on its peg; ends when the hand has let go and success has lasted."""
    style = Style.draw(rng)
    hand = Hand(env, pace=style.pace)
    while True:
        plan = Plan.make(_handle_heading(env))
        if (yield from _grasp(env, hand, style, plan.grasp_yaw + style.skew)):
            yield from _place(env, hand, style, plan)
            if (yield from let_go(env, hand, OPENED_M, style.rise, style.hold)):
                return


def _grasp(env: RobosuiteEnvironment, hand: Hand, style: Style, yaw: float) -> Generator[Command, None, bool]:
    """Come from above and close. Returns whether both fingers touch the nut."""

    def grasp() -> Pose:
        nut, stride = _nut(env), np.clip(yaw - _twist(hand), -STRIDE_RAD, STRIDE_RAD)
        handle = nut.position + nut.matrix[:, 0] * style.grip[0]
        return Pose(handle + up(style.grip[1]), top_down(hand.yaw + stride))

    def hover() -> Pose:
        position, matrix = grasp()
        return Pose(position + style.hover, matrix)

    yield from move(hand, hover, OPEN, within=(0.03, 0.3), steps=60)
    yield from move(hand, lambda: funnelled(hand, grasp(), 0.01), OPEN, (0.008, 0.15), steps=30, noise=PRECISE)
    return (yield from close_on(hand, NUT, grasp(), steps=14))


def _place(env: RobosuiteEnvironment, hand: Hand, style: Style, plan: Plan) -> Generator[Command, None, bool]:
    """Move over the peg and down. Returns whether the nut arrived; False as soon as it has slipped."""
    held = Held(env, hand, BODY, SITE)
    goal = np.append(body_pose(env, PEG).position[:2], style.release)

    def left() -> tuple[float, float]:
        """Return distance to the peg [m] and turn to make, within the arm's limits [rad]."""
        turn = nearest_turn(plan.placed - _handle_heading(env), plan.place_yaw - _twist(hand), 2 * np.pi)
        return float(np.linalg.norm(goal[:2] - held.pose.position[:2])), turn

    start_aside, start_turn = left()

    def path() -> Pose:
        now, (aside, turn) = held.pose, left()
        later = start_turn * np.clip((aside - TURNED_M) / (start_aside - TURNED_M), 0, 1)
        stride = np.clip(turn - later, -STRIDE_RAD, STRIDE_RAD)
        level = _level(_handle_heading(env) + stride, upright=now.matrix[2, 2] > 0)
        aligned = held.error(Pose(now.position, level))[1] < ALIGNED_RAD
        position = arched(now.position, goal, style.clearance, descend=(0.004, 20))
        return Pose(position if aligned else np.append(position[:2], style.clearance), level)

    if not (yield from carry(held, path, within=(0.02, ALIGNED_RAD), steps=150)):
        return False
    return (yield from carry(held, path, within=(0.006, ALIGNED_RAD), steps=60, noise=PRECISE))


def _twist(hand: Hand) -> float:
    """Return the yaw from the rest posture [rad]."""
    return nearest_turn(hand.yaw - REST_YAW, 0.0, 2 * np.pi)


def _level(towards: float, upright: bool) -> np.ndarray:
    """Return a level nut with its handle pointing along a heading: (3, 3)."""
    x, z = np.array([np.cos(towards), np.sin(towards), 0.0]), up(1.0 if upright else -1.0)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _nut(env: RobosuiteEnvironment) -> Pose:
    return body_pose(env, BODY)


def _handle_heading(env: RobosuiteEnvironment) -> float:
    return heading(_nut(env).matrix[:, 0])
