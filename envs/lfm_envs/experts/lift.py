"""Scripted expert for Lift: come from above, align with the cube, close, rise; look again after a miss."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from lfm_envs.experts.base import (
    CLOSED,
    FREE,
    OPEN,
    PRECISE,
    Command,
    Hand,
    Pose,
    Skill,
    body_pose,
    close_on,
    drawn_aside,
    funnelled,
    heading,
    move,
    nearest_turn,
    top_down,
    up,
)
from lfm_envs.robosuite_env import RobosuiteEnvironment

CUBE, CUBE_BODY = "cube", "cube_main"
SLIPPED_M = 0.03
"""A cube this far from where the fingers closed on it is lost."""


@dataclass(frozen=True)
class Style:
    """How one episode is performed, so that the demonstrations differ."""

    pace: float
    hover: np.ndarray
    """Point above the cube that the approach aims for first, relative to the cube [m]."""
    twist: float
    """Grasp yaw relative to the cube's sides [rad]."""
    depth: float
    """Grip height relative to the cube's centre [m]."""
    rise: float
    """Height to lift to, above the grasp [m]."""
    hold: int
    """Steps for which success must last."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Style":
        aside = drawn_aside(rng, 0.03)
        return cls(
            pace=rng.uniform(0.7, 1.0),
            hover=np.append(aside, rng.uniform(0.04, 0.09)),
            twist=float(np.clip(rng.normal(0, 0.08), -0.2, 0.2)),
            depth=rng.uniform(-0.006, 0.006),
            rise=rng.uniform(0.06, 0.1),
            hold=int(rng.integers(5, 9)),
        )


def lift(env: RobosuiteEnvironment, rng: np.random.Generator) -> Skill:
    """Lift the cube and hold it up; ends when success has lasted."""
    style = Style.draw(rng)
    while not (yield from _attempt(env, Hand(env, pace=style.pace), style)):
        pass


def _attempt(env: RobosuiteEnvironment, hand: Hand, style: Style) -> Generator[Command, None, bool]:
    """Approach, grasp, rise. Returns whether the cube came along."""
    matrix = top_down(nearest_turn(_cube_heading(env) + style.twist, hand.yaw, np.pi / 2))

    def hover() -> Pose:
        return Pose(_cube(env) + style.hover, matrix)

    def grasp() -> Pose:
        return Pose(_cube(env) + up(style.depth), matrix)

    yield from move(hand, hover, OPEN, within=(0.02, 0.3), steps=40)
    yield from move(hand, lambda: funnelled(hand, grasp(), 0.01), OPEN, within=(0.006, 0.12), steps=30, noise=PRECISE)
    if not (yield from close_on(hand, CUBE, grasp(), steps=14)):
        return False
    return (yield from _rise(env, hand, style))


def _rise(env: RobosuiteEnvironment, hand: Hand, style: Style) -> Generator[Command, None, bool]:
    """Lift and hold. Returns whether success lasted; False as soon as the cube has slipped."""
    start = hand.pose
    goal = Pose(start.position + up(style.rise), top_down(hand.yaw))
    grasp = _cube(env) - start.position
    held = 0
    while held < style.hold:
        if np.linalg.norm(_cube(env) - hand.pose.position - grasp) > SLIPPED_M:
            return False
        yield hand.toward(goal, CLOSED, FREE)
        held = held + 1 if env.success() else 0
    return True


def _cube(env: RobosuiteEnvironment) -> np.ndarray:
    return body_pose(env, CUBE_BODY).position


def _cube_heading(env: RobosuiteEnvironment) -> float:
    """Return the heading of one of the cube's upright sides, whichever face it lies on [rad]."""
    matrix = body_pose(env, CUBE_BODY).matrix
    upright = int(np.argmax(np.abs(matrix[2])))
    return heading(matrix[:, (upright + 1) % 3])
