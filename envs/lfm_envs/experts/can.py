"""Scripted expert for PickPlaceCan: grasp the can from above, over the wall, set it down in its quarter of the bin."""

from collections.abc import Generator
from dataclasses import dataclass

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

CAN, BODY, SITE = "Can", "Can_main", "Can_default_site"
FLOOR_M = 0.82
"""Height of the bins' floor in the world."""
OPENED_M = 0.065
"""Gap between the fingers that lets go of the can, 0.05 m wide."""


@dataclass(frozen=True)
class Style:
    """How one episode is performed, so that the demonstrations differ."""

    pace: float
    hover: np.ndarray
    """Point above the can that the approach aims for first, relative to the can [m]."""
    grasp_yaw: float
    """Grasp yaw of a standing can, relative to the arm's rest posture [rad]."""
    depth: float
    """Grip height above a standing can's centre: any lower, and the palm presses on the can [m]."""
    clearance: float
    """Height of the can's centre while it crosses the wall [m]."""
    spot: np.ndarray
    """Where in its quarter of the bin the can is let go: from the middle, and its centre's height above the floor [m].

    On the near side: in the middle the arm would be stretched to its end.
    """
    place_yaw: float
    """Yaw of the hand over the bin, relative to the arm's rest posture [rad]."""
    rise: float
    """Height to retreat to, above the release [m]."""
    hold: int
    """Steps for which success must last."""
    turn: float = 0.0
    """By how much the yaws of all grasps are turned: 0, or a right angle to a side [rad]."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Style":
        aside = drawn_aside(rng, 0.03)
        return cls(
            pace=rng.uniform(0.85, 1.0),
            hover=np.append(aside, rng.uniform(0.07, 0.11)),
            grasp_yaw=rng.uniform(-0.5, 0.5),
            depth=rng.uniform(0.012, 0.03),
            clearance=rng.uniform(0.96, 1.02),
            spot=np.array([rng.uniform(-0.055, -0.03), rng.uniform(-0.075, -0.03), rng.uniform(0.045, 0.08)]),
            place_yaw=rng.uniform(-0.3, 0.3),
            rise=rng.uniform(0.08, 0.12),
            hold=int(rng.integers(5, 9)),
        )


def can(env: RobosuiteEnvironment, rng: np.random.Generator) -> Skill:
    """Move the can to its quarter of the bin; ends when the hand has let go and success has lasted."""
    return in_style(env, Style.draw(rng))


def in_style(env: RobosuiteEnvironment, style: Style) -> Skill:
    """Do as `can`, in a style that is given."""
    hand = Hand(env, pace=style.pace)
    while True:
        if (yield from _grasp(env, hand, style)):
            yield from _place(env, hand, style)
            if (yield from let_go(env, hand, OPENED_M, style.rise, style.hold)):
                return


def _grasp(env: RobosuiteEnvironment, hand: Hand, style: Style) -> Generator[Command, None, bool]:
    """Come from above and close. Returns whether both fingers touch the can."""
    matrix = top_down(_grasp_yaw(env, style))

    def hover() -> Pose:
        return Pose(_can(env).position + style.hover, matrix)

    def grasp() -> Pose:
        can = _can(env)
        return Pose(can.position + up(style.depth * can.matrix[2, 2] ** 2), matrix)

    yield from move(hand, hover, OPEN, within=(0.03, 0.4), steps=50)
    yield from move(hand, lambda: funnelled(hand, grasp(), 0.012), OPEN, (0.012, 0.2), steps=30, noise=PRECISE)
    return (yield from close_on(hand, CAN, grasp(), steps=12))


def _place(env: RobosuiteEnvironment, hand: Hand, style: Style) -> Generator[Command, None, bool]:
    """Move up, across and down. Returns whether the can arrived; False as soon as it has slipped."""
    held = Held(env, hand, BODY, SITE)
    matrix = top_down(REST_YAW + style.place_yaw) @ hand.pose.matrix.T @ held.pose.matrix
    goal = np.append(_quarter(env) + style.spot[:2], FLOOR_M + style.spot[2])

    def path() -> Pose:
        return Pose(arched(held.pose.position, goal, style.clearance, descend=(0.02, 2)), matrix)

    if not (yield from carry(held, path, within=(0.03, 0.5), steps=110)):
        return False
    return (yield from carry(held, path, within=(0.012, 0.3), steps=20, noise=PRECISE))


def _grasp_yaw(env: RobosuiteEnvironment, style: Style) -> float:
    """Take any yaw for a standing can; along a near wall, and across the axis of a can that was knocked over [rad]."""
    can = _can(env)
    axis, beside = can.matrix[:, 2], np.abs(can.position - env.simulation.bin1_pos)
    if abs(axis[2]) < 0.7:
        return nearest_turn(heading(axis) + np.pi / 2, REST_YAW + style.turn, np.pi)
    if 0.16 < beside[1] < 0.25:
        return REST_YAW + (style.turn or -np.pi / 2)
    return REST_YAW + style.turn + style.grasp_yaw


def _quarter(env: RobosuiteEnvironment) -> np.ndarray:
    """Return the centre of the can's quarter of the bin (2,) [m]."""
    simulation = env.simulation
    return simulation.target_bin_placements[simulation.object_id][:2]


def _can(env: RobosuiteEnvironment) -> Pose:
    return body_pose(env, BODY)
