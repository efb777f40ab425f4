"""Can demonstrations rebuilt from the recorded motion of a human's robot: the can is put where the grasp happened.

The motion is tracked with the tasks' own controller; what comes out is "reconstructed from human Can motion".
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from lfm_envs.episodes import Episode, record
from lfm_envs.experts.base import CLOSED, OPEN, Command, Hand, Pose, Skill, hold
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_envs.tasks import CONTROL_HZ
from lfm_policy.actions.poses import DELTA_WIDTH, matrix_to_rotvec
from lfm_policy.errors import DataError
from lfm_policy.protocols import Observation

NAME = "reconstructed from human Can motion"
CAN_JOINT = "Can_joint0"
BASE = np.array([-0.6, 0.0, 0.912])
"""Where the robot stands in the archive's world [m]: its joint angles lead to its poses from there, within 2 mm."""
LAST_STEPS = 30
"""Steps for which the hand waits at the motion's end, open, for the can to come to rest."""
SUCCESS_STEPS = 5


@dataclass(frozen=True)
class Motion:
    """The hand of one human demonstration, T steps at 20 Hz."""

    position: np.ndarray
    """(T, 3): grip site relative to the robot's base [m]."""
    matrix: np.ndarray
    """(T, 3, 3)"""
    opened: np.ndarray
    """bool (T,): the fingers were open."""
    joints: np.ndarray
    """(7,): arm posture at the start [rad]."""

    def hand(self, env: RobosuiteEnvironment, step: int) -> Pose:
        """Return the grip site in the world."""
        return Pose(self.position[step] + env.arms[0].origin_pos, self.matrix[step])

    @property
    def grasp(self) -> int:
        """The step at which the fingers close for the longest time: that on the can."""
        flips = np.flatnonzero(np.diff(self.opened.astype(int)))
        ends = [*flips[1:], len(self.opened)]
        spans = [(end - begin, begin) for begin, end in zip(flips, ends, strict=True) if not self.opened[begin + 1]]
        return int(max(spans)[1]) + 1


@dataclass(frozen=True)
class Guess:
    """What the motion does not tell: how the fingers held the can, and how late the hand closed."""

    along: float = 0.0
    """Where the can's axis stood between the fingers, across their closing direction [m]."""
    lead: int = 1
    """Steps by which the command to the fingers goes before their measured motion."""


GUESSES = (Guess(), Guess(lead=3), Guess(along=0.012), Guess(along=-0.012))


def read_motions(path: Path) -> list[Motion]:
    """Read all motions of an archive with `<number>/source/pos`, `/source/grip` and `/Panda/joint_angles`.

    Raises:
        DataError: not found, or not such an archive.
    """
    if not path.is_file():
        raise DataError(f"no motion archive at {path}: check source=")
    try:
        with np.load(path) as archive:
            numbers = sorted({name.split("/")[0] for name in archive.files})
            return [_motion(*(archive[f"{number}/{key}"] for key in _KEYS)) for number in numbers]
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}): expected arrays <number>/{', '.join(_KEYS)}") from error


_KEYS = ("source/pos", "source/grip", "Panda/joint_angles")


def _motion(pose: np.ndarray, grip: np.ndarray, joints: np.ndarray) -> Motion:
    pose = pose.astype(np.float64)
    return Motion(
        pose[:, :3] - BASE, Rotation.from_quat(pose[:, 3:]).as_matrix(), grip > 0.5, joints[0].astype(np.float64)
    )


def reconstruct(env: RobosuiteEnvironment, motion: Motion, seed: int) -> tuple[Episode, int]:
    """Track a motion with each of GUESSES in turn until one succeeds.

    Returns:
        The episode (the last one if none succeeded), and the guess's number.
    """
    for number, guess in enumerate(GUESSES):
        observation = place(env, motion, guess, seed)
        rng = np.random.default_rng([seed, number])
        episode = record(env, observation, track(env, motion, guess), seed, rng, noise=0.0)
        if episode.success:
            break
    return episode, number


def place(env: RobosuiteEnvironment, motion: Motion, guess: Guess, seed: int) -> Observation:
    """Start with the arm where the motion starts and the can standing on the bin's floor where it is grasped."""
    env.reset(seed)
    simulation = env.simulation
    data = simulation.sim.data
    data.qpos[simulation.robots[0]._ref_joint_pos_indexes] = motion.joints
    data.qvel[:] = 0
    can = data.get_joint_qpos(CAN_JOINT).copy()
    hand = motion.hand(env, motion.grasp)
    can[:2] = (hand.position + guess.along * hand.matrix[:, 1])[:2]
    data.set_joint_qpos(CAN_JOINT, can)
    return env.reset_to(env.get_state(), env.model_xml)


def track(env: RobosuiteEnvironment, motion: Motion, guess: Guess) -> Skill:
    """Follow the motion step by step, then wait with open fingers until success has lasted."""
    hand, steps = Hand(env), len(motion.position)
    for step in range(1, steps):
        opened = motion.opened[min(step + guess.lead, steps - 1)]
        yield follow(env, hand, motion.hand(env, step), OPEN if opened else CLOSED)
    held = 0

    def settled() -> bool:
        nonlocal held
        held = held + 1 if env.success() else 0
        return held > SUCCESS_STEPS

    yield from hold(hand, OPEN, settled, LAST_STEPS)


def follow(env: RobosuiteEnvironment, hand: Hand, target: Pose, gripper: float) -> Command:
    """Return the delta whose goal makes the hand be at `target` one step later.

    The controller is a critically damped spring of frequency ω = √kp that starts at rest at each goal g (relative to
    the hand, which moves at v): a step dt later the hand is g (1 - (1 + ω dt) e^(-ω dt)) + v dt e^(-ω dt) further.
    """
    controller = env.contract.controllers[0]
    now, (velocity, spin) = hand.pose, _velocity(env)
    period = 1 / CONTROL_HZ
    decay = np.exp(-np.sqrt(controller.kp) * period)
    gain = 1 - (1 + np.sqrt(controller.kp) * period) * decay
    shift = target.position - now.position - period * decay * velocity
    turn = matrix_to_rotvec(target.matrix @ now.matrix.T) - period * decay * spin
    delta = np.concatenate([shift / gain / controller.delta_position_m, turn / gain / controller.delta_rotation_rad])
    hand.gripper = gripper
    return Command(np.append(np.clip(delta, -1, 1), gripper), np.zeros(DELTA_WIDTH))


def _velocity(env: RobosuiteEnvironment) -> tuple[np.ndarray, np.ndarray]:
    """Return linear [m/s] and angular [rad/s] velocity of the grip site, in the world."""
    name, data = env.arms[0].ref_name, env.simulation.sim.data
    return data.get_site_xvelp(name), data.get_site_xvelr(name)
