"""One robosuite environment's control step as one compiled call."""

from typing import Any

import mujoco
import numpy as np

from lfm_envs.fast.osc import Arms, Servo, Simulation, control_step
from lfm_policy.errors import ConfigError


class Stepper:
    """Steps one robosuite simulation, for as long as it has this model.

    Args:
        environment: a robosuite environment whose robots have one arm with an `OSC_POSE` controller each.

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

    def step(self, action: np.ndarray) -> None:
        """One control step of robosuite: `action` (7 * arms,) as its `step` takes it."""
        first = mujoco.mj_step1 if self._lite else mujoco.mj_forward  # pyright: ignore[reportAttributeAccessIssue]
        first(self.sim.model._model, self.sim.data._data)
        servo = [
            self._aim(robot, part)
            for robot, part in zip(self._robots, np.split(action, len(self._robots)), strict=True)
        ]
        stacked = Servo(*(np.stack(field, dtype=np.float64) for field in zip(*servo, strict=True)))
        control_step(self._simulation, self._arms, stacked, self._steps, self._lite)

    def _aim(self, robot: Any, action: np.ndarray) -> Servo:
        """Set the goals of a robot's arm and gripper, with robosuite's own code."""
        arm, gripper = robot.part_controllers["right"], robot.part_controllers["right_gripper"]
        site = self.sim.model.site_name2id(arm.ref_name)
        arm.ref_pos[:] = self.sim.data.site_xpos[site]
        arm.ref_ori_mat[:, :] = self.sim.data.site_xmat[site].reshape(3, 3)
        robot.composite_controller.update_state()
        arm.new_update = gripper.new_update = False
        robot.composite_controller.set_goal(action)
        fingers = gripper.run_controller()
        arm.new_update = gripper.new_update = True
        position, matrix = arm.goal_pos, arm.goal_ori
        if arm.input_ref_frame == "base":
            position = arm.origin_pos + np.dot(arm.origin_ori, position)
            matrix = np.dot(arm.origin_ori, matrix)
        low, high = gripper.actuator_min, gripper.actuator_max
        return Servo(
            position, matrix, arm.kp, arm.kd, arm.initial_joint, np.array(arm.uncoupling), np.clip(fingers, low, high)
        )


def _check(robot: Any) -> None:
    arm = robot.part_controllers["right"]
    wanted = {
        "controller": (arm.name, "OSC_POSE"),
        "impedance_mode": (arm.impedance_mode, "fixed"),
        "interpolation": (arm.interpolator_pos, None),
        "gripper": (robot.part_controllers["right_gripper"].interpolator, None),
    }
    for name, (found, expected) in wanted.items():
        if found != expected:
            raise ConfigError(
                f"the compiled simulation steps arms with {name} {expected!r} only, found {found!r}: "
                "use simulation='robosuite'"
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
