"""Demonstrations from waypoints of both hands, through inverse kinematics, as targets of joints."""

import sys

import mujoco
import numpy as np
from gym_aloha.constants import ASSETS_DIR
from scipy.optimize import least_squares

import lfm_envs
from lfm_policy.data.own import Demonstration, store_demonstrations

MODEL = mujoco.MjModel.from_xml_path(str(ASSETS_DIR / "bimanual_viperx_transfer_cube.xml"))
DATA = mujoco.MjData(MODEL)
FINGERTIPS = np.array([0.135, 0, 0])  # seen from the hand [m]
TILTED = np.array([[-0.5, 0, -0.866], [0, -1, 0], [-0.866, 0, 0.5]]).T  # right: 60 degrees down, fingers along y
ROLLED = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]).T  # left: level, fingers above each other


def joints(side, place, turned, start):
    """Return the six joints (rad) of an arm that bring its fingertips to a place, the hand turned so."""
    first = 0 if side == "left" else 8
    body = MODEL.body(f"vx300s_{side}/gripper_link").id

    def away(angles):
        DATA.qpos[first : first + 6] = angles
        mujoco.mj_kinematics(MODEL, DATA)
        hand = DATA.xmat[body].reshape(3, 3)
        return np.append(DATA.xpos[body] + hand @ FINGERTIPS - place, 0.1 * (hand - turned).ravel())

    return least_squares(away, start, bounds=MODEL.jnt_range[first : first + 6].T).x


def plan(rest, cube):
    """Return the targets (steps, 14) that lift the cube with the right hand and take it with the left."""
    left, right, meet = rest[:6], rest[7:13], np.array([0.0, 0.5, 0.25])
    ready = joints("left", meet - [0.12, 0, 0], ROLLED, left)
    taking = joints("left", meet - [0.01, 0, 0], ROLLED, ready)
    above = joints("right", cube + np.array([0, 0, 0.08]), TILTED, right)
    at = joints("right", cube, TILTED, above)
    giving = joints("right", meet, TILTED, above)
    rows = [  # step, left joints and gripper, right joints and gripper
        (0, left, 0.1, right, 0.1),
        (60, ready, 1, above, 1),
        (90, ready, 1, at, 1),
        (110, ready, 1, at, 0),
        (170, ready, 1, giving, 0),
        (205, taking, 1, giving, 0),
        (230, taking, 0, giving, 0),
        (300, taking, 0, giving, 0),
    ]
    times, points = [row[0] for row in rows], np.array([np.hstack(row[1:]) for row in rows])
    part = np.interp(np.arange(300), times, range(len(rows)))
    whole = np.minimum(part.astype(int), len(rows) - 2)
    part = (part - whole)[:, None]
    return points[whole] + (3 * part**2 - 2 * part**3) * (points[whole + 1] - points[whole])


def demonstrations(seeds):
    """Play plans, with a little noise on what is executed."""
    environment, generator = lfm_envs.make("aloha.yaml"), np.random.default_rng(0)
    for seed in seeds:
        observation, rows, success, noise = environment.reset(seed), [], False, np.zeros(14)
        targets = plan(observation["agent_pos"], np.append(observation["cube"][:2], 0.02))
        while not success and len(rows) < environment.horizon:
            rows.append(observation)
            noise = 0.9 * noise + 0.01 * generator.standard_normal(14)
            result = environment.step(targets[len(rows) - 1] + noise)
            observation, success = result.observation, result.success
        seen = {name: np.stack([row[name] for row in rows]) for name in observation}
        yield Demonstration(seen, targets[: len(rows)], success)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print(store_demonstrations("aloha.zarr", demonstrations(range(count)), lfm_envs.contract_for("aloha.yaml")))
