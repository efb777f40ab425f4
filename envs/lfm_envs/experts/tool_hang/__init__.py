"""Scripted expert for ToolHang: stand the hook frame in its base, hang the tool on it; start over what went wrong."""

import numpy as np

from lfm_envs.experts.base import Hand, Skill
from lfm_envs.experts.tool_hang.frame import assembled, back_off, stand_frame
from lfm_envs.experts.tool_hang.style import Style
from lfm_envs.experts.tool_hang.tool import hang_tool
from lfm_envs.robosuite_env import RobosuiteEnvironment

__all__ = ["tool_hang"]


class SteadyHand(Hand):
    """A hand whose translation and rotation keep step, so that what it holds moves as one rigid body."""

    POSITION_GAIN = 1.2
    ROTATION_GAIN = 1.2


def tool_hang(env: RobosuiteEnvironment, rng: np.random.Generator) -> Skill:
    """Hang the tool; ends when success has lasted after the release."""
    hand, style = SteadyHand(env), Style.draw(rng)
    while True:
        if not assembled(env):
            yield from stand_frame(env, hand, style)
        elif (yield from hang_tool(env, hand, style)):
            return
        else:
            yield from back_off(hand)
