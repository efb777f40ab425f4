"""The second half of ToolHang: hang the tool on the standing frame's hook by its larger hole.

The tool's local x points from that hole to the handle's other end.
"""

from collections.abc import Generator

import numpy as np

from lfm_envs.experts.base import OPEN, Command, Hand, Pose, body_pose, close_on, heading, move, top_down, up
from lfm_envs.experts.held import Held, carry
from lfm_envs.experts.tool_hang.frame import BODY as FRAME_BODY
from lfm_envs.experts.tool_hang.style import PRECISE, Style
from lfm_envs.robosuite_env import RobosuiteEnvironment

TOOL, BODY, HOLE = "tool", "tool_root", "tool_hole1_center"
HOOK_TOP = np.array([-0.04375, 0.0, 0.102])
"""Top of the hook's upright, in the frame [m]."""
HOOK_HEIGHT = 0.012
"""Height of the hook's upright above the bar [m]."""
INWARD = 0.006
"""How far the ring moves along the bar for each radian [m]."""
RING_GAP, RING_HALF = 0.0097, 0.0035
"""Half the hole's width between opposite sides, half the ring's thickness [m]."""
LEAD = np.deg2rad(6)
"""How far the goal leads the tool's tilt."""
LOWERED = 0.004
"""How far above its rest the ring is when the tilting starts [m]: pressed flat on the bar it would jam."""
ATTEMPTS = 4


def hang_tool(env: RobosuiteEnvironment, hand: Hand, style: Style) -> Generator[Command, None, bool]:
    """Grasp the tool, lower its hole over the hook, tilt it down, let go. Returns whether success lasted."""
    hand.pace = style.pace
    held = yield from _grasp(env, hand, style)
    if held is None or not (yield from _hook(env, held, style)):
        return False
    return (yield from _release(env, hand, style))


def hanging_pose(env: RobosuiteEnvironment, tilt: float) -> Pose:
    """Find where the hole's centre and how the tool must be for the ring, tilted by `tilt` [rad], to rest on the hook.

    At tilt 0 the ring lies on the bar, around the hook's upright. From 20° on it moves inward along the bar, midway
    between touching the upright with its upper edge and the bar's end with its lower one.
    """
    c, s = np.cos(tilt), np.sin(tilt)
    along = -INWARD * max(0.0, tilt - np.deg2rad(20))
    height = -HOOK_HEIGHT - RING_GAP * s + RING_HALF * c + 0.001
    frame = _frame(env)
    matrix = frame.matrix @ np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
    return Pose(frame.position + frame.matrix @ np.array([along, 0.0, height]), matrix)


def _frame(env: RobosuiteEnvironment) -> Pose:
    """Return the top of the hook's upright; x points along the hook, outward, and z up."""
    frame = body_pose(env, FRAME_BODY)
    yaw = heading(-frame.matrix[:, 0])
    c, s = np.cos(yaw), np.sin(yaw)
    upright = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    return Pose(frame.position + frame.matrix @ HOOK_TOP, upright)


def _grasp(env: RobosuiteEnvironment, hand: Hand, style: Style) -> Generator[Command, None, Held | None]:
    """Take the lying tool from above by its grip."""

    def at(height: float) -> Pose:
        tool = body_pose(env, BODY)
        grip = tool.position + style.tool_offset * tool.matrix[:, 0]
        return Pose(grip + up(height), top_down(heading(tool.matrix[:, 0]) + np.pi / 2))

    rest = Pose(style.rest, top_down(np.pi / 2))
    over = Pose(style.over_frame, rest.matrix)
    yield from move(hand, lambda: over, OPEN, within=(0.05, 0.5), steps=60)
    yield from move(hand, lambda: rest, OPEN, within=(0.05, 0.4), steps=60)
    yield from move(hand, lambda: at(style.tool_hover), OPEN, within=(0.02, 0.15), steps=60)
    yield from move(hand, lambda: at(0.0), OPEN, within=(0.006, 0.06), steps=40, noise=PRECISE)
    if not (yield from close_on(hand, TOOL, at(0.0), steps=16)):
        return None
    return Held(env, hand, BODY, HOLE)


def _hook(env: RobosuiteEnvironment, held: Held, style: Style) -> Generator[Command, None, bool]:
    """Bring the hole over the hook and tilt the handle down; lift and try again where the ring jams on the bar."""
    start = held.pose
    lifted = Pose(start.position + up(0.25), start.matrix)

    def above(height: float) -> Pose:
        goal = hanging_pose(env, 0.0)
        return Pose(goal.position + up(height), goal.matrix)

    yield from carry(held, lambda: lifted, within=(0.06, 0.3), steps=30)
    for _ in range(ATTEMPTS):
        held.hand.pace, held.integral = style.pace, True
        yield from carry(held, lambda: above(0.02 + style.over), within=(0.02, 0.15), steps=80)
        held.hand.pace = style.careful
        yield from carry(held, lambda: above(0.018), within=(0.0015, 0.02), steps=60, noise=PRECISE)
        held.integral = False
        yield from carry(held, lambda: above(LOWERED), within=(0.002, 0.03), steps=30, noise=PRECISE)
        if held.slipped():
            return False
        if (yield from _swing(env, held, style.droop)):
            return True
        yield from _swing(env, held, 0.0)
    return False


def _swing(env: RobosuiteEnvironment, held: Held, to: float) -> Generator[Command, None, bool]:
    """Tilt the handle to the angle `to` [rad] with the ring on the hook. Returns whether it followed.

    The goal leads the tool's own tilt by little, so that the hand's arc stays within its pace and the ring in place.
    """
    for _ in range(60):
        tilt = _tilt(env, held)
        if abs(to - tilt) < np.deg2rad(3) or held.slipped():
            break
        raised = LOWERED * max(0.0, 1 - tilt / np.deg2rad(30))
        goal = hanging_pose(env, tilt + float(np.clip(to - tilt, -LEAD, LEAD)))
        position = goal.position + up(raised)
        stiff = position + (position - held.pose.position)
        yield held.toward(Pose(stiff, goal.matrix), PRECISE)
    tilt, frame = _tilt(env, held), _frame(env)
    aside = frame.matrix.T @ (held.pose.position - hanging_pose(env, tilt).position)  # along the bar it may slide
    return float(np.linalg.norm(aside[1:])) < 0.008 and abs(to - tilt) < np.deg2rad(12) and not held.slipped()


def _tilt(env: RobosuiteEnvironment, held: Held) -> float:
    """Return how far the handle points down now [rad]."""
    handle = _frame(env).matrix.T @ held.pose.matrix[:, 0]
    return float(np.arctan2(-handle[2], handle[0]))


def _release(env: RobosuiteEnvironment, hand: Hand, style: Style) -> Generator[Command, None, bool]:
    """Open at the pose the hand has until success has lasted; a tool that sticks on the hook takes its time to fall."""
    at, lasted = hand.pose, 0
    for _ in range(60):
        if lasted >= style.hold:
            return True
        yield hand.toward(at, OPEN, PRECISE)
        lasted = lasted + 1 if env.success() else 0
    return False
