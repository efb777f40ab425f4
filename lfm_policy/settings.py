"""Typed settings: a plain mapping (composed by Hydra, read from JSON) becomes a frozen record, or a clear error."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from lfm_policy.errors import ConfigError, nearest

Model = TypeVar("Model", bound=BaseModel)


class Frozen(BaseModel):
    """An immutable record that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def parse(model: type[Model], values: Mapping[str, Any], where: str = "configuration") -> Model:
    """Validate `values` as `model`.

    Raises:
        ConfigError: names every bad field, what was found there, and for an unknown key the nearest known one.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        rows = [_explain(model, row) for row in error.errors()]
        raise ConfigError(f"{where} is not valid:\n" + "\n".join(f"  {row}" for row in rows)) from None


def _explain(model: type[BaseModel], row: Any) -> str:
    location = ".".join(str(part) for part in row["loc"])
    if row["type"] == "extra_forbidden":
        return f"unknown key '{location}': {nearest(str(row['loc'][-1]), _fields_at(model, row['loc'][:-1]))}"
    if row["type"] == "missing":
        return f"'{location}' is missing"
    message = row["msg"].removeprefix("Value error, ")
    if row["type"] == "literal_error" and isinstance(row["input"], str):
        words = re.findall(r"'([^']+)'", row["ctx"]["expected"])
        near = nearest(row["input"], words)
        message += f" ({near})" if near.startswith("did") else ""
    if row["type"] == "value_error" and isinstance(row["input"], dict):  # of several fields; the message names them
        return f"'{location}': {message}" if location else message
    return f"'{location}': {message}; found {row['input']!r}"


def _fields_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Return the field names of the record that `path` leads to, searching through optional and union types."""
    candidates: list[Any] = [model]
    for part in path:
        step = []
        for candidate in candidates:
            field = getattr(candidate, "model_fields", {}).get(part)
            step += _records(field.annotation) if field is not None else [candidate]
        candidates = step
    return sorted({name for candidate in candidates for name in getattr(candidate, "model_fields", {})})


def _records(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [record for part in get_args(annotation) for record in _records(part)]
