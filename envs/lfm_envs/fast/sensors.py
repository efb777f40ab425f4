"""robosuite's sensors of poses relative to a hand, the same bits with less of Python around them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from robosuite.utils import transform_utils as T
from robosuite.utils.observables import sensor

from lfm_envs.fast.native import product
from lfm_policy.compiled import compiled

Sensor = Callable[[dict[str, Any]], np.ndarray]
"""Reads something off the simulation, with what other sensors have read before by name."""


class Sensors:
    """For a robosuite environment with objects whose poses the hands observe."""

    def _get_world_pose_in_gripper_sensor(self, prefix: str, fn_name: str, modality: str) -> Sensor:
        """Return the world as a hand sees it (4, 4)."""
        position, quaternion = f"{prefix}eef_pos", f"{prefix}eef_quat"

        def read(cache: dict[str, Any]) -> np.ndarray:
            if position not in cache or quaternion not in cache:
                return np.eye(4)
            return _inverse(_pose(cache[position], cache[quaternion]))

        return _named(read, fn_name, modality)

    def _get_rel_obj_eef_sensor(
        self, prefix: str, obj_key: str, fn_name: str, new_key_prefix: str, modality: str
    ) -> Sensor:
        """Return where a hand sees an object (3,); how it is turned goes to the cache."""
        position, quaternion, world = f"{obj_key}_pos", f"{obj_key}_quat", f"world_pose_in_{prefix}gripper"
        turned = f"{obj_key}_to_{new_key_prefix}eef_quat"

        def read(cache: dict[str, Any]) -> np.ndarray:
            if position not in cache or quaternion not in cache or world not in cache:
                return np.zeros(3)
            relative = cache[world].dot(_pose(cache[position], cache[quaternion]))
            cache[turned] = T.mat2quat(relative[:3, :3])
            return relative[:3, 3]

        return _named(read, fn_name, modality)


def _named(read: Sensor, name: str, modality: str) -> Sensor:
    read.__name__ = name
    return sensor(modality)(read)


@compiled
def _pose(position, quaternion):
    """Return a pose as a matrix (4, 4), of numbers rounded to single precision as robosuite's are."""
    pose = np.eye(4)
    pose[:3, :3] = T.quat2mat(quaternion).astype(np.float32)
    pose[:3, 3] = position.astype(np.float32)
    return pose


@compiled
def _inverse(pose):
    """Return the inverse (4, 4) of a pose (4, 4)."""
    inverse, back = np.eye(4), np.empty(3)
    turn = pose[:3, :3].T.copy()
    product(turn, pose[:3, 3].copy(), back)
    inverse[:3, :3], inverse[:3, 3] = turn, -back
    return inverse
