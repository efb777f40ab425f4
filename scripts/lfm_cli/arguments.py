"""`key=value` arguments, read by the type of the setting that each names: paths and names stand for themselves.

A value of any other kind is a number, a word, null, a list [a,b] or a mapping {a: 1, b: 2}. A list of paths may also be
given one by one, `runs=outputs/a runs=outputs/b`, or as JSON, `runs=["a,b","c"]`, for names with commas.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lfm_policy.errors import ConfigError, nearest

REQUIRED = object()
"""The default of a setting that has none."""


@dataclass(frozen=True)
class Setting:
    """One setting of a command."""

    name: str
    """Name with the names of the records that it is in: "optimiser.learning_rate"."""
    annotation: Any
    default: Any
    description: str
    of: str = ""
    """The kind of the record that it is in, where there are several to choose from: "windows"."""

    @property
    def choices(self) -> tuple[Any, ...]:
        """What it chooses from, where that is known."""
        return choices_of(self.annotation)


def settings_in(model: Any, prefix: str = "", default: Any = MISSING, of: str = "") -> Iterator[Setting]:
    """Yield the settings of a record, those of records inside it too, in their order.

    Args:
        model: the record's class, pydantic's or a dataclass.
        prefix: of the names.
        default: an instance that holds other defaults than the class.
        of: see `Setting`.
    """
    for name, info in fields_of(model).items():
        value = getattr(default, name) if default is not MISSING and default is not None else default_of(info)
        inner = records_in(info.annotation)
        full = f"{prefix}{name}"
        if not inner or value is None:
            yield Setting(full, info.annotation, value, info.description or "", of)
        for record in inner:
            same = value if isinstance(value, record) else MISSING
            kind = (fields_of(record).get("kind") or FieldInfo()).default if len(inner) > 1 else of
            yield from settings_in(record, f"{full}.", same, kind)


def fields_of(model: Any) -> dict[str, FieldInfo]:
    """Return the fields of a pydantic model or of a dataclass, by name."""
    if is_dataclass(model):
        types: dict[str, Any] = {field.name: field.type for field in fields(model)}
        return {
            field.name: FieldInfo.from_annotated_attribute(types[field.name], field.default) for field in fields(model)
        }
    return dict(model.model_fields)


def default_of(info: FieldInfo) -> Any:
    """Return a field's default, or REQUIRED."""
    value = info.get_default(call_default_factory=True)
    return REQUIRED if value in (PydanticUndefined, MISSING) else value


def members(annotation: Any) -> tuple[Any, ...]:
    """List what an annotation allows, through Annotated and unions."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(found for part in get_args(annotation) for found in members(part))
    return (annotation,)


def records_in(annotation: Any) -> list[Any]:
    """List the records among the members of an annotation."""
    return [m for m in members(annotation) if isinstance(m, type) and (issubclass(m, BaseModel) or is_dataclass(m))]


def choices_of(annotation: Any) -> tuple[Any, ...]:
    """List the words of the Literals in an annotation, in lists too; true and false for switches."""
    found: list[Any] = []
    for member in members(annotation):
        if get_origin(member) is Literal:
            found += get_args(member)
        elif get_origin(member) in (tuple, list):
            found += [choice for part in get_args(member) if part is not Ellipsis for choice in choices_of(part)]
        elif member is bool:
            found += ["true", "false"]
    return tuple(dict.fromkeys(found))


def is_text(annotation: Any) -> bool:
    """Say whether a value is taken as it stands: a path, a name or an address."""
    return any(member in (str, Path) for member in members(annotation))


def items_of(annotation: Any) -> Any:
    """Return the type of the items of a list of any length; None for what is no such list."""
    for member in members(annotation):
        arguments = get_args(member)
        if get_origin(member) is list or (get_origin(member) is tuple and arguments[-1:] == (Ellipsis,)):
            return arguments[0]
    return None


def value_of(annotation: Any, text: str) -> Any:
    """Read the text of a value for a setting of this type.

    Raises:
        ConfigError: brackets or quotes are not closed.
    """
    if text == "null" and NoneType in members(annotation):
        return None
    if is_text(annotation):
        return text
    item = items_of(annotation)
    if item is not None and not text.startswith("["):
        return [value_of(item, text)]
    if item is not None and is_text(item):
        literal = not text.endswith("]") or (Path in members(item) and Path(text).exists())
        return [text] if literal else [str(part) for part in plain(text, words=True)]
    return plain(text)


def plain(text: str, words: bool = False) -> Any:
    """Read a number, a word, null, [a, b] or {a: 1}.

    Args:
        text: what was given.
        words: the items of a list are words, also where they look like numbers.

    Raises:
        ConfigError: brackets or quotes are not closed.
    """
    try:
        value = json.loads(text)
        if not (words and isinstance(value, list) and not all(isinstance(item, str) for item in value)):
            return value
    except ValueError:
        pass  # no JSON: words without quotes are allowed, and read below
    body = text.strip()
    if body[:1] == "[":
        parts = _parts(body, "]")
        return [_unquoted(part) if words else plain(part) for part in parts]
    if body[:1] == "{":
        pairs = [part.partition(":") for part in _parts(body, "}")]
        return {_unquoted(key.strip()): plain(value.strip()) for key, _, value in pairs}
    return _unquoted(body)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _parts(text: str, end: str) -> list[str]:
    """Divide what stands between brackets at the commas that are inside no other bracket or quote."""
    if not text.endswith(end):
        raise ConfigError(f"expected a closing '{end}', found '{text}'")
    found, depth, quote, part = [], 0, "", ""
    for character in text[1:-1]:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and not part.strip():
            quote = character
        else:
            depth += (character in "[{") - (character in "]}")
        if character == "," and not depth and not quote:
            found.append(part.strip())
            part = ""
        else:
            part += character
    if depth or quote:
        raise ConfigError(f"brackets or quotes are not closed in '{text}'")
    return [*found, part.strip()] if found or part.strip() else []


def argument(key: str, value: Any) -> str:
    """Write a value as the argument that `value_of` reads as the same."""
    if isinstance(value, list | tuple):
        items = [_written(item) if isinstance(item, Path) else item for item in value]
        return f"{key}={json.dumps(items, ensure_ascii=False)}"
    if isinstance(value, Path):
        return f"{key}={_written(value)}"
    if isinstance(value, bool) or value is None:
        return f"{key}={json.dumps(value)}"
    return f"{key}={value}"


def _written(path: Path) -> str:
    """Write a path; one that starts with a tilde of its own is told from one in the home folder."""
    return f"./{path}" if str(path).startswith("~") else str(path)


def defaults_of(model: Any) -> dict[str, Any]:
    """Return the defaults of a record as plain values, for settings to be put over."""
    values: dict[str, Any] = {}
    for name, info in fields_of(model).items():
        if (value := default_of(info)) is not REQUIRED:
            values[name] = _plainly(value)
    return values


def _plainly(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plainly(getattr(value, name)) for name in type(value).model_fields}
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Put one tree of settings over another; a network that names its class replaces the one before."""
    result = dict(base)
    for key, value in over.items():
        before = result.get(key)
        both = isinstance(value, Mapping) and isinstance(before, Mapping) and "_target_" not in value
        result[key] = merged(before, value) if both else value  # type: ignore[arg-type]
    return result


def over(values: Mapping[str, Any], layer: Mapping[str, Any], either: tuple[str, ...]) -> dict[str, Any]:
    """Put a layer of settings over others; of `either` one takes the place of the other."""
    given = [name for name in either if layer.get(name) is not None]
    rest = {name: None for name in either if given and name not in layer}
    return merged(merged(values, rest), layer)


def apply(model: Any, values: dict[str, Any], arguments: Sequence[str], renamed: Mapping[str, str]) -> dict[str, Any]:
    """Put `key=value` arguments over `values`, in place, and return them.

    Of a setting that is given twice the last one counts; lists of paths and names grow. `~key` takes an entry of a
    mapping away, such as an argument that a network of your own does not have.

    Args:
        model: the record that the settings are of.
        values: a tree of settings.
        arguments: what was given.
        renamed: the new name of settings that were called otherwise.

    Raises:
        ConfigError: an argument is no key=value, names no setting, or has a value without an end.
    """
    seen: set[str] = set()
    for given in arguments:
        key, equals, text = given.removeprefix("+").partition("=")
        if takes_away(given):
            _take_away(values, key[1:])
            continue
        if not equals:
            raise ConfigError(f"expected key=value, found '{given}' (try --help)")
        if not text:
            raise ConfigError(f"'{given}' gives no value: write {key}=VALUE, or {key}=null for none")
        annotation = annotation_of(model, key, values, renamed)
        value = value_of(annotation, text)
        if annotation is dict and not isinstance(value, dict | None):
            parts = [s.name for s in settings_in(model) if s.name.startswith(f"{key}.")]
            raise ConfigError(f"'{key}' has parts, found {key}={text}: give {', '.join(f'{part}=' for part in parts)}")
        item = items_of(annotation)
        _put(values, key, value, more=key in seen and item is not None and is_text(item))
        seen.add(key)
    return values


def takes_away(argument: str) -> bool:
    """Say whether an argument is `~key`, and no path in the home folder."""
    return argument.startswith("~") and not set(argument) & {"=", "/"}


def annotation_of(model: Any, key: str, values: Mapping[str, Any], renamed: Mapping[str, str]) -> Any:
    """Return the type of the setting called `key`; Any inside mappings of any content.

    Raises:
        ConfigError: there is none; says what it is called now, or the nearest one.
    """
    found: list[Any] = [model]
    node: Any = values
    for part in key.split("."):
        known: dict[str, Any] = {}
        for record in found:
            for name, info in fields_of(record).items() if not isinstance(record, str) else ():
                known.setdefault(name, info.annotation)
        if part not in known:
            raise ConfigError(_unknown(model, key, renamed))
        annotation = known[part]
        node = node.get(part) if isinstance(node, Mapping) else None
        found = _chosen(records_in(annotation), node)
        if not found and any(get_origin(member) is dict for member in members(annotation)):
            return Any
    if found and not any(member is str for member in members(annotation)):
        return dict
    return annotation


def _chosen(records: list[Any], values: Any) -> list[Any]:
    """Choose, of several kinds of record, the one that the values say they are."""
    kind = values.get("kind") if isinstance(values, Mapping) else None
    same = [record for record in records if kind is not None and fields_of(record)["kind"].default == kind]
    return same or records


def _unknown(model: Any, key: str, renamed: Mapping[str, str]) -> str:
    first = next((old for old in renamed if key == old or key.startswith(f"{old}.")), None)
    if first is not None:
        return f"'{first}' is called '{renamed[first]}' now"
    names = [setting.name for setting in settings_in(model)]
    nested = sorted((name for name in names if "." in name), key=lambda name: -name.count("."))
    leaves = {name.rsplit(".", 1)[-1]: name for name in nested}
    if key in leaves:
        return f"unknown setting '{key}': did you mean '{leaves[key]}'?"
    near = nearest(key, names)
    return f"unknown setting '{key}': " + (near if near.startswith("did") else "lfm VERB --help lists them all")


def _put(values: dict[str, Any], key: str, value: Any, more: bool) -> None:
    *path, last = key.split(".")
    node = values
    for part in path:
        if not isinstance(node.get(part), dict):
            node[part] = {}
        node = node[part]
    before = node.get(last)
    if more:
        node[last] = [*(before or []), *value]
    elif isinstance(value, dict) and isinstance(before, dict):
        node[last] = merged(before, value) if "_target_" not in value else value
    else:
        node[last] = value


def _take_away(values: dict[str, Any], key: str) -> None:
    *path, last = key.split(".")
    node: Any = values
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        raise ConfigError(f"'~{key}' takes away what is not there")
    del node[last]
