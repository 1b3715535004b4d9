"""Shapes of a document: what may stand where, as objects that both check a value and print their JSON Schema.

One table (:mod:`flowdeck_evals.format`) therefore gives the errors of ``evals lint`` and the editor's help. A shape's
:meth:`~Shape.check` returns the value it read (a duration becomes seconds) and reports problems instead of raising, so
one pass names all of them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = [
    "Anything",
    "Choice",
    "Duration",
    "Either",
    "Flag",
    "Items",
    "Named",
    "Number",
    "Record",
    "Regex",
    "Report",
    "Shape",
    "Text",
]

Report = Callable[[Any, Any, str], None]
"""``(container, key, message)``: the container and key lead to the line."""

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)\Z")
_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def kind_of(value: Any) -> str:
    """Return what a person calls the type of a JSON value."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


class Shape:
    """Anything that can check a value and describe itself."""

    def check(self, value: Any, container: Any, key: Any, report: Report) -> Any:
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True)
class Anything(Shape):
    """Any JSON value."""

    about: str = ""

    def check(self, value: Any, container: Any, key: Any, report: Report) -> Any:
        return value

    def schema(self) -> dict[str, Any]:
        return {"description": self.about} if self.about else {}


@dataclass(frozen=True)
class Text(Shape):
    """Text, whole-matched by ``pattern`` if there is one; ``example`` stands in the error."""

    about: str = ""
    pattern: str | None = None
    example: str = ""

    def check(self, value: Any, container: Any, key: Any, report: Report) -> Any:
        if not isinstance(value, str):
            hint = f"; quote it: {key}: '{value}'" if isinstance(value, int | float) else ""
            report(container, key, f"must be text, not {kind_of(value)}{hint}")
        elif not value:
            report(container, key, "must not be empty")
        elif self.pattern and not re.fullmatch(self.pattern, value):
            report(container, key, f"{value!r} must look like {self.example or self.pattern}")

        return value

    def schema(self) -> dict[str, Any]:
        out: dict[str, Any] = {"type": "string", "minLength": 1}
        return out | ({"pattern": f"^(?:{self.pattern})$"} if self.pattern else {}) | _described(self.about)


@dataclass(frozen=True)
class Regex(Text):
    """A regular expression."""

    def check(self, value: Any, container: Any, key: Any, report: Report) -> Any:
        if isinstance(value, str) and value:
            try:
                re.compile(value)
            except re.error as problem:
                report(container, key, f"{value!r} is no regular expression: {problem}")

        return super().check(value, container, key, report)

    def schema(self) -> dict[str, Any]:
        return super().schema() | {"format": "regex"}


@dataclass(frozen=True)
class Flag(Shape):
    about: str = ""

    def check(self, value: Any, container: Any, key: Any, report: Report) -> Any:
        if not isinstance(value, bool):
            report(container, key, f"must be true or false, not {kind_of(value)}")

        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"} | _described(self.about)


@dataclass(frozen=True)
class Number(Shape):
    """A number within bounds; ``percent`` also takes ``5%``."""

    about: str = ""
    least: float | None = None
    most: float | None = None
    whole: bool = False
    percent: bool = False

    def check(self, value: Any, container: Any, key: Any, report: Report) -> Any:
        if self.percent and isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?%", value):
            value = float(value[:-1]) / 100

        wanted = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted):
            report(container, key, f"must be a {'whole ' if self.whole else ''}number, not {kind_of(value)}")
        elif self.least is not None and not value >= self.least:
            report(container, key, f"must be at least {self.least:g}, not {value}")
        elif self.most is not None and not value <= self.most:
            report(container, key, f"must be at most {self.most:g}, not {value}")

        return value

    def schema(self) -> dict[str, Any]:
        out: dict[str, Any] = {"type": "integer" if self.whole else "number"}
        out |= {"minimum": self.least} if self.least is not None else {}
        out |= {"maximum": self.most} if self.most is not None else {}
        if self.percent:
            return {"anyOf": [out, {"type": "string", "pattern": r"^\d+(\.\d+)?%$"}]} | _described(self.about)

        return out | _described(self.about)


@dataclass(frozen=True)
class Duration(Shape):
    """Seconds, written with a unit: ``250ms``, ``20s``, ``5m``, ``1h``."""

    about: str = ""

    def check(self, value: Any, container: Any, key: Any, report: Report) -> Any:
        found = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            report(container, key, f"must be a duration with its unit, such as 250ms, 20s or 5m, not {value!r}")
            return 0.0

        return float(found[1]) * _SECONDS[found[2]]

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^\d+(\.\d+)?(us|ms|s|m|h|d)$"} | _described(self.about)


@dataclass(frozen=True)
class Choice(Shape):
    """One of a few words."""

    words: tuple[Any, ...]
    about: str = ""

    def check(self, value: Any, container: Any, key: Any, report: Report) -> Any:
        if value not in self.words or (isinstance(value, bool) and value not in [w for w in self.words if w is value]):
            nearest = _nearest(value, self.words)
            report(container, key, f"must be {' or '.join(map(str, self.words))}, not {value!r}{nearest}")

        return value

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)} | _described(self.about)


@dataclass(frozen=True)
class Items(Shape):
    """A list; with ``single`` one item may stand for a list of one."""

    item: Shape
    about: str = ""
    single: bool = False
    least: int = 0

    def check(self, value: Any, container: Any, key: Any, report: Report) -> Any:
        if self.single and not isinstance(value, list):
            return [self.item.check(value, container, key, report)]

        if not isinstance(value, list):
            report(container, key, f"must be a list, not {kind_of(value)}")
            return []

        if len(value) < self.least:
            report(container, key, "must not be empty")

        return [self.item.check(item, value, index, report) for index, item in enumerate(value)]

    def schema(self) -> dict[str, Any]:
        out: dict[str, Any] = {"type": "array", "items": self.item.schema()}
        out |= {"minItems": self.least} if self.least else {}
        return ({"anyOf": [out, self.item.schema()]} if self.single else out) | _described(self.about)


@dataclass(frozen=True)
class Named(Shape):
    """A mapping with keys of the author's own."""

    item: Shape
    about: str = ""

    def check(self, value: Any, container: Any, key: Any, report: Report) -> Any:
        if not isinstance(value, dict):
            report(container, key, f"must be a mapping, not {kind_of(value)}")
            return {}

        return {name: self.item.check(part, value, name, report) for name, part in value.items()}

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.item.schema()} | _described(self.about)


@dataclass(frozen=True)
class Record(Shape):
    """A mapping with known keys. ``one_of``: exactly one of these must be there."""

    fields: Mapping[str, Shape]
    required: Sequence[str] = ()
    about: str = ""
    one_of: Sequence[str] = ()
    any_of: Sequence[str] = ()

    def check(self, value: Any, container: Any, key: Any, report: Report) -> Any:
        if not isinstance(value, dict):
            report(container, key, f"must be a mapping with {_some(self.fields)}, not {kind_of(value)}")
            return {}

        out: dict[str, Any] = {}
        for name, part in value.items():
            shape = self.fields.get(name)
            if shape is None:
                report(
                    value,
                    name,
                    f"unknown key {name!r}{_nearest(name, self.fields) or f'; known: {_some(self.fields)}'}",
                )
            else:
                out[name] = shape.check(part, value, name, report)

        for name in self.required:
            if name not in value:
                report(container if key is not None else value, key, f"{name!r} is missing")

        for names, most in ((self.one_of, 1), (self.any_of, len(self.any_of))):
            given = [name for name in names if name in value]
            if names and not 1 <= len(given) <= most:
                said = f"not {' and '.join(given)}" if given else "none is there"
                what = "exactly one" if most == 1 else "at least one"
                report(container if key is not None else value, key, f"needs {what} of {', '.join(names)}; {said}")

        return out

    def schema(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: shape.schema() for name, shape in self.fields.items()},
        }
        out |= {"required": list(self.required)} if self.required else {}
        out |= {"oneOf": [{"required": [name]} for name in self.one_of]} if self.one_of else {}
        out |= {"anyOf": [{"required": [name]} for name in self.any_of]} if self.any_of else {}
        return out | _described(self.about)


@dataclass(frozen=True)
class Either(Shape):
    """The first shape whose ``when`` holds for the value."""

    options: Sequence[tuple[Callable[[Any], bool], Shape]]
    about: str = ""
    words: str = field(default="another kind of value")

    def check(self, value: Any, container: Any, key: Any, report: Report) -> Any:
        for when, shape in self.options:
            if when(value):
                return shape.check(value, container, key, report)

        report(container, key, f"must be {self.words}, not {kind_of(value)}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [shape.schema() for _, shape in self.options]} | _described(self.about)


def _described(about: str) -> dict[str, Any]:
    return {"description": about} if about else {}


def _nearest(value: Any, words: Any) -> str:
    found = difflib.get_close_matches(str(value), [str(word) for word in words], 1, 0.55)
    return f"; did you mean {found[0]!r}?" if found else ""


def _some(names: Any) -> str:
    known = [str(name) for name in names]
    return ", ".join(known[:12]) + (" …" if len(known) > 12 else "")
