"""What robosuite's sensors read in a step, in one compiled call: the same numbers.

robosuite asks its sensors in a fixed order; some read the simulation, others what was read before, in this round or in
the one before it. `Readings` writes that order down once per episode, as rows of numbers that compiled code follows.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from robosuite.utils import transform_utils as T

from lfm_envs.fast.native import matrix_product, product
from lfm_policy.compiled import compiled

BODY, SITE, GEOM, BODY_TURN, BODY_MATRIX, SITE_MATRIX, GEOM_MATRIX, FINGERS, DIFFERENCE, WORLD, RELATIVE = range(11)
"""What a row of numbers asks for: a position, a rotation from a quaternion or a matrix, two joints, a position relative
to another one, the world as a hand sees it, a thing as a hand sees it (a position, and behind it a quaternion)."""
WORLD_IN_HAND = "world_pose_in_gripper"

Sensor = Callable[[Mapping[str, Any]], Any]
"""Reads something off the simulation, with what other sensors have read before by name."""


class Scene(NamedTuple):
    """Views of the simulation's arrays."""

    qpos: np.ndarray
    body_pos: np.ndarray
    body_quat: np.ndarray
    body_mat: np.ndarray
    site_pos: np.ndarray
    site_mat: np.ndarray
    geom_pos: np.ndarray
    geom_mat: np.ndarray


Reads = dict[str, tuple[int, int]]
"""By a sensor's name what it reads off the simulation, and of which number."""


def _body(name: str, number: int, turn: int = BODY_TURN) -> Reads:
    return {f"{name}_pos": (BODY, number), f"{name}_quat": (turn, number)}


def _lift(environment: Any) -> Reads:
    return _body("cube", environment.cube_body_id)


def _objects(environment: Any) -> Reads:
    bodies = [_body(name, number) for name, number in environment.obj_body_id.items()]
    return {name: what for body in bodies for name, what in body.items()}


def _tool_hang(environment: Any) -> Reads:
    base, frame = environment.obj_geom_id["stand_base"], environment.obj_site_id["frame_intersection_site"]
    reads = {"base_pos": (GEOM, base), "base_quat": (GEOM_MATRIX, base)}
    reads |= {"frame_pos": (SITE, frame), "frame_quat": (SITE_MATRIX, frame)}
    return reads | _body("tool", environment.obj_body_id["tool"], BODY_MATRIX)


def _transport(environment: Any) -> Reads:
    group = environment.transport
    lid, *bins = (
        ids[0] for ids in (group.lid_handle_geom_ids, group.target_bin_base_geom_ids, group.trash_bin_base_geom_ids)
    )
    reads = {"lid_handle_pos": (GEOM, lid), "lid_handle_quat": (GEOM_MATRIX, lid)}
    reads |= {"target_bin_pos": (GEOM, bins[0]), "trash_bin_pos": (GEOM, bins[1])}
    payload, trash = group.payload_body_id, group.trash_body_id
    return reads | _body("payload", payload, BODY_MATRIX) | _body("trash", trash, BODY_MATRIX)


READS: Mapping[str, Callable[[Any], Reads]] = {
    "Lift": _lift,
    "NutAssemblySquare": _objects,
    "PickPlaceCan": _objects,
    "ToolHang": _tool_hang,
    "TwoArmTransport": _transport,
}
"""What is read of objects, by robosuite's name of the environment."""

DIFFERENCES = {
    "gripper_to_cube_pos": ("cube_pos", "robot0_eef_pos"),
    "gripper0_to_payload": ("payload_pos", "robot0_eef_pos"),
    "gripper0_to_lid_handle": ("lid_handle_pos", "robot0_eef_pos"),
    "gripper1_to_payload": ("payload_pos", "robot1_eef_pos"),
    "gripper1_to_trash": ("trash_pos", "robot1_eef_pos"),
}
QUESTIONS = ("frame_is_assembled", "tool_on_frame", "payload_in_target_bin", "trash_in_trash_bin")
"""Sensors of one truth value, which do not look at what others have read."""


class Readings:
    """What the enabled sensors of a robosuite environment read, one round after the other; see `readings`.

    Args:
        sensors: robosuite's own, by name, in the order in which they are asked.
        cache: what each has read last.
        reads: what sensors read off the simulation.
        data: MuJoCo's.
    """

    def __init__(self, sensors: Mapping[str, Sensor], cache: Mapping[str, Any], reads: Reads, data: Any) -> None:
        sizes = [np.size(cache[name]) for name in sensors]
        starts = dict(zip(sensors, np.cumsum([0, *sizes]).tolist(), strict=False))
        self._parts = {n: slice(start, start + size) for (n, start), size in zip(starts.items(), sizes, strict=True)}
        self._values = np.concatenate([cache[name] for name in sensors], axis=None, dtype=np.float64)
        self._questions = [(starts[name], sensor) for name, sensor in sensors.items() if name in QUESTIONS]
        self._rows = np.array([row for name in sensors for row in _rows(name, starts, reads)])
        self._scene = _scene(data)
        self._last = next(reversed(self._parts))
        self._found: Any = cache[self._last]

    def latest(self, cache: Mapping[str, Any]) -> bool:
        """Say whether what `cache` holds is what was read here last."""
        return cache.get(self._last) is self._found

    def read(self) -> dict[str, np.ndarray]:
        """Ask all sensors again; what each has read, by name."""
        for place, question in self._questions:
            answer = question({})
            self._values[place] = answer[0] if isinstance(answer, list) else answer
        _read(self._rows, self._values, self._scene)
        values = self._values.copy()
        found = {name: values[part] for name, part in self._parts.items()}
        self._found = found[self._last]
        return found


def readings(environment: Any, cache: Mapping[str, Any]) -> Readings | None:
    """Prepare to read a robosuite environment's enabled sensors; None where compiled code does not know all of them.

    Args:
        environment: with its model loaded.
        cache: what each of the sensors has read last, by name.
    """
    name = next((kind.__name__ for kind in type(environment).__mro__ if kind.__name__ in READS), None)
    if name is None:
        return None
    reads = READS[name](environment)
    for robot in environment.robots:
        reads |= _hand(robot, environment.sim.model)
    sensors = {name: o._sensor for name, o in environment._observables.items() if o._enabled}
    known = {*reads, *DIFFERENCES, *QUESTIONS, WORLD_IN_HAND, *map(_seen, reads)}
    return Readings(sensors, cache, reads, environment.sim.data._data) if known.issuperset(sensors) else None


def _hand(robot: Any, model: Any) -> Reads:
    """Return what is read of a hand: where a site is, how a body is turned, the fingers' two joints."""
    prefix, (finger, other) = robot.robot_model.naming_prefix, robot._ref_gripper_joint_pos_indexes["right"]
    assert other == finger + 1
    return {
        f"{prefix}eef_pos": (SITE, robot.eef_site_id["right"]),
        f"{prefix}eef_quat": (BODY_TURN, model.body_name2id(robot.robot_model.eef_name["right"])),
        f"{prefix}gripper_qpos": (FINGERS, finger),
    }


def _seen(name: str) -> str:
    """Return the name of the sensor of the same as the hand sees it: can_pos, can_to_robot0_eef_pos."""
    thing, _, what = name.rpartition("_")
    return f"{thing}_to_robot0_eef_{what}"


def _rows(name: str, starts: Mapping[str, int], reads: Reads) -> list[tuple[int, int, int, int]]:
    """Return what compiled code has to do for a sensor: rows of (what, source, other source, where to)."""
    to = starts[name]
    if name in reads:
        what, number = reads[name]
        return [(what, number, 0, to)]
    if name in DIFFERENCES:
        source, other = (starts[name] for name in DIFFERENCES[name])
        return [(DIFFERENCE, source, other, to)]
    if name == WORLD_IN_HAND:
        return [(WORLD, starts["robot0_eef_pos"], starts["robot0_eef_quat"], to)]
    if name in QUESTIONS or name.endswith("_quat"):  # the position's row finds the quaternion, too
        return []
    return [(RELATIVE, starts[name.replace("_to_robot0_eef", "")], starts[WORLD_IN_HAND], to)]


def _scene(data: Any) -> Scene:
    sites_and_geoms = data.site_xpos, data.site_xmat, data.geom_xpos, data.geom_xmat
    return Scene(data.qpos, data.xpos, data.xquat, data.xmat, *sites_and_geoms)


@compiled
def _read(rows, values, scene):
    """Do what each row (what, source, other source, where to) asks for; `values` are read and written."""
    for index in range(len(rows)):
        what, source, other, to = rows[index, 0], rows[index, 1], rows[index, 2], rows[index, 3]
        if what == BODY:
            values[to : to + 3] = scene.body_pos[source]
        elif what == SITE:
            values[to : to + 3] = scene.site_pos[source]
        elif what == GEOM:
            values[to : to + 3] = scene.geom_pos[source]
        elif what == BODY_TURN:
            values[to : to + 3], values[to + 3] = scene.body_quat[source, 1:], scene.body_quat[source, 0]
        elif what == BODY_MATRIX:
            values[to : to + 4] = T.mat2quat(scene.body_mat[source].reshape(3, 3))
        elif what == SITE_MATRIX:
            values[to : to + 4] = T.mat2quat(scene.site_mat[source].reshape(3, 3))
        elif what == GEOM_MATRIX:
            values[to : to + 4] = T.mat2quat(scene.geom_mat[source].reshape(3, 3))
        elif what == FINGERS:
            values[to : to + 2] = scene.qpos[source : source + 2]
        elif what == DIFFERENCE:
            values[to : to + 3] = values[source : source + 3] - values[other : other + 3]
        elif what == WORLD:
            values[to : to + 16] = _inverse(_pose(values[source : source + 3], values[other : other + 4])).ravel()
        elif what == RELATIVE:
            pose, relative = _pose(values[source : source + 3], values[source + 3 : source + 7]), np.empty((4, 4))
            matrix_product(values[other : other + 16].reshape(4, 4), pose, relative)
            values[to : to + 3] = relative[:3, 3]
            values[to + 3 : to + 7] = T.mat2quat(relative[:3, :3])


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
