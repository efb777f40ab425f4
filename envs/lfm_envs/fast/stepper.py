"""One robosuite environment's control step as one compiled call."""

from typing import Any

import mujoco
import numpy as np
from robosuite.utils import transform_utils as T

from lfm_envs.fast.errors import NotCompiledError
from lfm_envs.fast.osc import Arms, Servo, Simulation, control_step
from lfm_envs.fast.rotations import to_matrix

JOINTS, FINGERS = 7, 2


class Stepper:
    """Steps one robosuite simulation, for as long as it has this model.

    Args:
        environment: a robosuite environment whose robots are Pandas, each with an `OSC_POSE` controller.

    Raises:
        NotCompiledError: a controller is set up in a way that only robosuite itself can step.
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
        control_step(self._simulation, self._arms, self._servo, 0, self._lite)  # compile now, not at the first step

    def step(self, action: np.ndarray) -> None:
        """Run one control step of robosuite: `action` (7 * arms,) as its `step` takes it."""
        first = mujoco.mj_step1 if self._lite else mujoco.mj_forward  # pyright: ignore[reportAttributeAccessIssue]
        first(self.sim.model._model, self.sim.data._data)
        width = len(action) // len(self._robots)
        for index, robot in enumerate(self._robots):
            self._aim(index, robot, action[index * width : (index + 1) * width])
        control_step(self._simulation, self._arms, self._servo, self._steps, self._lite)
        for fingers, robot in zip(self._servo.fingers, self._robots, strict=True):
            goal = fingers.copy()
            robot.gripper["right"].current_action = robot.part_controllers["right_gripper"].goal_qvel = goal

    def _aim(self, index: int, robot: Any, action: np.ndarray) -> None:
        """Set the goals of a robot's arm and gripper."""
        arm, servo, site = robot.part_controllers["right"], self._servo, self._arms.sites[index]
        position, matrix = self._simulation.site_pos[site], self._simulation.site_mat[site].reshape(3, 3)
        if arm.input_type == "delta" and arm.input_ref_frame == "world":
            arm.goal_pos, arm.goal_ori = moved(arm, action[:-1], position, matrix)
        elif arm.input_type == "absolute":
            arm.goal_pos, arm.goal_ori = action[:3], to_matrix(action[3:6])
        else:
            _set_goal(arm, action[:-1], position, matrix)
        position, matrix = arm.goal_pos, arm.goal_ori
        if arm.input_ref_frame == "base":
            position = arm.origin_pos + np.dot(arm.origin_ori, position)
            matrix = np.dot(arm.origin_ori, matrix)
        servo.goal_pos[index], servo.goal_mat[index], servo.posture[index] = position, matrix, arm.initial_joint
        servo.gripper[index], servo.fingers[index] = action[-1], robot.gripper["right"].current_action


def moved(arm: Any, delta: np.ndarray, position: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the goal that an arm's controller sets for a delta (6,) from a pose in the world: (3,) [m] and (3, 3)."""
    scaled = _scaled(arm, delta)
    turn = T.quat2mat(T.axisangle2quat(scaled[3:]))
    return position + scaled[:3], np.dot(turn, matrix)


def _scaled(arm: Any, delta: np.ndarray) -> np.ndarray:
    """Clip and scale a delta (6,) as robosuite's `scale_action` does, without the detours of `np.clip`."""
    if arm.action_scale is None:  # it makes the factors when it is first asked
        return arm.scale_action(delta)
    clipped = np.minimum(np.maximum(delta, arm.input_min), arm.input_max)
    return (clipped - arm.action_input_transform) * arm.action_scale + arm.action_output_transform


def _set_goal(arm: Any, action: np.ndarray, position: np.ndarray, matrix: np.ndarray) -> None:
    """Set the goal as robosuite does, for a hand at a pose in the world."""
    arm.ref_pos[:], arm.ref_ori_mat[:, :] = position, matrix
    arm.new_update = False
    arm.set_goal(action)
    arm.new_update = True


def _check(robot: Any) -> None:
    arm, gripper = robot.part_controllers["right"], robot.part_controllers["right_gripper"]
    wanted = {
        "controller": (arm.name, "OSC_POSE"),
        "impedance_mode": (arm.impedance_mode, "fixed"),
        "interpolation": (arm.interpolator_pos, None),
        "gripper": (type(robot.gripper["right"]).__name__, "PandaGripper"),
        "gripper interpolation": (gripper.interpolator, None),
        "gripper scaling": (gripper.use_action_scaling, True),
        "joints": (arm.joint_dim, JOINTS),
        "fingers": (gripper.control_dim, FINGERS),
        "gripper limits": ({*gripper.input_max, *gripper.output_max, *-gripper.input_min, *-gripper.output_min}, {1}),
    }
    for name, (found, expected) in wanted.items():
        if found != expected:
            raise NotCompiledError(
                f"the compiled simulation steps arms with {name} {expected!r} only, found {found!r}: "
                "use simulation='robosuite'"
            )


def _servo(arms: int) -> Servo:
    """Make room for the goals of a control step."""
    return Servo(
        goal_pos=np.zeros((arms, 3)),
        goal_mat=np.zeros((arms, 3, 3)),
        posture=np.zeros((arms, JOINTS)),
        gripper=np.zeros(arms),
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
    finger_motors = np.array([robot._ref_actuators_indexes_dict["right_gripper"] for robot in robots])
    places, ranges = _places(sim), sim.model.actuator_ctrlrange
    return Arms(
        sites=np.array([sim.model.site_name2id(arm.ref_name) for arm in arms]),
        qpos=np.array([arm.qpos_index for arm in arms]),
        dofs=dofs,
        inertia=np.stack([places[np.ix_(row, row)] for row in dofs]),
        motors=motors,
        torque_range=np.stack([ranges[row].T for row in motors]),
        finger_motors=finger_motors,
        finger_range=np.stack([ranges[row].T for row in finger_motors]),
        kp=np.array([arm.kp for arm in arms]),
        kd=np.array([arm.kd for arm in arms]),
        uncoupled=np.array([arm.uncoupling for arm in arms]),
    )


def _places(sim: Any) -> np.ndarray:
    """Find where each element of the full inertia matrix (nv, nv) lies in MuJoCo's sparse one; -1 for a zero."""
    model = sim.model._model
    numbered = np.arange(1, len(sim.data._data.qM) + 1, dtype=np.float64)
    full = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, full, numbered)  # pyright: ignore[reportAttributeAccessIssue]
    return full.astype(np.int64) - 1
