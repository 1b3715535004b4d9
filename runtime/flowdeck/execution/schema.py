"""A check of a value against the JSON Schema an interrupt publishes: the part of the standard that forms use.

Understood: ``type``, ``enum``, ``const``, ``required``, ``properties``, ``additionalProperties``, ``items``, bounds,
lengths, ``pattern``, ``anyOf``/``oneOf``/``allOf``, ``$ref`` into ``$defs``. Unknown keywords constrain nothing.
Source: JSON Schema 2020-12.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

from flowdeck.execution.values import copy_value

__all__ = ["check_value", "schema_of"]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list, tuple),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}

_BOUNDS: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
    ("minimum", operator.ge, "at least"),
    ("maximum", operator.le, "at most"),
    ("exclusiveMinimum", operator.gt, "more than"),
    ("exclusiveMaximum", operator.lt, "less than"),
)


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

    parts = {f"properties.{name}": part for name, part in schema.get("properties", {}).items()}
    parts.update({f"{key}[{i}]": part for key in _LISTS for i, part in enumerate(schema.get(key, ()))})
    parts.update({key: schema[key] for key in ("items", "additionalProperties") if key in schema})
    return next(
        filter(None, (_unusable(part, f"{path}.{name}", depth + 1) for name, part in parts.items())),
        None,
    )


def check_value(schema: Any, value: Any) -> str | None:
    """Return what is wrong with ``value``, naming its place, or ``None`` when it fits ``schema``."""
    return _check(schema, value, "answer", schema, 0)


def _check(schema: Any, value: Any, path: str, root: Any, depth: int) -> str | None:
    if schema is True or not isinstance(schema, dict) or depth > 64:
        return f"{path}: nothing is allowed here" if schema is False else None

    if "$ref" in schema:
        return _check(_deref(schema["$ref"], root), value, path, root, depth + 1)

    for check in (_check_type, _check_fixed, _check_bounds):
        problem = check(schema, value, path)
        if problem:
            return problem

    if isinstance(value, dict):
        problem = _check_object(schema, value, path, root, depth)
    elif isinstance(value, list | tuple) and "items" in schema:
        problem = next(
            filter(None, (_check(schema["items"], v, f"{path}[{i}]", root, depth + 1) for i, v in enumerate(value))),
            None,
        )
    else:
        problem = None

    return problem or _check_combined(schema, value, path, root, depth)


def _deref(ref: Any, root: Any) -> Any:
    here = root
    for part in str(ref).removeprefix("#/").split("/"):
        here = here.get(part, True) if isinstance(here, dict) else True

    return here


def _check_type(schema: dict[str, Any], value: Any, path: str) -> str | None:
    wanted = schema.get("type")
    if wanted is None:
        return None

    names = wanted if isinstance(wanted, list) else [wanted]
    for name in names:
        if isinstance(value, _TYPES.get(name, (object,))) and (
            not isinstance(value, bool) or name in ("boolean",) or name not in _TYPES
        ):
            return None

        if name == "integer" and isinstance(value, float) and value.is_integer():
            return None

    return f"{path}: expected {' or '.join(map(str, names))}, got {type(value).__name__}"


def _check_fixed(schema: dict[str, Any], value: Any, path: str) -> str | None:
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if allowed is None or any(value == each and type(value) is type(each) for each in allowed):
        return None

    return f"{path}: expected one of {', '.join(map(repr, allowed))}, got {value!r}"


def _check_bounds(schema: dict[str, Any], value: Any, path: str) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        for key, holds, words in _BOUNDS:
            limit = schema.get(key)
            if isinstance(limit, int | float) and not holds(value, limit):
                return f"{path}: must be {words} {limit}, got {value}"

    for kinds, low, high, unit in (
        ((str,), "minLength", "maxLength", "characters"),
        ((list, tuple), "minItems", "maxItems", "items"),
    ):
        if isinstance(value, kinds):
            if len(value) < schema.get(low, 0):
                return f"{path}: needs at least {schema[low]} {unit}"

            if high in schema and len(value) > schema[high]:
                return f"{path}: may have at most {schema[high]} {unit}"

    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{path}: does not match the pattern {schema['pattern']!r}"

    return None


def _check_object(schema: dict[str, Any], value: dict[Any, Any], path: str, root: Any, depth: int) -> str | None:
    missing = [key for key in schema.get("required", ()) if key not in value]
    if missing:
        return f"{path}: {', '.join(map(repr, missing))} is missing"

    known = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for key, each in value.items():
        if key not in known and others is False:
            return f"{path}: {key!r} is not expected; there are {', '.join(map(repr, known)) or 'none'}"

        problem = _check(known.get(key, others), each, f"{path}.{key}", root, depth + 1)
        if problem:
            return problem

    return None


def _check_combined(schema: dict[str, Any], value: Any, path: str, root: Any, depth: int) -> str | None:
    for each in schema.get("allOf", ()):
        problem = _check(each, value, path, root, depth + 1)
        if problem:
            return problem

    for key in ("anyOf", "oneOf"):
        if key in schema:
            problems = [_check(each, value, path, root, depth + 1) for each in schema[key]]
            fits = problems.count(None)
            if not fits:
                return problems[0] if len(problems) == 1 else f"{path}: fits none of the {len(problems)} alternatives"

            if key == "oneOf" and fits > 1:
                return f"{path}: fits {fits} alternatives, but must fit exactly one"

    return None
