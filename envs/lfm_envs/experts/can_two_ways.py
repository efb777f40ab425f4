"""PickPlaceCan in two ways: the hand turns to the left or to the right before it grasps the can."""

from dataclasses import replace

import numpy as np

from lfm_envs.experts.base import Skill
from lfm_envs.experts.can import OPENED_M, Style, in_style
from lfm_envs.modes import BETWEEN, Modes
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_policy.contract import Contract

TURN = np.pi / 2
"""How far the hand turns to its side [rad]; a Panda can turn as far to both, wherever the can stands."""
SPREAD = 0.4
"""Share that is left of how much the yaws of grasps differ, so that the ways stay apart."""
LEFT, RIGHT = "left", "right"


def can_two_ways(env: RobosuiteEnvironment, rng: np.random.Generator) -> Skill:
    """Do as `can`, with the hand turned to the left or to the right, which a coin decides and the start does not."""
    return in_style(env, drawn(rng))


def drawn(rng: np.random.Generator) -> Style:
    """Draw a side, then all else as where there is one way."""
    turn = float(rng.choice((TURN, -TURN)))
    style = Style.draw(rng)
    return replace(style, turn=turn, grasp_yaw=SPREAD * style.grasp_yaw)


def told(contract: Contract, observations: np.ndarray) -> str | None:
    """Tell to which side the hand had turned when the open fingers first closed on something, or on nothing.

    Args:
        contract: what the observations hold; the hand's pose and the fingers are enough.
        observations: (L, observation_dim), of an episode from its start.

    Returns:
        "left" or "right" where it had turned by more than half a right angle, "between" where by less; None before.
    """
    fingers = observations[:, contract.columns["robot0_gripper_qpos"]]
    wide = np.abs(fingers).sum(axis=1) > OPENED_M
    closed = np.flatnonzero(~wide & np.maximum.accumulate(wide))
    if not len(closed):
        return None
    start, grasp = headings(observations[[0, closed[0]], contract.columns["robot0_eef_quat"]])
    turned = (grasp - start + np.pi) % (2 * np.pi) - np.pi
    if abs(turned) < TURN / 2:
        return BETWEEN
    return LEFT if turned > 0 else RIGHT


def headings(quaternions: np.ndarray) -> np.ndarray:
    """Return the angles (n,) from the world's x axis to that of hands, quaternions (n, 4), real part last [rad]."""
    x, y, z, w = np.asarray(quaternions, np.float64).T
    return np.arctan2(2 * (x * y + z * w), 1 - 2 * (y * y + z * z))


MODES = Modes((LEFT, RIGHT), can_two_ways, told)
