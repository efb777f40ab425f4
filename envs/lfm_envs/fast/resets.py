"""Hard resets that keep the model: what rebuilding it would give, without the XML and the compiler.

Three of the tasks have one model. Lift's cube and Transport's hammer have other sizes in every episode: the object is
compiled alone and its numbers go into the scene's model.
"""

import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import mujoco
import numpy as np
from robosuite.models.objects import BoxObject, HammerObject

SHAPED = {"geom": ("size", "pos", "quat", "rbound", "aabb"), "site": ("size", "pos", "quat")}
"""What the compiler derives from an element's description."""
BODY = ("mass", "inertia", "ipos", "iquat")


class Reuse:
    """For a robosuite environment whose model is the same in every episode."""

    sim: Any
    rng: Any
    deterministic_reset: bool
    _own: Any = None
    """The simulation built from this environment's own description, not from a given XML."""
    _reusing = False
    _placed: tuple[np.ndarray, np.ndarray]
    """Places of the bodies as the model has them: an episode moves some that have no joint."""
    _xml = ""

    @property
    def model_xml(self) -> str:
        """The MJCF model of the current episode."""
        return self._xml

    def edit_model_xml(self, xml_str: str) -> str:
        self._xml = super().edit_model_xml(xml_str)  # pyright: ignore[reportAttributeAccessIssue]
        return self._xml

    def reset(self) -> Any:
        self._reusing = self.sim is not None and self.sim is self._own and not self.deterministic_reset
        try:
            return super().reset()  # pyright: ignore[reportAttributeAccessIssue]
        finally:
            self._reusing = False

    def _load_model(self) -> None:
        if self._reusing:
            self._draw_model()
        else:
            super()._load_model()  # pyright: ignore[reportAttributeAccessIssue]

    def _draw_model(self) -> None:
        """Draw what robosuite's `_load_model` draws, and change the model accordingly."""

    def _initialize_sim(self, xml_string: str | None = None) -> None:
        if self._reusing:
            model = self.sim.model._model
            model.body_pos[:], model.body_quat[:] = self._placed
            mujoco.mj_resetData(model, self.sim.data._data)  # pyright: ignore[reportAttributeAccessIssue]
            self.sim.forward()
            return
        super()._initialize_sim(xml_string)  # pyright: ignore[reportAttributeAccessIssue]
        model = self.sim.model._model
        self._own = self.sim if xml_string is None else None
        self._placed = model.body_pos.copy(), model.body_quat.copy()

    def _reset_observables(self) -> None:
        """Keep the sensors: they read the simulation they were made for, which is still the same."""
        if not self._reusing:
            super()._reset_observables()  # pyright: ignore[reportAttributeAccessIssue]


class Redraw(Reuse):
    """For one with an object whose shape is drawn anew in every episode."""

    _alone: ElementTree.Element | None = None
    """The scene with this object only and without its looks, to be compiled."""
    _drawn: Any = None
    """The latest object, if the model's XML does not know it yet."""

    _the_object: Callable[[], Any]
    """Return the object in the scene; the subclass's."""
    _draw_object: Callable[[], Any]
    """Draw an object as `_load_model` makes it, looks aside, with the same draws; the subclass's."""

    @property
    def model_xml(self) -> str:
        if self._drawn is not None:
            for element in _shaped(self._drawn.get_obj()):
                self._xml = _with_shape(self._xml, element)
            self._drawn = None
        return self._xml

    def edit_model_xml(self, xml_str: str) -> str:
        self._alone = self._drawn = None
        return super().edit_model_xml(xml_str)

    def _draw_model(self) -> None:
        thing, drawn = self._the_object(), self._draw_object()
        if self._alone is None:
            self._alone = _alone(self._xml, thing.root_body)
        for element in _shaped(drawn.get_obj()):
            place = self._alone.find(f".//{element.tag}[@name='{element.get('name')}']")
            assert place is not None
            place.attrib.update(_shape(element))
        xml = ElementTree.tostring(self._alone, encoding="unicode")
        alone = mujoco.MjModel.from_xml_string(xml)  # pyright: ignore[reportAttributeAccessIssue]
        model = self.sim.model._model
        model.body_pos[:], model.body_quat[:] = self._placed
        _transplant(alone, model, thing.root_body)
        mujoco.mj_setConst(model, self.sim.data._data)  # pyright: ignore[reportAttributeAccessIssue]
        vars(thing).update(vars(drawn))
        self._drawn = drawn


class LiftReset(Redraw):
    """The cube's three sizes are drawn."""

    def _the_object(self) -> Any:
        return self.cube  # pyright: ignore[reportAttributeAccessIssue]

    def _draw_object(self) -> Any:
        return BoxObject("cube", size_min=[0.020, 0.020, 0.020], size_max=[0.022, 0.022, 0.022], rng=self.rng)


class TransportReset(Redraw):
    """The hammer's head is drawn."""

    def _the_object(self) -> Any:
        return self.transport.payload  # pyright: ignore[reportAttributeAccessIssue]

    def _draw_object(self) -> Any:
        return HammerObject(
            "payload",
            handle_radius=0.015,
            handle_length=0.20,
            handle_density=150.0,
            handle_friction=4.0,
            head_density_ratio=1.5,
            rng=self.rng,
        )


RESETS = {"Lift": LiftReset, "TwoArmTransport": TransportReset}
"""Which class resets, by robosuite's name of the environment; the others have one model."""


def _shaped(body: ElementTree.Element) -> list[ElementTree.Element]:
    return [element for element in body.iter() if element.tag in SHAPED]


def _shape(element: ElementTree.Element) -> dict[str, str]:
    return {key: value for key, value in element.attrib.items() if key in ("size", "pos", "quat")}


def _with_shape(xml: str, element: ElementTree.Element) -> str:
    """Return the XML with an element's shape in place of that of the one of the same name."""
    found = re.search(rf'<{element.tag} [^>]*name="{re.escape(element.get("name", ""))}"[^>]*>', xml)
    assert found is not None
    text = found[0]
    for key, value in _shape(element).items():
        text = re.sub(rf' {key}="[^"]*"', f' {key}="{value}"', text)
    return xml.replace(found[0], text)


def _alone(xml: str, body: str) -> ElementTree.Element:
    """Return the model with one body of the world only, without materials and what else refers to other bodies."""
    scene = ElementTree.fromstring(xml)
    world = scene.find("worldbody")
    assert world is not None
    alone = ElementTree.Element("mujoco")
    alone.extend(part for part in scene if part.tag in ("compiler", "option", "default"))
    alone.append(ElementTree.Element("worldbody"))
    alone[-1].extend(part for part in world if part.get("name") == body)
    for element in alone.iter():
        element.attrib.pop("material", None)
    return alone


def _transplant(source: Any, model: Any, body: str) -> None:
    """Copy a body's mass and the shapes of its elements, found by name, from one model to another."""
    ours, theirs = model.body(body).id, source.body(body).id
    for field in BODY:
        getattr(model, f"body_{field}")[ours] = getattr(source, f"body_{field}")[theirs]
    for tag, fields in SHAPED.items():
        for index in range(getattr(source, f"n{tag}")):
            name = getattr(source, tag)(index).name
            for field in fields:
                getattr(model, f"{tag}_{field}")[getattr(model, tag)(name).id] = getattr(source, f"{tag}_{field}")[
                    index
                ]
    count = model.body_bvhnum[ours]
    start, from_start = model.body_bvhadr[ours], source.body_bvhadr[theirs]
    model.bvh_aabb[start : start + count] = source.bvh_aabb[from_start : from_start + count]
