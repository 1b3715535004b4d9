"""Answer forms from JSON Schema: which fields to ask for, and a checked value from what was typed.

Draft 2020-12 as far as people write it by hand or pydantic generates it: ``$ref`` into ``$defs``, ``enum``/``const``,
``anyOf`` with null, objects of scalars. Whatever is beyond that becomes a field of JSON text, so every schema can be
answered. No schema at all is one such field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["FieldSpec", "FormSpec", "collect", "form_of"]

Kind = Literal["choice", "bool", "integer", "number", "text", "longtext", "json"]
_MISSING: Any = object()
MAX_FIELDS = 40
MAX_TEXT = 200_000


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One thing to ask for. ``name`` is empty when the answer is this one value and not an object."""

    name: str
    kind: Kind
    title: str = ""
    description: str = ""
    required: bool = True
    nullable: bool = False
    choices: tuple[Any, ...] = ()
    default: Any = None
    has_default: bool = False
    rules: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.title or self.name or "answer"

    @property
    def hint(self) -> str:
        """The rules in a few words: ``integer 0-100``, ``text, at most 80 characters``."""
        rules = self.rules
        if self.kind in ("integer", "number"):
            low, high = rules.get("minimum"), rules.get("maximum")
            bounds = f" {low} to {high}" if low is not None and high is not None else ""
            if not bounds:
                bounds = f" ≥ {low}" if low is not None else f" ≤ {high}" if high is not None else ""
            return self.kind + bounds
        if self.kind == "json":
            return "JSON"
        if "maxLength" in rules:
            return f"at most {rules['maxLength']} characters"
        return "" if self.required else "optional"


@dataclass(frozen=True, slots=True)
class FormSpec:
    """What to ask for. ``extra`` are constant members the schema fixes."""

    fields: tuple[FieldSpec, ...]
    is_object: bool
    extra: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    description: str = ""


def form_of(schema: object) -> FormSpec:
    """The form for a schema; any other thing than a usable schema gives one field of JSON text."""
    if not isinstance(schema, dict):
        return FormSpec((FieldSpec("", "json"),), is_object=False)

    resolved, _ = _resolve(schema, schema)
    properties = resolved.get("properties")
    title, description = _str(resolved.get("title")), _str(resolved.get("description"))
    if isinstance(properties, dict) and properties and len(properties) <= MAX_FIELDS:
        listed = resolved.get("required")
        required = {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()
        fields, extra = [], {}
        for name, part in properties.items():
            part = part if isinstance(part, dict) else {}
            if "const" in part:
                extra[str(name)] = part["const"]
                continue
            fields.append(_field(str(name), part, schema, name in required))
        return FormSpec(tuple(fields), True, extra, title, description)

    return FormSpec((_field("", resolved, schema, True),), False, {}, title, description)


def _resolve(part: Mapping[str, Any], whole: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Follow references and a lone ``anyOf``/``allOf``; also say whether null is allowed."""
    merged, nullable = dict(part), False
    for _ in range(16):  # references may form a circle
        ref = merged.pop("$ref", None)
        if isinstance(ref, str) and ref.startswith("#/"):
            merged = {**_at(whole, ref[2:].split("/")), **merged}
            continue

        options = merged.get("anyOf") or merged.get("oneOf") or merged.get("allOf")
        if isinstance(options, list):
            real = [one for one in options if isinstance(one, dict) and one.get("type") != "null"]
            if len(real) == 1:
                nullable = nullable or len(real) < len(options)
                for key in ("anyOf", "oneOf", "allOf"):
                    merged.pop(key, None)
                merged = {**real[0], **merged}
                continue
        break

    kind = merged.get("type")
    if isinstance(kind, list):
        nullable = nullable or "null" in kind
        rest = [one for one in kind if one != "null"]
        merged["type"] = rest[0] if len(rest) == 1 else None
    return merged, nullable


def _at(whole: Mapping[str, Any], path: list[str]) -> dict[str, Any]:
    found: Any = whole
    for step in path:
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


_RULES = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "pattern")


def _field(name: str, part: Mapping[str, Any], whole: Mapping[str, Any], required: bool) -> FieldSpec:
    resolved, nullable = _resolve(part, whole)
    choices = resolved.get("enum")
    kind: Kind = "json"
    if isinstance(choices, list) and choices and len(choices) <= 50:
        kind = "choice"
        nullable = nullable or None in choices
        choices = [choice for choice in choices if choice is not None]
    else:
        choices = []
        declared = resolved.get("type")
        if declared == "boolean":
            kind = "bool"
        elif declared in ("integer", "number"):
            kind = declared
        elif declared == "string":
            long = resolved.get("format") in ("text", "markdown") or resolved.get("contentMediaType") is not None
            kind = "longtext" if long else "text"

    rules = {key: resolved[key] for key in _RULES if key in resolved}
    if kind == "json" and isinstance(resolved.get("type"), str):
        rules["type"] = resolved["type"]
    return FieldSpec(
        name,
        kind,
        _str(resolved.get("title")),
        _str(resolved.get("description")),
        required,
        nullable,
        tuple(choices),
        resolved.get("default"),
        "default" in resolved,
        rules,
    )


def _str(value: object) -> str:
    return value if isinstance(value, str) else ""


def collect(form: FormSpec, given: Mapping[str, Any]) -> tuple[Any, dict[str, str]]:
    """The answer made of what was typed, and what is wrong with it by field name.

    ``given`` holds, by field name: the chosen value (choice; absent when none), a bool, or text. The value means
    something only when there are no errors.
    """
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for spec in form.fields:
        try:
            value = _value(spec, given.get(spec.name, _MISSING))
        except ValueError as error:
            errors[spec.name] = str(error)
            continue
        if value is not _MISSING:
            values[spec.name] = value

    if form.is_object:
        return {**form.extra, **values}, errors
    return values.get(""), errors


def _value(spec: FieldSpec, typed: Any) -> Any:
    if spec.kind == "bool":
        return bool(typed) if typed is not _MISSING else False
    if spec.kind == "choice":
        if typed is _MISSING or typed is None:
            return _absent(spec, "choose one")
        return typed

    text = "" if typed is _MISSING else str(typed)
    if len(text) > MAX_TEXT:
        raise ValueError(f"at most {MAX_TEXT:,} characters")
    if spec.kind in ("text", "longtext"):
        return _text(spec, text)
    if not text.strip():
        return _absent(spec, "needs a value")
    if spec.kind == "json":
        return _json(spec, text)
    return _number(spec, text.strip())


def _absent(spec: FieldSpec, complaint: str) -> Any:
    if spec.required and not spec.nullable:
        raise ValueError(complaint)
    return None if spec.required else _MISSING


def _text(spec: FieldSpec, text: str) -> Any:
    rules = spec.rules
    if not text and (not spec.required or spec.nullable):
        return _MISSING if not spec.required else None
    if not text and rules.get("minLength", 0):
        raise ValueError("needs a value")
    if len(text) < rules.get("minLength", 0):
        raise ValueError(f"at least {rules['minLength']} characters")
    if len(text) > rules.get("maxLength", MAX_TEXT):
        raise ValueError(f"at most {rules['maxLength']} characters")

    pattern = rules.get("pattern")
    if isinstance(pattern, str):
        try:
            matches = re.search(pattern, text[:1_000]) is not None
        except re.error:  # not a Python pattern: the owner of the flow judges it
            matches = True
        if not matches:
            raise ValueError(f"must match {pattern}")
    return text


def _number(spec: FieldSpec, text: str) -> int | float:
    try:
        value: int | float = int(text) if spec.kind == "integer" else float(text)
    except ValueError:
        raise ValueError("must be a whole number" if spec.kind == "integer" else "must be a number") from None

    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("must be a number")
        if value.is_integer() and "." not in text and "e" not in text.lower():
            value = int(text)
    rules = spec.rules
    if "minimum" in rules and value < rules["minimum"]:
        raise ValueError(f"must be at least {rules['minimum']}")
    if "maximum" in rules and value > rules["maximum"]:
        raise ValueError(f"must be at most {rules['maximum']}")
    if "exclusiveMinimum" in rules and value <= rules["exclusiveMinimum"]:
        raise ValueError(f"must be more than {rules['exclusiveMinimum']}")
    if "exclusiveMaximum" in rules and value >= rules["exclusiveMaximum"]:
        raise ValueError(f"must be less than {rules['exclusiveMaximum']}")
    return value


_JSON_TYPES: dict[str, tuple[type, ...]] = {"object": (dict,), "array": (list,), "null": (type(None),)}


def _json(spec: FieldSpec, text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (json.JSONDecodeError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError):
            raise ValueError(f"not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
        raise ValueError("nested too deeply") from None

    wanted = _JSON_TYPES.get(str(spec.rules.get("type")))
    if wanted and not isinstance(value, wanted) and not (value is None and spec.nullable):
        raise ValueError(f"must be a JSON {spec.rules['type']}")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
