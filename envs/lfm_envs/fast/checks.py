"""What robosuite's environments ask about contacts, answered without a name for every geom in contact."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from robosuite.environments.manipulation.tool_hang import ToolHang
from robosuite.models.base import MujocoModel
from robosuite.models.objects.group.transport import TransportGroup


def touching(sim: Any, geoms_1: Any, geoms_2: Any = None) -> bool:
    """robosuite's `check_contact`: whether a geom of one group touches one of the other (any at all if None)."""
    pairs = sim.data._data.contact.geom.tolist()
    if not pairs:
        return False
    ours = _ids(sim, geoms_1)
    if geoms_2 is None:
        return any(a in ours or b in ours for a, b in pairs)
    theirs = _ids(sim, geoms_2)
    return any((a in ours and b in theirs) or (b in ours and a in theirs) for a, b in pairs)


def _ids(sim: Any, geoms: Any) -> set[int]:
    names = geoms.contact_geoms if isinstance(geoms, MujocoModel) else [geoms] if isinstance(geoms, str) else geoms
    known = sim.model._geom_name2id
    return {known[name] for name in names if name in known}


class _Contacts:
    """Stands in for robosuite's module `sim_utils`."""

    check_contact = staticmethod(touching)


def _with_names(function: Callable[..., Any] | None, **names: Any) -> Any:
    """A copy of a function that finds `names` in place of its module's own."""
    assert isinstance(function, FunctionType)
    return FunctionType(function.__code__, function.__globals__ | names, function.__name__, function.__defaults__)


class Checks:
    """For a robosuite environment: contacts from `touching`, and ToolHang's geometry looked at once a step."""

    _step_answers: dict[str, bool] | None = None
    """What this step has found out so far; None between steps, when anybody may move things."""

    def check_contact(self, geoms_1: Any, geoms_2: Any = None) -> bool:
        return touching(self.sim, geoms_1, geoms_2)  # pyright: ignore[reportAttributeAccessIssue]


class ToolHangChecks(Checks):
    _look_at_tool = _with_names(ToolHang._check_tool_on_frame, check_contact=touching)

    def _check_frame_assembled(self) -> bool:
        return self._once("frame", super()._check_frame_assembled)  # pyright: ignore[reportAttributeAccessIssue]

    def _check_tool_on_frame(self) -> bool:
        return self._once("tool", self._look_at_tool)

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


CHECKS = {"ToolHang": ToolHangChecks, "TwoArmTransport": TransportChecks}
"""By robosuite's name of the environment; the others need `Checks` only."""
