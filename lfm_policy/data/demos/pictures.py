"""Pictures in demonstration files: which cameras there are, and what each of them saw at every step."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from pydantic import TypeAdapter, ValidationError

from lfm_policy.contract import Camera
from lfm_policy.data.demos.file import DemoFile
from lfm_policy.data.demos.hdf5 import readable, require_inside, require_moderate
from lfm_policy.errors import DataError, nearest

CAMERAS = "cameras"
"""Attribute of the group "data": how the pictures in it were made, a JSON list of `Camera`."""
SUFFIX = "_image"


@dataclass(frozen=True)
class Pictures:
    """The pictures of some cameras in a demonstration file."""

    file: DemoFile
    cameras: tuple[Camera, ...]
    channels_first: bool
    """They lie as (L, 3, height, width) and are turned when read."""

    def read(self, index: int) -> np.ndarray:
        """Read all pictures of a demonstration, uint8 (L, cameras, height, width, 3); row t is before step t.

        Raises:
            DataError: a camera is missing, or its pictures have another size, type or number.
        """
        name = self.file.names[index]
        with readable(self.file.path):
            group, length = self.file.data[name], len(self.file.data[name]["actions"])
            return np.stack([self._of(group, camera, length, name) for camera in self.cameras], axis=1)

    def _of(self, group: Any, camera: Camera, length: int, name: str) -> np.ndarray:
        where = f"{self.file.path}: {name}/obs/{camera.key}"
        seen = group.get("obs", {}).get(camera.key)
        if seen is None:
            raise DataError(f"{where} is missing; found {sorted(_shapes(group)) or 'no pictures at all'}")
        require_bytes(seen, where)
        side = (camera.height, camera.width)
        shape = (length, camera.channels, *side) if self.channels_first else (length, *side, camera.channels)
        if seen.shape != shape:
            raise DataError(f"{where}: expected pictures of shape {shape}, found {seen.shape}")
        return np.moveaxis(seen[()], 1, -1) if self.channels_first else seen[()]

    def notes(self) -> list[str]:
        """Say what a user should know about how they were read."""
        turned = ["pictures lie channels first and were turned to height x width x 3"] if self.channels_first else []
        return turned + [
            f"{camera.name}: {camera.height} x {camera.width} pixels, drawn {camera.drawing}" for camera in self.cameras
        ]


def has_pictures(file: DemoFile) -> bool:
    """Say whether the first demonstration of a file has pictures."""
    with readable(file.path):
        return bool(_shapes(file.data[file.names[0]]))


def find_pictures(file: DemoFile, names: Sequence[str] | None = None) -> Pictures:
    """Find the pictures in a demonstration file by its first demonstration.

    Files that do not say how their pictures were made (robomimic's) hold full drawings.

    Args:
        file: an open demonstration file.
        names: of the cameras wanted, in this order; None: all that there are.

    Raises:
        DataError: there are none, one wanted is missing, or they are no pictures of bytes.
    """
    with readable(file.path):
        first = file.data[file.names[0]]
        shapes = _shapes(first)
        if not shapes:
            raise DataError(
                f"{file.path} holds no pictures (obs/*{SUFFIX}): add them with lfm render source={file.path}"
            )
        said = _said(file)
        for key in shapes:
            require_bytes(first["obs"][key], f"{file.path}: {file.names[0]}/obs/{key}")
    wanted = names or [camera for camera in said if said[camera].key in shapes] or _by_name(shapes)
    cameras, orders = [], set()
    for name in wanted:
        if f"{name}{SUFFIX}" not in shapes:
            raise DataError(f"{file.path} holds no pictures of camera '{name}': {nearest(name, _by_name(shapes))}")
        height, width, first_axis = _layout(shapes[f"{name}{SUFFIX}"], f"{file.path}: {name}{SUFFIX}")
        orders.add(first_axis)
        drawing = said[name].drawing if name in said else "full"
        cameras.append(Camera(name=name, height=height, width=width, drawing=drawing))
    if len({(camera.height, camera.width) for camera in cameras}) > 1 or len(orders) > 1:
        sizes = {camera.name: (camera.height, camera.width) for camera in cameras}
        raise DataError(f"{file.path}: expected pictures of one size and order of axes, found {sizes}: choose cameras=")
    return Pictures(file, tuple(cameras), orders.pop())


def require_bytes(seen: Any, where: str) -> None:
    """Check the type of a data set of pictures.

    Raises:
        DataError: it is not uint8, and says what was found instead; or lies outside of the file.
    """
    require_inside(seen.id, where)
    require_moderate(seen.shape, seen.dtype.itemsize, where)
    if seen.dtype == np.uint8:
        return
    values = np.asarray(seen[:1], dtype=np.float64) if seen.dtype.kind in "fiu" else np.zeros(0)
    kind = "NaN among them" if np.isnan(values).any() else f"{values.min(initial=0):g} … {values.max(initial=0):g}"
    raise DataError(
        f"{where}: expected pictures as bytes (uint8, 0 … 255), found {seen.dtype} ({kind}): "
        "convert them, or draw them again with lfm render"
    )


def _shapes(demo: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each data set of pictures in a demonstration."""
    seen: Mapping[str, Any] = demo.get("obs", {})
    return {key: seen[key].shape for key in seen if key.endswith(SUFFIX) and isinstance(seen[key], h5py.Dataset)}


def _by_name(shapes: Mapping[str, Any]) -> list[str]:
    return [key.removesuffix(SUFFIX) for key in shapes]


def _layout(shape: tuple[int, ...], where: str) -> tuple[int, int, bool]:
    """Return height, width, and whether the channels come first."""
    if len(shape) == 4 and shape[3] == 3:
        return shape[1], shape[2], False
    if len(shape) == 4 and shape[1] == 3:
        return shape[2], shape[3], True
    raise DataError(f"{where}: expected pictures of shape (L, height, width, 3), found {shape}")


def _said(file: DemoFile) -> dict[str, Camera]:
    text = file.data.attrs.get(CAMERAS, "[]")
    try:
        cameras = TypeAdapter(list[Camera]).validate_json(text)
    except (ValidationError, json.JSONDecodeError) as error:
        raise DataError(f"{file.path}: its attribute '{CAMERAS}' cannot be read ({error})") from error
    return {camera.name: camera for camera in cameras}
