"""What robosuite's environments ask about contacts, answered without a name for every geom in contact."""

from collections.abc import Callable
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from robosuite.environments.manipulation.tool_hang import ToolHang
from robosuite.models.base import MujocoModel
from robosuite.models.objects.group.transport import TransportGroup


def touching(sim: Any, geoms_1: Any, geoms_2: Any = None) -> bool:
    """Say like robosuite's `check_contact` whether a geom of one group touches one of the other (any if None)."""
    pairs = sim.data._data.contact.geom.tolist()
    if not pairs:
        return False
    ours = _ids(sim, geoms_1)
    if geoms_2 is None:
        return any(a in ours or b in ours for a, b in pairs)
    theirs = _ids(sim, geoms_2)
    return any((a in ours and b in theirs) or (b in ours and a in theirs) for a, b in pairs)


def _ids(sim: Any, geoms: Any) -> frozenset[int]:
    """Look up the numbers of a group's geoms, once per model: robosuite makes their names anew at every question."""
    group = geoms if isinstance(geoms, str | MujocoModel) else tuple(geoms)
    known = _groups.setdefault(sim.model, {})
    if group not in known:
        names = group.contact_geoms if isinstance(group, MujocoModel) else [group] if isinstance(group, str) else group
        numbers = sim.model._geom_name2id
        known[group] = frozenset(numbers[name] for name in names if name in numbers)
    return known[group]


_groups: WeakKeyDictionary[Any, dict[Any, frozenset[int]]] = WeakKeyDictionary()


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return numpy's cross product of vectors (3,), the same bits without its arrangements for more dimensions."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


class _Numpy:
    """Stands in for numpy."""

    cross = staticmethod(_cross)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


class _Contacts:
    """Stands in for robosuite's module `sim_utils`."""

    check_contact = staticmethod(touching)


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
    on_peg: Callable[[np.ndarray, int], bool]

    def _check_success(self) -> bool:
        if any(self.on_peg(place, index) for index, place in enumerate(_places(self, self.nuts))):
            return super()._check_success()  # pyright: ignore[reportAttributeAccessIssue]
        self.objects_on_pegs[:] = 0
        return False


class CanChecks(Checks):
    """Where the hand is matters only once an object is in its bin."""

    objects: list[Any]
    objects_in_bins: np.ndarray
    not_in_bin: Callable[[np.ndarray, int], bool]

    def _check_success(self) -> bool:
        if not all(self.not_in_bin(place, index) for index, place in enumerate(_places(self, self.objects))):
            return super()._check_success()  # pyright: ignore[reportAttributeAccessIssue]
        self.objects_in_bins[:] = 0
        return False


def _places(environment: Any, things: list[Any]) -> np.ndarray:
    """Return where objects are now [m] (things, 3)."""
    return environment.sim.data._data.xpos[[environment.obj_body_id[thing.name] for thing in things]]


class ToolHangChecks(Checks):
    tool_args: dict[str, Any]

    _look_at_tool = _with_names(ToolHang._check_tool_on_frame, check_contact=touching, np=_Numpy())
    _look_at_frame = _with_names(ToolHang._check_frame_assembled, np=_Numpy())

    def _check_frame_assembled(self) -> bool:
        return self._once("frame", self._look_at_frame)

    def _check_tool_on_frame(self) -> bool:
        return self._once("tool", lambda: self._tool_touches_hook() and self._look_at_tool())

    def _tool_touches_hook(self) -> bool:
        """Say whether the tool touches the hook; if not, the rest of `_look_at_tool`, which asks too, is needless."""
        hole = [f"tool_hole1_hc_{index}" for index in range(self.tool_args["ngeoms"])]
        return touching(self.sim, hole, "frame_horizontal_frame")  # pyright: ignore[reportAttributeAccessIssue]

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
    payload_in_target_bin = property(_with_names(TransportGroup.payload_in_target_bin.fget, SU=_Contacts))
    trash_in_trash_bin = property(_with_names(TransportGroup.trash_in_trash_bin.fget, SU=_Contacts))


CHECKS = {
    "NutAssemblySquare": NutChecks,
    "PickPlaceCan": CanChecks,
    "ToolHang": ToolHangChecks,
    "TwoArmTransport": TransportChecks,
}
"""Which class checks, by robosuite's name of the environment; the others need `Checks` only."""
