"""Doing again in the simulator what a human did: executing the actions, or following the hand's way."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from lfm_envs.experts.base import CLOSED, OPEN, Command, Hand, Pose, Skill, hold
from lfm_envs.human.motion import Motion
from lfm_envs.human.records import Record, Spot
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_envs.tasks import CONTROL_HZ
from lfm_policy.actions.poses import DELTA_WIDTH, matrix_to_rotvec
from lfm_policy.protocols import Observation

OBJECTS = {"lift": "cube_joint0", "square": "SquareNut_joint0", "can": "Can_joint0"}
"""Joint of the object that is moved."""
LEADS = (4, 5, 6)
"""Steps by which the command to close goes before the fingers' measured motion: 4 to 6 in the true files."""
OPENING_LEAD = 8
"""The same for the command to open."""
EXECUTED = 6
"""Of a record with both, one try in so many executes the actions, before the others follow the motion."""
LAST_STEPS = 30
"""Steps for which the hand waits at the end for the object to come to rest."""
SUCCESS_STEPS = 5
IK_STEPS, IK_DAMPING, IK_WITHIN = 200, 1e-4, 3e-4


@dataclass(frozen=True)
class Attempt:
    """One way of doing a record again."""

    number: int
    """0: everything as it was written down; of others the numbers are drawn from within their rounding."""
    actions: bool
    """Execute the actions; else follow the motion."""
    spot: Spot
    lead: int


def attempts(record: Record, tries: int) -> Iterator[Attempt]:
    """Yield at most `tries` attempts: the actions from the recorded place first, then the motion from each place."""
    executed = 0 if record.actions is None else tries if record.motion is None else tries // EXECUTED
    for number in range(executed):
        yield Attempt(number, actions=True, spot=record.spots[0], lead=0)
    choices = [(spot, lead) for spot in record.spots for lead in LEADS]
    for number in range(tries - executed):
        spot, lead = choices[number % len(choices)]
        yield Attempt(number // len(choices), actions=False, spot=spot, lead=lead)


def place(
    env: RobosuiteEnvironment, record: Record, attempt: Attempt, seed: int, rng: np.random.Generator
) -> Observation:
    """Start with the arm where the human's started, and the object where the attempt has it."""
    env.reset(seed)
    data, robot = env.simulation.sim.data, env.simulation.robots[0]
    if record.motion is not None and record.motion.joints is not None:
        data.qpos[robot._ref_joint_pos_indexes] = record.motion.joints
    else:
        start = record.start or (None if record.motion is None else record.motion.hand(0))
        assert start is not None
        move_hand(env, start)
    data.qvel[:] = 0
    joint = OBJECTS[env.task.name]
    pose, spot = data.get_joint_qpos(joint).copy(), attempt.spot
    pose[:2] = spot.position + (spot.within * rng.uniform(-1, 1, 2) if attempt.number else 0.0)
    if spot.matrix is not None:
        pose[3:] = np.roll(Rotation.from_matrix(spot.matrix).as_quat(), 1)
    data.set_joint_qpos(joint, pose)
    return env.reset_to(env.get_state(), env.model_xml)


def move_hand(env: RobosuiteEnvironment, target: Pose) -> None:
    """Put the arm's joints where the hand is at `target`, by damped least squares from where they are."""
    import mujoco

    simulation, robot = env.simulation.sim, env.simulation.robots[0]
    model, data = simulation.model._model, simulation.data._data
    site = simulation.model.site_name2id(env.arms[0].ref_name)
    joints, columns = robot._ref_joint_pos_indexes, robot._ref_joint_vel_indexes
    jacobian = np.zeros((6, model.nv))
    for _ in range(IK_STEPS):
        now = Pose(*env.grip_poses()[0])
        error = np.r_[target.position - now.position, matrix_to_rotvec(target.matrix @ now.matrix.T)]
        if np.abs(error).max() < IK_WITHIN:
            return
        mujoco.mj_comPos(model, data)  # pyright: ignore[reportAttributeAccessIssue]
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], site)  # pyright: ignore[reportAttributeAccessIssue]
        arm = jacobian[:, columns]
        data.qpos[joints] += arm.T @ np.linalg.solve(arm @ arm.T + IK_DAMPING * np.eye(6), error)


def perform(env: RobosuiteEnvironment, record: Record, attempt: Attempt, rng: np.random.Generator) -> Skill:
    """Do it, then wait until success has lasted."""
    hand = Hand(env)
    if attempt.actions:
        yield from _execute(hand, record, rng if attempt.number else None)
    else:
        assert record.motion is not None
        yield from _track(env, hand, record.motion, attempt.lead)
    yield from hold(hand, hand.gripper, _lasting(env), LAST_STEPS)


def _lasting(env: RobosuiteEnvironment) -> Callable[[], bool]:
    held = 0

    def settled() -> bool:
        nonlocal held
        held = held + 1 if env.success() else 0
        return held > SUCCESS_STEPS

    return settled


def _execute(hand: Hand, record: Record, rng: np.random.Generator | None) -> Skill:
    assert record.actions is not None
    for delta, closed in zip(record.actions.deltas(rng), record.actions.closed, strict=True):
        hand.gripper = CLOSED if closed else OPEN
        yield Command(np.append(delta, hand.gripper), np.zeros(DELTA_WIDTH))


def _track(env: RobosuiteEnvironment, hand: Hand, motion: Motion, lead: int) -> Skill:
    last = len(motion.position) - 1
    for step in range(1, last + 1):
        now = step - 1  # the number of the action
        closing = not motion.opened[min(now + lead, last)]
        opening = motion.opened[min(now + OPENING_LEAD, last)] and now > motion.grasp
        yield follow(env, hand, motion.hand(step), CLOSED if closing and not opening else OPEN)


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
