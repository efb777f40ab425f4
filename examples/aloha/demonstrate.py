"""Demonstrations from waypoints of both hands, through inverse kinematics, as targets of joints."""

import sys

import mujoco
import numpy as np
from gym_aloha.constants import ASSETS_DIR
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import least_squares

import lfm_envs
from lfm_policy.data.own import Demonstration, store_demonstrations

MODEL = mujoco.MjModel.from_xml_path(str(ASSETS_DIR / "bimanual_viperx_transfer_cube.xml"))
DATA = mujoco.MjData(MODEL)
HANDS = [MODEL.body(f"vx300s_{side}/gripper_link").id for side in ("left", "right")]
JOINTS = np.array([[0], [8]]) + np.arange(6)
FINGERTIPS = 0.135  # in front of the hand [m]
LEFT = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]  # level, fingers above each other
RIGHT = [[-0.5, 0, -0.866], [0, -1, 0], [-0.866, 0, 0.5]]  # 60 degrees down, fingers along y


def reach(places, start):
    """Return the joints (2, 6) [rad] that bring both hands' fingertips to places (2, 3) [m], the hands turned so."""

    def away(angles):
        DATA.qpos[JOINTS] = angles.reshape(2, 6)
        mujoco.mj_kinematics(MODEL, DATA)
        turned = DATA.xmat[HANDS].reshape(2, 3, 3)
        return np.append(DATA.xpos[HANDS] + FINGERTIPS * turned[..., 0] - places, 0.1 * (turned - [LEFT, RIGHT]))

    bounds = MODEL.jnt_range[JOINTS.ravel()].T
    return least_squares(away, start.ravel(), bounds=bounds).x.reshape(2, 6)


def plan(rest, cube):
    """Return the targets (300, 14) that lift the cube with the right hand and take it with the left."""
    meet, above = np.array([0, 0.5, 0.25]), cube + np.array([0, 0, 0.08])
    ready, taking = meet - [0.12, 0, 0], meet - [0.01, 0, 0]
    waypoints = [  # step, where the left and the right hand are then, how far they are open
        (60, [ready, above], [1, 1]),
        (90, [ready, cube], [1, 1]),
        (110, [ready, cube], [1, 0]),
        (170, [ready, meet], [1, 0]),
        (205, [taking, meet], [1, 0]),
        (230, [taking, meet], [0, 0]),
        (300, [taking, meet], [0, 0]),
    ]
    steps, points = [0], [rest.reshape(2, 7)]
    for step, places, opened in waypoints:
        steps.append(step)
        points.append(np.column_stack([reach(places, points[-1][:, :6]), opened]))
    return CubicHermiteSpline(steps, points, np.zeros_like(points))(np.arange(300)).reshape(300, 14)


def demonstrations(seeds):
    """Play plans, with a little noise on what is executed."""
    environment, generator = lfm_envs.make("aloha.yaml"), np.random.default_rng(0)
    for seed in seeds:
        observation, rows, noise = environment.reset(seed), [], np.zeros(14)
        targets = plan(observation["agent_pos"], np.append(observation["cube"][:2], 0.02))
        for target in targets:
            rows.append(environment.contract.flatten(observation))
            noise = 0.9 * noise + 0.01 * generator.standard_normal(14)
            result = environment.step(target + noise)
            observation = result.observation
            if result.success:
                break
        yield Demonstration(np.stack(rows), targets[: len(rows)], result.success)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print(store_demonstrations("aloha.zarr", demonstrations(range(count)), lfm_envs.contract_for("aloha.yaml")))
