"""The first half of ToolHang: stand the hook frame in its base.

The frame's local axes: z along its upright, from the tip to the bar; x from the hook back to the upright.
"""

from collections.abc import Generator

import numpy as np

from lfm_envs.experts.base import OPEN, Command, Hand, Pose, body_pose, close_on, hold, move, up
from lfm_envs.experts.held import Held, carry
from lfm_envs.experts.tool_hang.style import PRECISE, Style
from lfm_envs.robosuite_env import RobosuiteEnvironment

FRAME, BODY, TIP = "frame", "frame_root", "frame_tip_site"
GRIP = np.array([0.04375, 0.0, 0.0525])
"""Centre of the frame's grip, in the frame [m]."""
HOLE = np.array([0.0, 0.045, 0.08])
"""Centre of the hole's rim, in the stand [m]."""
DEPTH = 0.1428
"""How far below the rim the tip has to be before it is let go [m]; it drops the last bit."""
STANDING = np.diag([-1.0, -1.0, 1.0])
"""The standing frame's matrix: its hook points to +x, where the arm's joints have most room."""
FREED_M = 0.06
"""Gap between the fingers that frees the grip [m]."""
ATTEMPTS = 6


def stand_frame(env: RobosuiteEnvironment, hand: Hand, style: Style) -> Generator[Command, None, bool]:
    """Grasp the frame, insert it, let go. Returns whether it stands."""
    hand.pace = style.pace
    held = yield from _grasp(env, hand, style)
    if held is None or not (yield from _insert(env, held, style)):
        yield from back_off(hand)
        return assembled(env)
    yield from hold(hand, OPEN, until=lambda: hand.opening > FREED_M, steps=12)
    yield from back_off(hand)
    return assembled(env)


def assembled(env: RobosuiteEnvironment) -> bool:
    """Say whether the frame stands in its base."""
    return bool(env.simulation._check_frame_assembled())


def back_off(hand: Hand, distance: float = 0.12) -> Generator[Command, None, None]:
    """Back off along the approach with open fingers."""
    at = hand.pose
    goal = Pose(at.position - distance * at.matrix[:, 2], at.matrix)
    yield from move(hand, lambda: goal, OPEN, within=(0.03, 0.2), steps=20, noise=PRECISE)


def _grasp(env: RobosuiteEnvironment, hand: Hand, style: Style) -> Generator[Command, None, Held | None]:
    """Take the lying frame by its grip, tilted so that the hand clears the stand later."""
    c, s = np.cos(style.tilt), np.sin(style.tilt)
    in_frame = np.array([[1.0, 0.0, 0.0], [0.0, -s, c], [0.0, -c, -s]])

    def at(back: float) -> Pose:
        frame = body_pose(env, BODY)
        matrix = frame.matrix @ in_frame
        grip = frame.position + frame.matrix @ (GRIP + np.array([0.0, 0.0, style.frame_offset]))
        return Pose(grip - back * matrix[:, 2], matrix)

    yield from move(hand, lambda: at(style.frame_hover), OPEN, within=(0.02, 0.15), steps=60)
    yield from move(hand, lambda: at(0.0), OPEN, within=(0.005, 0.06), steps=40, noise=PRECISE)
    if not (yield from close_on(hand, FRAME, at(0.0), steps=16)):
        return None
    return Held(env, hand, BODY, TIP)


def _insert(env: RobosuiteEnvironment, held: Held, style: Style) -> Generator[Command, None, bool]:
    """Bring the tip over the hole and down into it; back off and align again where it misses."""
    start = held.pose
    lifted = Pose(start.position + up(0.22), start.matrix)
    yield from carry(held, lambda: lifted, within=(0.06, 0.3), steps=30)

    def above(height: float) -> Pose:
        return Pose(_rim(env) + up(height), STANDING)

    for _ in range(ATTEMPTS):
        held.hand.pace = style.pace
        yield from carry(held, lambda: above(style.high), within=(0.02, 0.15), steps=80)
        held.hand.pace = style.careful
        yield from carry(held, lambda: above(0.02), within=(0.002, 0.02), steps=60, noise=PRECISE)
        if held.slipped():
            return False
        if (yield from _descend(env, held)):
            return True
    return False


def _descend(env: RobosuiteEnvironment, held: Held) -> Generator[Command, None, bool]:
    """Lower the tip straight into the hole. Returns False as soon as it is outside, slips or gets stuck."""
    for _ in range(70):
        tip, rim = held.pose.position, _rim(env)
        aside = float(np.linalg.norm((tip - rim)[:2]))
        if tip[2] < rim[2] - DEPTH:
            return assembled(env)
        if aside > 0.007 or held.slipped():
            return False
        step = 0.025 if aside < 0.003 else 0.0
        yield held.toward(Pose(np.append(rim[:2], tip[2] - step), STANDING), PRECISE)
    return False


def _rim(env: RobosuiteEnvironment) -> np.ndarray:
    stand = body_pose(env, "stand_root")
    return stand.position + stand.matrix @ HOLE
