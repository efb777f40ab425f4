"""One robosuite environment's control step as one compiled call."""

from typing import Any

import mujoco
import numpy as np

from lfm_envs.fast.osc import Arms, Servo, Simulation, control_step
from lfm_policy.errors import ConfigError

JOINTS, FINGERS = 7, 2


class Stepper:
    """Steps one robosuite simulation, for as long as it has this model.

    Args:
        environment: a robosuite environment whose robots are Pandas, each with an `OSC_POSE` controller.

    Raises:
        ConfigError: a controller is set up in a way that only robosuite itself can step.
    """

    def __init__(self, environment: Any):
        self.sim = environment.sim
        self._robots = environment.robots
        self._lite = environment.lite_physics
        self._steps = int(environment.control_timestep / environment.model_timestep)
        for robot in self._robots:
            _check(robot)
        self._arms = _arms(self.sim, self._robots)
        self._simulation = _simulation(self.sim)
        self._servo = _servo(len(self._robots))
        ranges = self.sim.model.actuator_ctrlrange[self._arms.finger_motors]
        self._fingers_low, self._fingers_high = ranges[..., 0], ranges[..., 1]
        self._fingers_middle = 0.5 * (self._fingers_high + self._fingers_low)
        self._fingers_half = 0.5 * (self._fingers_high - self._fingers_low)
        control_step(self._simulation, self._arms, self._servo, 0, self._lite)  # compile now, not at the first step

    def step(self, action: np.ndarray) -> None:
        """One control step of robosuite: `action` (7 * arms,) as its `step` takes it."""
        first = mujoco.mj_step1 if self._lite else mujoco.mj_forward  # pyright: ignore[reportAttributeAccessIssue]
        first(self.sim.model._model, self.sim.data._data)
        width = len(action) // len(self._robots)
        for index, robot in enumerate(self._robots):
            self._aim(index, robot, action[index * width : (index + 1) * width])
        control_step(self._simulation, self._arms, self._servo, self._steps, self._lite)

    def _aim(self, index: int, robot: Any, action: np.ndarray) -> None:
        """Set the goals of a robot's arm and gripper, with robosuite's own code for what they mean."""
        arm, gripper = robot.part_controllers["right"], robot.part_controllers["right_gripper"]
        servo, site = self._servo, self._arms.sites[index]
        arm.ref_pos[:] = self._simulation.site_pos[site]
        arm.ref_ori_mat[:, :] = self._simulation.site_mat[site].reshape(3, 3)
        arm.new_update = gripper.new_update = False
        arm.set_goal(action[:-1])
        gripper.set_goal(robot.gripper["right"].format_action(action[-1:]))
        arm.new_update = gripper.new_update = True
        position, matrix = arm.goal_pos, arm.goal_ori
        if arm.input_ref_frame == "base":
            position = arm.origin_pos + np.dot(arm.origin_ori, position)
            matrix = np.dot(arm.origin_ori, matrix)
        servo.goal_pos[index], servo.goal_mat[index] = position, matrix
        servo.kp[index], servo.kd[index], servo.posture[index] = arm.kp, arm.kd, arm.initial_joint
        servo.uncoupled[index] = arm.uncoupling
        fingers = self._fingers_middle[index] + self._fingers_half[index] * gripper.goal_qvel
        servo.fingers[index] = np.minimum(np.maximum(fingers, self._fingers_low[index]), self._fingers_high[index])


def _check(robot: Any) -> None:
    arm, gripper = robot.part_controllers["right"], robot.part_controllers["right_gripper"]
    wanted = {
        "controller": (arm.name, "OSC_POSE"),
        "impedance_mode": (arm.impedance_mode, "fixed"),
        "interpolation": (arm.interpolator_pos, None),
        "gripper interpolation": (gripper.interpolator, None),
        "gripper scaling": (gripper.use_action_scaling, True),
        "joints": (arm.joint_dim, JOINTS),
        "fingers": (gripper.control_dim, FINGERS),
    }
    for name, (found, expected) in wanted.items():
        if found != expected:
            raise ConfigError(
                f"the compiled simulation steps arms with {name} {expected!r} only, found {found!r}: "
                "use simulation='robosuite'"
            )


def _servo(arms: int) -> Servo:
    """Room for the goals of a control step."""
    return Servo(
        goal_pos=np.zeros((arms, 3)),
        goal_mat=np.zeros((arms, 3, 3)),
        kp=np.zeros((arms, 6)),
        kd=np.zeros((arms, 6)),
        posture=np.zeros((arms, JOINTS)),
        uncoupled=np.zeros(arms, dtype=np.bool_),
        fingers=np.zeros((arms, FINGERS)),
    )


def _simulation(sim: Any) -> Simulation:
    model, data = sim.model._model, sim.data._data
    views = (data.qpos, data.qvel, data.qM, data.qfrc_bias, data.site_xpos, data.site_xmat, data.ctrl)
    return Simulation(model._address, data._address, *views)


def _arms(sim: Any, robots: list[Any]) -> Arms:
    arms = [robot.part_controllers["right"] for robot in robots]
    motors = np.array([robot._ref_actuators_indexes_dict["right"] for robot in robots])
    dofs = np.array([arm.qvel_index for arm in arms])
    places = _places(sim)
    return Arms(
        sites=np.array([sim.model.site_name2id(arm.ref_name) for arm in arms]),
        qpos=np.array([arm.qpos_index for arm in arms]),
        dofs=dofs,
        inertia=np.stack([places[np.ix_(row, row)] for row in dofs]),
        motors=motors,
        torque_range=np.stack([sim.model.actuator_ctrlrange[row].T for row in motors]),
        finger_motors=np.array([robot._ref_actuators_indexes_dict["right_gripper"] for robot in robots]),
    )


def _places(sim: Any) -> np.ndarray:
    """Where each element of the full inertia matrix (nv, nv) lies in MuJoCo's sparse one; -1 for a zero."""
    model = sim.model._model
    numbered = np.arange(1, len(sim.data._data.qM) + 1, dtype=np.float64)
    full = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, full, numbered)  # pyright: ignore[reportAttributeAccessIssue]
    return full.astype(np.int64) - 1
