"""Checks a value against a JSON Schema: the part of the 2020-12 vocabulary that forms and models use.

:func:`check` returns what is wrong with the value and, apart from it, which keywords of the schema it could not check.
Nothing is skipped silently: a keyword outside the list below, a reference that leads nowhere or a pattern that is no
regular expression is named in ``unchecked``, and everything else still counts.

Checked::

    type enum const, anyOf oneOf allOf not if/then/else, $ref inside the document
    properties required additionalProperties patternProperties propertyNames minProperties maxProperties
    dependentRequired, items prefixItems minItems maxItems uniqueItems contains
    minimum maximum exclusiveMinimum exclusiveMaximum multipleOf, minLength maxLength pattern

Annotations (``title``, ``default``, ``format`` ...) assert nothing by the standard.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

__all__ = ["TYPES", "Checked", "check", "same_json"]

MAX_DEPTH: Final = 64
"""Nesting of value and references at which checking stops: a schema may refer to itself."""

TYPES: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
"""What a value may be by ``type``."""
_ANNOTATIONS: Final = frozenset(
    {
        *("$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "title", "description", "default"),
        *("examples", "example", "deprecated", "readOnly", "writeOnly", "format", "contentEncoding", "discriminator"),
        *("contentMediaType", "contentSchema", "then", "else", "minContains", "maxContains"),
    }
)


class Checked(NamedTuple):
    """The outcome of :func:`check`."""

    errors: list[str]
    """What is wrong, each with its place: ``answer.amount: 7 is more than the maximum 5``."""
    unchecked: list[str]
    """Keywords of the schema that were not checked."""


def check(value: Any, schema: Any, name: str = "answer") -> Checked:
    """Check ``value``, which is JSON, against ``schema``. ``name`` stands for the value in messages. Never raises."""
    checker = _Checker(schema)
    errors = list(checker.errors(value, schema, name, 0))
    return Checked(errors, sorted(checker.unchecked))


class _Checker:
    def __init__(self, root: Any) -> None:
        self.root = root
        self.unchecked: set[str] = set()

    def errors(self, value: Any, schema: Any, path: str, depth: int) -> Iterator[str]:
        if schema is True:
            return

        if schema is False:
            yield f"{path}: not allowed here"
            return

        if not isinstance(schema, dict):
            self.unchecked.add(f"a schema that is a {type(schema).__name__}")
            return

        if depth > MAX_DEPTH:
            yield f"{path}: nested deeper than {MAX_DEPTH}"
            return

        for keyword, wanted in schema.items():
            rule = _RULES.get(keyword)
            if rule is not None:
                try:
                    yield from rule(self, value, wanted, schema, path, depth + 1)
                except (TypeError, ValueError, AttributeError, re.error):
                    # The schema is wrong there, not the value: nobody could answer if that counted as an error.
                    self.unchecked.add(f"{keyword} ({wanted!r} is not valid)")
            elif keyword not in _ANNOTATIONS:
                self.unchecked.add(keyword)

    def fits(self, value: Any, schema: Any, path: str, depth: int) -> bool:
        return next(self.errors(value, schema, path, depth), None) is None

    def resolve(self, reference: str) -> Any:
        """Return the part of the document that ``#/a/b`` names.

        Raises:
            ValueError: it points outside the document or to nothing.
        """
        if not reference.startswith("#"):
            raise ValueError(reference)

        part = self.root
        for key in reference[1:].split("/")[1:]:
            key = key.replace("~1", "/").replace("~0", "~")
            if isinstance(part, list) and key.isdigit() and int(key) < len(part):
                part = part[int(key)]
            elif isinstance(part, dict) and key in part:
                part = part[key]
            else:
                raise ValueError(reference)

        return part


_Rule = Callable[[_Checker, Any, Any, dict[str, Any], str, int], Iterator[str]]
_RULES: dict[str, _Rule] = {}


def _rule(keyword: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        _RULES[keyword] = rule
        return rule

    return register


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list | tuple):
        return "array"
    return "object" if isinstance(value, dict) else type(value).__name__


def _is_type(value: Any, name: str) -> bool:
    found = _type_of(value)
    if name == "integer":
        # By the standard 1.0 is an integer.
        return found == "integer" or (found == "number" and float(value).is_integer())

    return found == name or (name == "number" and found == "integer")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same_json(left: Any, right: Any) -> bool:
    """Tell whether two JSON values are equal by the standard: 1 equals 1.0 and is not true."""
    if _is_number(left) and _is_number(right):
        return bool(left == right)
    if _type_of(left) != _type_of(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same_json, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    return bool(left == right)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# -- any value ---------------------------------------------------------------------------------------------------------


@_rule("type")
def _check_type(c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if not TYPES.issuperset(names):
        raise ValueError(wanted)

    if not any(_is_type(value, name) for name in names):
        yield f"{path}: must be {' or '.join(names)}, not {_type_of(value)}"


@_rule("enum")
def _check_enum(c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    if not any(same_json(value, option) for option in wanted):
        yield f"{path}: {_short(value)} is not one of {', '.join(_short(option) for option in wanted)}"


@_rule("const")
def _check_const(c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    if not same_json(value, wanted):
        yield f"{path}: must be {_short(wanted)}"


@_rule("$ref")
def _check_ref(c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    yield from c.errors(value, c.resolve(wanted), path, depth)


@_rule("allOf")
def _check_all(c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    for part in wanted:
        yield from c.errors(value, part, path, depth)


@_rule("anyOf")
def _check_any(c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    found = [list(c.errors(value, part, path, depth)) for part in wanted]
    if [] not in found:
        # One form is nearly always meant: the one with the fewest complaints says most.
        fewest = min(len(errors) for errors in found)
        nearest = next(errors for errors in found if len(errors) == fewest)
        yield f"{path}: fits none of {len(found)} forms; the nearest: {'; '.join(nearest)}"


@_rule("oneOf")
def _check_one(c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    yield from _check_any(c, value, wanted, schema, path, depth)
    fitting = sum(c.fits(value, part, path, depth) for part in wanted)
    if fitting > 1:
        yield f"{path}: fits {fitting} forms where exactly one may fit"


@_rule("not")
def _check_not(c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    if c.fits(value, wanted, path, depth):
        yield f"{path}: {_short(value)} is ruled out"


@_rule("if")
def _check_if(c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    branch = "then" if c.fits(value, wanted, path, depth) else "else"
    if branch in schema:
        yield from c.errors(value, schema[branch], path, depth)


# -- objects -----------------------------------------------------------------------------------------------------------


@_rule("required")
def _check_required(
    c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int
) -> Iterator[str]:
    if isinstance(value, dict):
        for key in wanted:
            if key not in value:
                yield f"{path}.{key}: is missing"


@_rule("properties")
def _check_properties(
    c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int
) -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in wanted.items():
            if key in value:
                yield from c.errors(value[key], part, f"{path}.{key}", depth)


@_rule("patternProperties")
def _check_patterns(
    c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int
) -> Iterator[str]:
    if isinstance(value, dict):
        for pattern, part in wanted.items():
            for key in value:
                if re.search(pattern, key):
                    yield from c.errors(value[key], part, f"{path}.{key}", depth)


@_rule("additionalProperties")
def _check_additional(
    c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int
) -> Iterator[str]:
    if isinstance(value, dict):
        named = schema.get("properties", {})
        patterns = schema.get("patternProperties", {})
        for key in value:
            if key not in named and not any(re.search(pattern, key) for pattern in patterns):
                yield from c.errors(value[key], wanted, f"{path}.{key}", depth)


@_rule("propertyNames")
def _check_names(c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    if isinstance(value, dict):
        for key in value:
            yield from c.errors(key, wanted, f"{path} key {key!r}", depth)


@_rule("dependentRequired")
def _check_dependent(
    c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int
) -> Iterator[str]:
    if isinstance(value, dict):
        for key, others in wanted.items():
            if key in value:
                yield from (f"{path}.{other}: is missing beside {key}" for other in others if other not in value)


# -- arrays ------------------------------------------------------------------------------------------------------------


@_rule("prefixItems")
def _check_prefix(c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for index, (item, part) in enumerate(zip(value, wanted, strict=False)):
            yield from c.errors(item, part, f"{path}[{index}]", depth)


@_rule("items")
def _check_items(c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for index in range(len(schema.get("prefixItems", ())), len(value)):
            yield from c.errors(value[index], wanted, f"{path}[{index}]", depth)


@_rule("uniqueItems")
def _check_unique(c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    if wanted and isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if any(same_json(item, earlier) for earlier in value[:index]):
                yield f"{path}[{index}]: {_short(item)} is there twice"


@_rule("contains")
def _check_contains(
    c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int
) -> Iterator[str]:
    if isinstance(value, list | tuple):
        count = sum(c.fits(item, wanted, path, depth) for item in value)
        least, most = schema.get("minContains", 1), schema.get("maxContains", math.inf)
        if not least <= count <= most:
            yield f"{path}: {count} items fit what it must contain"


# -- limits ------------------------------------------------------------------------------------------------------------

_LIMITS: Final[dict[str, tuple[str, Callable[[Any, Any], bool], str]]] = {
    "minimum": ("number", lambda found, limit: found < limit, "is less than the minimum"),
    "maximum": ("number", lambda found, limit: found > limit, "is more than the maximum"),
    "exclusiveMinimum": ("number", lambda found, limit: found <= limit, "is not more than"),
    "exclusiveMaximum": ("number", lambda found, limit: found >= limit, "is not less than"),
    "minLength": ("string", lambda found, limit: len(found) < limit, "is shorter than"),
    "maxLength": ("string", lambda found, limit: len(found) > limit, "is longer than"),
    "minItems": ("array", lambda found, limit: len(found) < limit, "has fewer items than"),
    "maxItems": ("array", lambda found, limit: len(found) > limit, "has more items than"),
    "minProperties": ("object", lambda found, limit: len(found) < limit, "has fewer members than"),
    "maxProperties": ("object", lambda found, limit: len(found) > limit, "has more members than"),
    "pattern": ("string", lambda found, pattern: not re.search(pattern, found), "does not match"),
}


def _limit_rule(keyword: str) -> _Rule:
    kind, broken, words = _LIMITS[keyword]

    def rule(c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
        if keyword != "pattern" and not _is_number(wanted):
            raise ValueError(wanted)

        if _is_type(value, kind) and broken(value, wanted):
            yield f"{path}: {_short(value)} {words} {wanted}"

    return rule


_RULES.update((keyword, _limit_rule(keyword)) for keyword in _LIMITS)


@_rule("multipleOf")
def _check_multiple(
    c: _Checker, value: Any, wanted: Any, schema: dict[str, Any], path: str, depth: int
) -> Iterator[str]:
    if not _is_number(wanted) or wanted <= 0:
        raise ValueError(wanted)

    if _is_number(value):
        quotient = value / wanted
        # 0.3 / 0.1 is not exactly 3 in binary.
        if abs(quotient - round(quotient)) > 1e-9:
            yield f"{path}: {_short(value)} is not a multiple of {wanted}"
