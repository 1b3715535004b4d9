"""The schema an interrupt publishes for its answer: taken over when it is declared, checked when an answer comes.

A schema nobody could satisfy or read is refused where it is declared. The check itself is
:mod:`flowdeck.execution.json_schema`. Source: JSON Schema 2020-12.
"""

from __future__ import annotations

import re
from typing import Any

from flowdeck.execution.json_schema import TYPES, check
from flowdeck.execution.values import copy_value

__all__ = ["check_value", "schema_of"]

_LISTS = ("anyOf", "oneOf", "allOf")
_SHAPES: dict[str, type | tuple[type, ...]] = {
    "type": (str, list),
    "required": (list, tuple),
    "enum": (list, tuple),
    "properties": dict,
    "$ref": str,
    **dict.fromkeys(_LISTS, (list, tuple)),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), int),
}


def schema_of(schema: Any) -> Any:
    """Take JSON Schema as it is, or the schema of a pydantic model.

    Raises:
        TypeError: it is neither, or no answer could ever be checked against it.
    """
    describe = getattr(schema, "model_json_schema", None)
    if callable(describe):
        return describe()

    if schema is None or isinstance(schema, bool):
        return schema

    if not isinstance(schema, dict):
        raise TypeError(f"schema={schema!r}: expected JSON Schema (a dict) or a pydantic model")

    problem = _unusable(schema, "schema", 0)
    if problem:
        raise TypeError(problem)

    return copy_value(schema, "schema")


def _unusable(schema: Any, path: str, depth: int) -> str | None:
    """Return what makes a schema useless, looking at the keywords that are understood."""
    if isinstance(schema, bool) or depth > 64:
        return None

    if not isinstance(schema, dict):
        return f"{path}: expected a schema, got {schema!r}"

    pattern = schema.get("pattern", "")
    try:
        re.compile(pattern)
    except (re.error, TypeError) as exc:
        return f"{path}: 'pattern' is no regular expression: {exc}"

    for key, kinds in _SHAPES.items():
        if key in schema and not isinstance(schema[key], kinds):
            return f"{path}: {key!r} is {schema[key]!r}"

    types = schema.get("type", ())
    unknown = [name for name in ([types] if isinstance(types, str) else types) if name not in TYPES]
    if unknown:
        return f"{path}: 'type' is {unknown[0]!r}, which is none of {', '.join(sorted(TYPES))}"

    if not schema.get("$ref", "#").startswith("#"):
        return f"{path}: '$ref' is {schema['$ref']!r}: nothing is fetched; put that part under '$defs'"

    parts = {f"properties.{name}": part for name, part in schema.get("properties", {}).items()}
    parts.update({f"{key}[{i}]": part for key in _LISTS for i, part in enumerate(schema.get(key, ()))})
    parts.update({key: schema[key] for key in ("items", "additionalProperties") if key in schema})
    return next(
        filter(None, (_unusable(part, f"{path}.{name}", depth + 1) for name, part in parts.items())),
        None,
    )


def check_value(schema: Any, value: Any) -> str | None:
    """Return the first thing that is wrong with ``value``, naming its place, or ``None`` when it fits ``schema``."""
    errors = check(value, schema).errors
    return errors[0] if errors else None
