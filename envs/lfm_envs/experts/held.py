"""Carrying: servo a held object, rather than the hand that holds it."""

from collections.abc import Callable, Generator

import numpy as np

from lfm_envs.experts.base import CLOSED, FREE, Command, Hand, Pose, body_pose
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_policy.actions.poses import matrix_to_rotvec, rotvec_to_matrix

SHIFT_M, TURN_RAD = 0.06, 0.4
"""How far ahead of the object its next pose may lie: the hand's arc about the pivot stays a nearly straight chord."""
DRIFT_RATE, DRIFT_M = 0.08, 0.005
"""Integral gain, and the largest correction it may add: enough for a weight in the hand, harmless at contact."""


class Held:
    """An object that a hand has just grasped, and a point fixed to it (a tip, a hole) that is to go somewhere.

    The object's pose error becomes a rigid motion of the hand about that point, so that neither the lever arm nor how
    the object sits between the fingers matters.

    Args:
        env: the environment to read.
        hand: the hand that holds the object.
        body: the object's body.
        site: the point's site.
    """

    def __init__(self, env: RobosuiteEnvironment, hand: Hand, body: str, site: str):
        self.hand = hand
        self.integral = True
        """Whether small errors are integrated: off in contact, where they last and the integral would push."""
        self._env, self._body, self._site = env, body, site
        self._drift = np.zeros(3)
        self._grasp = self._in_hand()

    @property
    def pose(self) -> Pose:
        """The point's position and the object's matrix now."""
        matrix = body_pose(self._env, self._body).matrix
        return Pose(site_position(self._env, self._site), matrix)

    def error(self, goal: Pose) -> tuple[float, float]:
        """Return the distance [m] from the point to its goal and the angle [rad] from the object to its own."""
        now = self.pose
        turn = matrix_to_rotvec(goal.matrix @ now.matrix.T)
        return float(np.linalg.norm(goal.position - now.position)), float(np.linalg.norm(turn))

    def slipped(self, tolerance: float = 0.03) -> bool:
        """Say whether the object has moved further than `tolerance` [m] in the hand since it was grasped."""
        return float(np.linalg.norm(self._in_hand() - self._grasp)) > tolerance

    def toward(self, goal: Pose, noise: float) -> Command:
        """Make a step that moves the held object towards a pose; the integral acts within a centimetre of the goal."""
        now, hand = self.pose, self.hand.pose
        error = goal.position - now.position
        if self.integral and np.linalg.norm(error) < 0.01:
            self._drift = np.clip(self._drift + DRIFT_RATE * error, -DRIFT_M, DRIFT_M)
        turn = rotvec_to_matrix(_within(matrix_to_rotvec(goal.matrix @ now.matrix.T), TURN_RAD))
        arm = turn @ (hand.position - now.position)
        position = now.position + _within(error, SHIFT_M) + self._drift + arm
        return self.hand.toward(Pose(position, turn @ hand.matrix), CLOSED, noise)

    def _in_hand(self) -> np.ndarray:
        hand = self.hand.pose
        return hand.matrix.T @ (body_pose(self._env, self._body).position - hand.position)


def carry(
    held: Held, goal: Callable[[], Pose], within: tuple[float, float], steps: int, noise: float = FREE
) -> Generator[Command, None, bool]:
    """Carry towards a live goal until within ([m], [rad]) of it. Returns False once it has slipped or after `steps`."""
    for _ in range(steps):
        target = goal()
        distance, angle = held.error(target)
        if distance < within[0] and angle < within[1]:
            return True
        if held.slipped():
            return False
        yield held.toward(target, noise)
    return False


def site_position(env: RobosuiteEnvironment, site: str) -> np.ndarray:
    """Return where a site is now [m]: (3,)."""
    env.refresh()
    sim = env.simulation.sim
    return sim.data.site_xpos[sim.model.site_name2id(site)].copy()


def _within(vector: np.ndarray, length: float) -> np.ndarray:
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-12))
