"""What robosuite's environments ask about contacts, answered without a name for every geom in contact."""

from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from robosuite.environments.manipulation.tool_hang import ToolHang
from robosuite.models.base import MujocoModel
from robosuite.models.objects.group.transport import TransportGroup

from lfm_policy.compiled import compiled


def touching(sim: Any, geoms_1: Any, geoms_2: Any = None) -> bool:
    """Say like robosuite's `check_contact` whether a geom of one group touches one of the other (any if None)."""
    theirs = None if geoms_2 is None else _group(sim, geoms_2)
    return _meet(sim, _group(sim, geoms_1), theirs)


def _meet(sim: Any, ours: np.ndarray, theirs: np.ndarray | None) -> bool:
    """Say whether a geom of one group touches one of the other; groups as a truth value for each geom."""
    data = sim.data._data
    if not data.ncon:
        return False
    return bool(_any_pair(data.contact.geom, ours, np.ones_like(ours) if theirs is None else theirs))


@compiled
def _any_pair(pairs, ours, theirs):
    """Say whether a pair of geoms (contacts, 2) is of both groups; numbers below zero are no geoms."""
    for index in range(len(pairs)):
        a, b = pairs[index, 0], pairs[index, 1]
        if a >= 0 and b >= 0 and ((ours[a] and theirs[b]) or (ours[b] and theirs[a])):
            return True
    return False


def _group(sim: Any, geoms: Any) -> np.ndarray:
    """Return which of the model's geoms are of a group: a model, a name or several."""
    if isinstance(geoms, MujocoModel):
        return _known(sim, geoms, lambda: geoms.contact_geoms)
    names = (geoms,) if isinstance(geoms, str) else tuple(geoms)
    return _known(sim, names, lambda: names)


def _known(sim: Any, key: Any, names: Callable[[], Iterable[str]]) -> np.ndarray:
    """Look a group up, once per model: robosuite makes the names of its geoms anew at every question."""
    known = _groups.setdefault(sim.model, {})
    if key not in known:
        numbers = sim.model._geom_name2id
        known[key] = np.zeros(sim.model.ngeom, np.bool_)
        known[key][[numbers[name] for name in names() if name in numbers]] = True
    return known[key]


_groups: WeakKeyDictionary[Any, dict[Any, np.ndarray]] = WeakKeyDictionary()


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return numpy's cross product of vectors (3,), the same bits without its arrangements for more dimensions."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


class _Numpy:
    """Stands in for numpy."""

    cross = staticmethod(_cross)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def _with_names(function: Callable[..., Any] | None, **names: Any) -> Any:
    """Return a copy of a function that finds `names` in place of its module's own."""
    assert isinstance(function, FunctionType)
    return FunctionType(function.__code__, function.__globals__ | names, function.__name__, function.__defaults__)


class Checks:
    """For a robosuite environment: contacts from `touching`, and ToolHang's geometry looked at once per step."""

    _step_answers: dict[str, bool] | None = None
    """What this step has found out so far; None between steps, when anybody may move things."""

    def check_contact(self, geoms_1: Any, geoms_2: Any = None) -> bool:
        return touching(self.sim, geoms_1, geoms_2)  # pyright: ignore[reportAttributeAccessIssue]


class NutChecks(Checks):
    """Where the hand is matters only once a nut is around its peg."""

    nuts: list[Any]
    objects_on_pegs: np.ndarray
    on_peg: Callable[[Any, int], bool]

    def _check_success(self) -> bool:
        if any(self.on_peg(place, index) for index, place in enumerate(_places(self, self.nuts))):
            return super()._check_success()  # pyright: ignore[reportAttributeAccessIssue]
        self.objects_on_pegs[:] = 0
        return False


class CanChecks(Checks):
    """Where the hand is matters only once an object is in its bin."""

    objects: list[Any]
    objects_in_bins: np.ndarray
    not_in_bin: Callable[[Any, int], bool]

    def _check_success(self) -> bool:
        if not all(self.not_in_bin(place, index) for index, place in enumerate(_places(self, self.objects))):
            return super()._check_success()  # pyright: ignore[reportAttributeAccessIssue]
        self.objects_in_bins[:] = 0
        return False


def _places(environment: Any, things: list[Any]) -> list[list[float]]:
    """Return where objects are now [m]; lists, whose numbers are compared faster than an array's."""
    places, bodies = environment.sim.data._data.xpos, environment.obj_body_id
    return [places[bodies[thing.name]].tolist() for thing in things]


HOOK_TOLERANCE = 0.05
"""How far from the stand's base the end of a hook that is in it may be, by robosuite's check [m]."""


class ToolHangChecks(Checks):
    sim: Any
    tool_args: dict[str, Any]
    obj_site_id: dict[str, int]
    obj_geom_id: dict[str, int]

    _look_at_tool = _with_names(ToolHang._check_tool_on_frame, check_contact=touching, np=_Numpy())
    _look_at_frame = _with_names(ToolHang._check_frame_assembled, np=_Numpy())

    def _check_frame_assembled(self) -> bool:
        return self._once("frame", lambda: self._hook_is_near() and self._look_at_frame())

    def _check_tool_on_frame(self) -> bool:
        return self._once("tool", lambda: self._tool_touches_hook() and self._look_at_tool())

    def _tool_touches_hook(self) -> bool:
        """Say whether the tool touches the hook; if not, the rest of `_look_at_tool`, which asks too, is needless."""
        hole = _known(
            self.sim, ("hole of", "tool"), lambda: [f"tool_hole1_hc_{n}" for n in range(self.tool_args["ngeoms"])]
        )
        return _meet(self.sim, hole, _group(self.sim, "frame_horizontal_frame"))

    def _hook_is_near(self) -> bool:
        """Say whether the hook's end may be in the stand; if not, the rest of `_look_at_frame` is needless.

        Twice robosuite's tolerance, so that rounding cannot matter.
        """
        sites, data = self.obj_site_id, self.sim.data._data
        end = data.site_xpos[sites.get("frame_tip_site", sites["frame_mount_site"])]
        apart = end - data.geom_xpos[self.obj_geom_id["stand_base"]]
        return bool(apart @ apart < (2 * HOOK_TOLERANCE) ** 2)

    def _once(self, question: str, look: Callable[[], bool]) -> bool:
        if self._step_answers is None:
            return look()
        if question not in self._step_answers:
            self._step_answers[question] = look()
        return self._step_answers[question]


class TransportChecks(Checks):
    def _load_model(self) -> None:
        super()._load_model()  # pyright: ignore[reportAttributeAccessIssue]
        self.transport.__class__ = _TransportGroup  # pyright: ignore[reportAttributeAccessIssue]


class _TransportGroup(TransportGroup):
    @property
    def payload_in_target_bin(self) -> bool:
        return self._inside("payload", "target_bin")

    @property
    def trash_in_trash_bin(self) -> bool:
        return self._inside("trash", "trash_bin")

    def _inside(self, thing: str, container: str) -> bool:
        """Say whether a thing touches the bottom of its bin."""
        ours = _known(self.sim, ("all of", thing), lambda: getattr(self, thing).contact_geoms)
        bottom = _known(self.sim, ("bottom of", container), lambda: getattr(self, container).base_geoms)
        return _meet(self.sim, ours, bottom)


CHECKS = {
    "NutAssemblySquare": NutChecks,
    "PickPlaceCan": CanChecks,
    "ToolHang": ToolHangChecks,
    "TwoArmTransport": TransportChecks,
}
"""Which class checks, by robosuite's name of the environment; the others need `Checks` only."""
