"""What cameras see: pictures of a simulation's scene, drawn fast on a CPU and the same bytes in every process.

Vertices cost the time, not pixels: a Panda has 168,000 visual faces, drawn again for every reflecting surface. So what
is drawn is a copy of the model with coarse meshes, without reflections and shadows; the physics' own model and data
are untouched. The copy and its graphics context are kept as long as the physics keep their model.
"""

import copy
import importlib
from typing import Any

import numpy as np

from lfm_policy.contract import Drawing
from lfm_policy.errors import RolloutError, nearest

mujoco: Any = importlib.import_module("mujoco")  # its stubs miss half of the names below

FACES = 250
"""Faces that a mesh of a coarse drawing has at most."""
LOOKS = ("body_pos", "body_quat", "geom_pos", "geom_quat", "geom_size", "geom_rbound", "geom_aabb", "geom_rgba")
"""What an episode may change of a model."""
EFFECTS = ("mjRND_SHADOW", "mjRND_REFLECTION")
"""What a coarse drawing leaves out."""


class Eyes:
    """Draws the scene of one simulation.

    Args:
        drawing: "coarse" is fast and at 84 pixels looks the same; "full" draws every face, reflection and shadow.
    """

    def __init__(self, drawing: Drawing = "coarse") -> None:
        self.drawing: Drawing = drawing
        self._model: Any = None
        self._drawn: Any = None
        self._posed: Any = None
        self._renderers: dict[tuple[int, int], Any] = {}
        self._option = mujoco.MjvOption()
        self._option.geomgroup[0] = 0  # collision shapes

    def look(self, model: Any, data: Any, camera: str, width: int, height: int) -> np.ndarray:
        """Draw what a camera sees: a function of the joints' positions, to which the kinematics may be a step behind.

        Args:
            model: the physics' `MjModel`; the drawing is made anew when it is another object than last time.
            data: its `MjData`, which is only read.
            camera: name in the model.
            width: of the picture [pixels].
            height: of the picture [pixels].

        Returns:
            uint8 (height, width, 3), RGB, the first row on top.

        Raises:
            RolloutError: there is no such camera, or this machine has no headless renderer.
        """
        if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera) < 0:
            known = [model.camera(number).name for number in range(model.ncam)]
            raise RolloutError(f"the scene has no camera '{camera}': {nearest(camera, known)}")
        if model is not self._model:
            self._copy(model)
        for name in LOOKS:
            getattr(self._drawn, name)[:] = getattr(model, name)
        self._posed.qpos[:] = data.qpos
        for settle in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight):
            settle(self._drawn, self._posed)
        renderer = self._renderers.get((width, height)) or self._open(width, height)
        renderer.update_scene(self._posed, camera=camera, scene_option=self._option)
        return renderer.render()

    def close(self) -> None:
        """Release the graphics contexts and forget the model."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
        self._model = self._drawn = self._posed = None

    def _copy(self, model: Any) -> None:
        self.close()
        self._drawn = coarse(model) if self.drawing == "coarse" else copy.deepcopy(model)
        self._model, self._posed = model, mujoco.MjData(self._drawn)

    def _open(self, width: int, height: int) -> Any:
        view = self._drawn.vis.global_
        view.offwidth, view.offheight = width, height
        try:
            renderer = mujoco.Renderer(self._drawn, height, width)
        except Exception as error:  # each GL backend raises its own types
            raise RolloutError(
                f"no headless renderer works here ({error}): install libosmesa6 or libegl1, or turn pictures off"
            ) from error
        if self.drawing == "coarse":
            for effect in EFFECTS:
                renderer.scene.flags[getattr(mujoco.mjtRndFlag, effect)] = 0
        self._renderers[width, height] = renderer
        return renderer


def coarse(model: Any) -> Any:
    """Copy a model, its visual meshes with at most FACES faces each; those that carry a picture stay as they are.

    Raises:
        RolloutError: fast-simplification is not installed.
    """
    drawn = copy.deepcopy(model)
    meshes = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    visible = set(model.geom_dataid[meshes & (model.geom_group != 0)].tolist())
    pictured = set(model.geom_dataid[meshes & _has_picture(model)].tolist())
    for mesh in range(model.nmesh):
        if mesh not in visible:
            _replace(drawn, mesh, *_triangle(model, mesh))
        elif mesh not in pictured and model.mesh_facenum[mesh] > FACES:
            _replace(drawn, mesh, *_simplified(model, mesh))
    return drawn


def _has_picture(model: Any) -> np.ndarray:
    """Tell of each geom whether its material has a texture: boolean (ngeom,)."""
    textured = np.append((model.mat_texid >= 0).any(axis=1), False)  # material -1: none
    return textured[model.geom_matid]


def _triangle(model: Any, mesh: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one face of a mesh that nobody sees, in place of all that would be sent to the graphics context."""
    return _vertices(model, mesh)[:3], np.array([[0, 1, 2]])


def _simplified(model: Any, mesh: int) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (V, 3) and faces (F, 3) of a mesh in FACES faces, corners of faces at one place joined first."""
    try:
        from fast_simplification import simplify
    except ModuleNotFoundError as error:
        raise RolloutError(
            "coarse pictures need fast-simplification: pip install 'lfm-policy[sim]', or draw with drawing=full"
        ) from error
    start, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    corners, place = np.unique(_vertices(model, mesh), axis=0, return_inverse=True)
    faces = place.reshape(-1)[model.mesh_face[start : start + count]]
    points: Any = corners.astype(np.float32)  # it takes both precisions, and declares one
    return simplify(points, faces.astype(np.int32), target_count=FACES)[:2]


def _vertices(model: Any, mesh: int) -> np.ndarray:
    start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    return model.mesh_vert[start : start + count]


def _replace(drawn: Any, mesh: int, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Write a smaller mesh over a mesh, smoothly shaded."""
    vert, face, normal = drawn.mesh_vertadr[mesh], drawn.mesh_faceadr[mesh], drawn.mesh_normaladr[mesh]
    drawn.mesh_vert[vert : vert + len(vertices)] = vertices
    drawn.mesh_vertnum[mesh] = len(vertices)
    drawn.mesh_face[face : face + len(faces)] = faces
    drawn.mesh_facenormal[face : face + len(faces)] = faces
    drawn.mesh_facenum[mesh] = len(faces)
    drawn.mesh_normal[normal : normal + len(vertices)] = _normals(vertices, faces)
    drawn.mesh_normalnum[mesh] = len(vertices)
    drawn.mesh_texcoordadr[mesh] = drawn.mesh_graphadr[mesh] = -1


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return unit normals (V, 3) of the vertices: of the faces around each, by their area."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = np.zeros(vertices.shape)
    for corner in range(3):
        np.add.at(sums, faces[:, corner], across)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
