"""robosuite's operational-space controller and its loop over physics steps, compiled.

The operations and their order are those of robosuite 1.5.2's `OperationalSpaceController` (and so is the mathematics:
Khatib 1987), with its own compiled functions where it has them, so that the torques are the same bits.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
from robosuite.utils.control_utils import nullspace_torques, orientation_error

from lfm_envs.fast.inverse import pinv
from lfm_envs.fast.native import mj_forward, mj_jac_site, mj_step, mj_step1, mj_step2, product
from lfm_policy.compiled import compiled

FINGER_PACE = 0.2
"""Part of half their range that the fingers' command moves in one control step."""


class Simulation(NamedTuple):
    """MuJoCo's model and data by address, and views of the data's arrays."""

    model: int
    data: int
    qpos: np.ndarray
    qvel: np.ndarray
    mass: np.ndarray
    """Sparse joint-space inertia (nM,)."""
    bias: np.ndarray
    """Coriolis, centrifugal and gravity forces (nv,)."""
    site_pos: np.ndarray
    site_mat: np.ndarray
    ctrl: np.ndarray


class Arms(NamedTuple):
    """What does not change during an episode, one row per arm of n joints."""

    sites: np.ndarray
    """Grip sites (arms,)."""
    qpos: np.ndarray
    """Addresses of the joints' positions (arms, n)."""
    dofs: np.ndarray
    """Addresses of their velocities (arms, n)."""
    inertia: np.ndarray
    """Where each element of the arm's inertia matrix lies in the sparse one, -1 for a zero (arms, n, n)."""
    motors: np.ndarray
    """Actuators of the joints (arms, n)."""
    torque_range: np.ndarray
    """Lowest and highest torque [N m] (arms, 2, n)."""
    finger_motors: np.ndarray
    """Actuators of the fingers (arms, 2)."""
    finger_range: np.ndarray
    """Their lowest and highest command (arms, 2, 2)."""
    kp: np.ndarray
    """Stiffness: three for position, three for rotation (arms, 6)."""
    kd: np.ndarray
    """Damping (arms, 6)."""
    uncoupled: np.ndarray
    """Whether position and rotation are controlled apart (arms,)."""


class Servo(NamedTuple):
    """What one control step aims for, one row per arm."""

    goal_pos: np.ndarray
    """Goal's position in the world [m] (arms, 3)."""
    goal_mat: np.ndarray
    """Goal's rotation matrix in the world (arms, 3, 3)."""
    posture: np.ndarray
    """Joint positions that the null space holds [rad] (arms, n)."""
    gripper: np.ndarray
    """Below zero opens, above closes (arms,)."""
    fingers: np.ndarray
    """How far the fingers' command has come, from -1 to 1 (arms, 2): a control step moves it on."""


@partial(compiled, nogil=True)  # other environments' threads run meanwhile
def control_step(simulation, arms, servo, steps, lite):
    """Run one control step: at each physics step, each arm's torques and MuJoCo's own step.

    The first call of `mj_step1` (of `mj_forward` if not `lite`) must already have been made.
    """
    for arm in range(len(arms.sites)):
        _move_fingers(arms, servo, arm)
    for step in range(steps):
        if lite and step > 0:
            mj_step1(simulation.model, simulation.data)
        elif step > 0:
            mj_forward(simulation.model, simulation.data)
        for arm in range(len(arms.sites)):
            if not lite:
                mj_forward(simulation.model, simulation.data)
            torques = _torques(simulation, arms, servo, arm)
            for joint, motor in enumerate(arms.motors[arm]):
                low, high = arms.torque_range[arm, 0, joint], arms.torque_range[arm, 1, joint]
                simulation.ctrl[motor] = min(max(torques[joint], low), high)
            for finger, motor in enumerate(arms.finger_motors[arm]):
                low, high = arms.finger_range[arm, 0, finger], arms.finger_range[arm, 1, finger]
                command = 0.5 * (high + low) + 0.5 * (high - low) * servo.fingers[arm, finger]
                simulation.ctrl[motor] = min(max(command, low), high)
        if lite:
            mj_step2(simulation.model, simulation.data)
        else:
            mj_step(simulation.model, simulation.data)


@compiled
def _move_fingers(arms, servo, arm):
    """Move the fingers towards open or closed, as far as robosuite's `PandaGripper` goes in one control step."""
    pace = FINGER_PACE * np.sign(servo.gripper[arm])
    for finger, direction in enumerate((-1.0, 1.0)):
        servo.fingers[arm, finger] = min(max(servo.fingers[arm, finger] + direction * pace, -1.0), 1.0)


@compiled
def _torques(simulation, arms, servo, arm):
    """Return the joint torques (n,) [N m] of one arm now, before clipping."""
    site, dofs, kp, kd = arms.sites[arm], arms.dofs[arm], arms.kp[arm], arms.kd[arm]
    linear, angular, jacobian = _velocity(simulation, site, dofs)
    inertia = _inertia(simulation.mass, arms.inertia[arm])
    position_error = servo.goal_pos[arm] - simulation.site_pos[site]
    force = position_error * kp[:3] + -linear * kd[:3]
    rotation_error = orientation_error(servo.goal_mat[arm], simulation.site_mat[site].reshape(3, 3))
    torque = rotation_error * kp[3:] + -angular * kd[3:]
    both, position, rotation, nullspace = _opspace_matrices(inertia, jacobian)
    wrench = np.empty(6)
    if arms.uncoupled[arm]:
        product(position, force, wrench[:3])
        product(rotation, torque, wrench[3:])
    else:
        product(both, np.concatenate((force, torque)), wrench)
    torques = np.empty(len(dofs))
    product(jacobian.T, wrench, torques)
    torques = torques + simulation.bias[dofs]
    qpos, qvel = simulation.qpos[arms.qpos[arm]], simulation.qvel[dofs]
    return torques + nullspace_torques(inertia, nullspace, servo.posture[arm], qpos, qvel)


@compiled
def _velocity(simulation, site, dofs):
    """Return linear and angular velocity of a site, each (3,), and its Jacobian for the joints (6, n)."""
    width = len(simulation.qvel)
    whole_pos, whole_ori = np.zeros((3, width)), np.zeros((3, width))
    mj_jac_site(simulation.model, simulation.data, whole_pos.ctypes.data, whole_ori.ctypes.data, site)
    linear, angular = np.empty(3), np.empty(3)
    product(whole_pos, simulation.qvel, linear)
    product(whole_ori, simulation.qvel, angular)
    jacobian = np.empty((6, len(dofs)))
    for column, dof in enumerate(dofs):
        for row in range(3):
            jacobian[row, column] = whole_pos[row, dof]
            jacobian[3 + row, column] = whole_ori[row, dof]
    return linear, angular, jacobian


@compiled
def _opspace_matrices(inertia, jacobian):
    """Compute what robosuite's function of this name does, without multiplying again for the halves of the Jacobian.

    Returns:
        The inertia that the hand shows (6, 6), to forces alone (3, 3) and to torques alone (3, 3); what a joint
        acceleration leaves of itself where the hand does not feel it (n, n).
    """
    mobility = np.linalg.inv(inertia)
    inverse = np.dot(np.dot(jacobian, mobility), jacobian.T)
    both, position, rotation = pinv(inverse), pinv(inverse[:3, :3]), pinv(inverse[3:, 3:])
    spread = np.dot(np.dot(mobility, jacobian.T), both)
    return both, position, rotation, np.eye(len(inertia)) - np.dot(spread, jacobian)


@compiled
def _inertia(mass, at):
    """Return the arm's inertia matrix (n, n), column by column as robosuite's lies in memory."""
    matrix = np.zeros((at.shape[1], at.shape[0]))
    for row in range(at.shape[0]):
        for column in range(at.shape[1]):
            if at[row, column] >= 0:
                matrix[column, row] = mass[at[row, column]]
    return matrix.T
