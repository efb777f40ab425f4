"""Scripted expert for TwoArmTransport: one arm opens the bin and hands the hammer over, the other clears and fills.

The left arm (robot 0, at y < 0) takes the lid off, fetches the hammer and offers it between the tables. The right
arm (robot 1, at y > 0) moves the trash meanwhile, takes the hammer and lowers it into the target bin.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np

from lfm_envs.experts.base import (
    CLOSED,
    OPEN,
    PRECISE,
    Command,
    Hand,
    Pose,
    Skill,
    close_on,
    funnelled,
    heading,
    hold,
    move,
    nearest_turn,
    retreat,
    together,
    top_down,
    unless,
    up,
)
from lfm_envs.experts.transport_scene import HAMMER, LID, TRASH, Scene, Style, above, facing, forward
from lfm_envs.robosuite_env import RobosuiteEnvironment

LID_CLEAR_Z, TRASH_CLEAR_Z, HAMMER_CLEAR_Z = 1.0, 0.99, 1.04
"""Heights of a hand at which what it holds passes over the bins' walls (0.95) [m]."""
RISE_M = 0.06
"""Over this much height before it is clear, a rising hand begins to swing aside."""
OVERSHOOT_M = 0.05
"""How much higher a loaded hand aims while it swings: it sags."""
NEAR_M = 0.08
"""So near to its goal sideways, a hand comes down."""
HANGING_Z = 1.08
"""Height of the hammer's middle at which it is brought over the target bin, hanging tilted [m]."""
SAG_M = 0.015
"""How far ahead of the grasp the hands aim while closing: near to their bases they yield backwards."""
RELEASED_M = 0.055
"""Fingers farther apart than this have let go of lid, trash or hammer."""
WIDE_OPEN_M = 0.075
"""Fingers farther apart than this do not lift the hammer out again when they rise."""
IN_HAND_M = 0.11
"""A hammer whose middle is farther than this from the hand has been dropped."""
SLIPPED_M = 0.03
"""A lid or cube that has moved more than this in the hand is lost."""

Attempt = Generator[Command, None, bool]


@dataclass
class Relay:
    """How far the hand-over has come."""

    offered: bool = False
    """The left hand holds the hammer near the meeting point."""
    taken: bool = False
    """The right hand holds it too."""
    free: bool = False
    """The left hand has let go."""


def transport(env: RobosuiteEnvironment, rng: np.random.Generator) -> Skill:
    """Bring the hammer into the target bin and the trash into its own; gives up when the hammer is out of reach."""
    style, scene, relay = Style.draw(rng), Scene(env), Relay()
    left, right = (Hand(env, arm, pace) for arm, pace in enumerate(style.paces))
    arms = together((left, _give(scene, left, style, relay)), (right, _take(env, scene, right, style, relay)))
    for command in arms:
        yield command
        if scene.lost():
            return


def _give(scene: Scene, hand: Hand, style: Style, relay: Relay) -> Skill:
    """Return the left arm's part."""
    while not (yield from _lid_off(scene, hand, style)):
        pass
    while not (yield from _fetch(scene, hand, style, relay)):
        pass
    yield from hold(hand, CLOSED, until=lambda: relay.taken)
    yield from hold(hand, OPEN, until=lambda: hand.opening > RELEASED_M)
    relay.free = True
    position, matrix = hand.pose
    away = Pose(position - 0.1 * matrix[:, 2] - np.array([0.0, 0.1 * forward(hand), 0.0]), matrix)
    yield from move(hand, lambda: away, OPEN, within=(0.02, 0.3), steps=25)


def _take(env: RobosuiteEnvironment, scene: Scene, hand: Hand, style: Style, relay: Relay) -> Skill:
    """Return the right arm's part."""
    while not (yield from _trash_out(scene, hand, style)):
        pass
    yield from _receive(scene, hand, style, relay)
    while not (yield from _deliver(env, scene, hand, style)):
        yield from _grasp(hand, HAMMER, lambda: scene.handle(0.0, hand), style.hovers[1])


def _grasp(hand: Hand, item: str, grasp: Callable[[], Pose], hover: np.ndarray) -> Attempt:
    """Come from above, sink in, close. Returns whether the fingers hold the item."""

    def over() -> Pose:
        position, matrix = grasp()
        return Pose(position + hover, matrix)

    yield from move(hand, over, OPEN, within=(0.03, 0.3), steps=60)
    if not (yield from move(hand, lambda: funnelled(hand, grasp(), 0.01), OPEN, (0.01, 0.12), 40, PRECISE)):
        return False
    position, matrix = grasp()
    ahead = position + np.array([0.0, SAG_M * forward(hand), 0.0])
    return (yield from close_on(hand, item, Pose(ahead, matrix), steps=20))


def _carry(hand: Hand, goal: Pose, clear_z: float, within: tuple[float, float], steps: int) -> Attempt:
    """Rise, swing over the walls and come down to the goal, with closed fingers. Returns whether it arrived."""
    start, swing = hand.pose, 0.0

    def arc() -> Pose:
        nonlocal swing
        now = hand.pose.position
        swing = max(swing, min(1.0, (now[2] - clear_z) / RISE_M + 1))
        far = np.linalg.norm((goal.position - now)[:2]) > NEAR_M
        z = max(goal.position[2], clear_z + OVERSHOOT_M) if far else goal.position[2]
        aside = above(start.position + swing * (goal.position - start.position), z)
        return Pose(aside, goal.matrix if swing else start.matrix)

    return (yield from move(hand, arc, CLOSED, within, steps))


def _lid_off(scene: Scene, hand: Hand, style: Style) -> Attempt:
    """Put the lid on the table beside the bin. Returns whether it stayed in hand until there."""

    def handle() -> Pose:
        position, matrix = scene.lid()
        return Pose(position + up(0.002), facing(hand, heading(matrix[:, 0])))

    if not (yield from _grasp(hand, LID, handle, style.hovers[0])):
        return False
    x, z = style.lid_place
    beside = Pose(np.array([x, hand.pose.position[1], z]), facing(hand, 0.0))
    if not (yield from unless(_slipped(hand, scene.lid), _carry(hand, beside, LID_CLEAR_Z, (0.015, 0.2), steps=90))):
        return False
    yield from hold(hand, OPEN, until=lambda: hand.opening > RELEASED_M, steps=12)
    free = Pose(above(hand.pose.position, z + 0.06), beside.matrix)
    yield from move(hand, lambda: free, OPEN, within=(0.03, 0.3), steps=12)
    return True


def _fetch(scene: Scene, hand: Hand, style: Style, relay: Relay) -> Attempt:
    """Take the hammer out of its bin to the hand-over. Returns whether it stayed in hand."""
    if not (yield from _grasp(hand, HAMMER, lambda: scene.handle(style.grips[0], hand), style.hovers[1])):
        return False
    dropped, meeting = _dropped(scene, hand), Pose(style.meeting, facing(hand, 0.0, style.leans[0]))
    yield from unless(dropped, _carry(hand, meeting, HAMMER_CLEAR_Z, (0.08, 0.4), steps=90))
    relay.offered = not dropped()
    yield from unless(dropped, move(hand, lambda: meeting, CLOSED, (0.03, 0.2), 40))
    relay.offered = not dropped()
    return relay.offered


def _trash_out(scene: Scene, hand: Hand, style: Style) -> Attempt:
    """Move the trash into its own bin. Returns whether it fell there."""

    def cube() -> Pose:
        position, matrix = scene.trash()
        side = int(np.argmin(np.abs(matrix[2])))
        return Pose(position, top_down(nearest_turn(heading(matrix[:, side]), hand.yaw, np.pi / 2)))

    if not (yield from _grasp(hand, TRASH, cube, style.hovers[2])):
        return False
    goal = Pose(scene.trash_bin + style.trash_drop, facing(hand, 0.0))
    yield from unless(_slipped(hand, scene.trash), _carry(hand, goal, TRASH_CLEAR_Z, (0.03, 0.5), steps=90))
    yield from hold(hand, OPEN, until=lambda: hand.opening > RELEASED_M, steps=12)
    return scene.trash_is_out()


def _receive(scene: Scene, hand: Hand, style: Style, relay: Relay) -> Skill:
    """Wait for the hammer, take it, and wait until the other hand is off it."""
    aside = Pose(style.meeting + np.array([0.0, 0.25, 0.1]), facing(hand, 0.0, style.leans[1]))
    while not relay.taken:
        yield from move(hand, lambda: aside, OPEN, within=(0.03, 0.3), steps=60)
        yield from hold(hand, OPEN, until=lambda: relay.offered)
        relay.taken = yield from unless(lambda: not relay.offered, _reach(scene, hand, style))
    yield from hold(hand, CLOSED, until=lambda: relay.free)


def _reach(scene: Scene, hand: Hand, style: Style) -> Attempt:
    """Come to the offered hammer along the hand's own axis and close. Returns whether the fingers hold it."""

    def grasp(back: float = 0.0) -> Pose:
        position, matrix = scene.handle(style.grips[1], hand, style.leans[1])
        return Pose(position - back * matrix[:, 2], matrix)

    yield from move(hand, lambda: grasp(back=0.07), OPEN, within=(0.02, 0.15), steps=40)
    if not (yield from move(hand, grasp, OPEN, (0.01, 0.15), 40, PRECISE)):
        return False
    return (yield from close_on(hand, HAMMER, grasp(), steps=14))


def _deliver(env: RobosuiteEnvironment, scene: Scene, hand: Hand, style: Style) -> Attempt:
    """Lower the hammer into the target bin and let go. Returns whether the task is done."""
    dropped, matrix = _dropped(scene, hand), facing(hand, style.turn)

    def centred(hammer_z: float) -> Pose:
        return Pose(hand.pose.position + above(scene.target_bin, hammer_z) - scene.hammer().position, matrix)

    def low() -> Pose:
        return Pose(above(centred(0.0).position, 0.85), matrix)

    if not (yield from unless(dropped, move(hand, lambda: centred(HANGING_Z), CLOSED, (0.04, 0.2), 90))):
        return False
    yield from unless(dropped, move(hand, low, CLOSED, (0.015, 0.3), 40, PRECISE))
    yield from hold(hand, OPEN, until=lambda: hand.opening > WIDE_OPEN_M, steps=15)
    position, matrix = hand.pose
    return (yield from retreat(env, hand, Pose(above(position, HANGING_Z), matrix), style.hold, steps=45))


def _dropped(scene: Scene, hand: Hand) -> Callable[[], bool]:
    """Return a check for the hammer, which may turn between the fingers."""
    return lambda: bool(np.linalg.norm(scene.hammer().position - hand.pose.position) > IN_HAND_M)


def _slipped(hand: Hand, item: Callable[[], Pose]) -> Callable[[], bool]:
    """Return a check for an item that keeps its place between the fingers."""

    def in_hand() -> np.ndarray:
        position, matrix = hand.pose
        return matrix.T @ (item().position - position)

    grasp = in_hand()
    return lambda: bool(np.linalg.norm(in_hand() - grasp) > SLIPPED_M)
