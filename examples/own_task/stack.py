"""A robosuite task of one's own: Stack, a red cube on a green one, with a scripted expert."""

import numpy as np

from lfm_envs.experts.base import (
    CLOSED,
    OPEN,
    PRECISE,
    Hand,
    Pose,
    body_pose,
    close_on,
    heading,
    let_go,
    move,
    nearest_turn,
    top_down,
    up,
)
from lfm_envs.tasks import Task

RED, GREEN, HEIGHT_M = "cubeA", "cubeB_main", 0.045


def stack(env, rng):
    """Yield commands until the red cube rests on the green one."""
    while not (yield from attempt(env, Hand(env, pace=rng.uniform(0.7, 1.0)))):
        pass


def attempt(env, hand):
    """Grasp from above, carry high, set down, let go; returns whether it worked."""
    red, green = (lambda: body_pose(env, f"{RED}_main")), (lambda: body_pose(env, GREEN))
    down = top_down(nearest_turn(heading(red().matrix[:, 0]), hand.yaw, np.pi / 2))
    yield from move(hand, lambda: Pose(red().position + up(0.08), down), OPEN, within=(0.01, 0.1), steps=50)
    yield from move(hand, lambda: Pose(red().position, down), OPEN, within=(0.005, 0.1), steps=30, noise=PRECISE)
    if not (yield from close_on(hand, RED, Pose(red().position, down), steps=14)):
        return False
    lifted = Pose(hand.pose.position + up(0.12), down)
    yield from move(hand, lambda: lifted, CLOSED, within=(0.02, 0.1), steps=30)

    def above(height):
        carried = hand.pose.position - red().position
        return Pose(green().position + carried + up(height), down)

    yield from move(hand, lambda: above(0.1), CLOSED, within=(0.008, 0.1), steps=60)
    yield from move(hand, lambda: above(HEIGHT_M), CLOSED, within=(0.004, 0.1), steps=40, noise=PRECISE)
    return (yield from let_go(env, hand, opened=0.06, rise=0.1, success=3))


STACK = Task("stack", "Stack", horizon=400, object_dim=23, expert=stack)
