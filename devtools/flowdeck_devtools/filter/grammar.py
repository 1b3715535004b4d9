"""The filter language, read into a tree. The tree is what everything else is compiled from.

::

    expr  := term*                    all must hold
    term  := [-] ( field:pattern | field op value | "phrase" | word )
    pattern := a,b,c                  any of; * stands for anything
    op    := > >= < <= = !=

``level>=warn kind:chunk.* -kind:chunk.completed requests``. This is the first form of the language in
reference/tui.md §2.3; alternatives, groups and regular expressions are further nodes of the same tree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FIELDS", "All", "Compare", "FilterError", "Match", "Node", "Not", "Word", "parse"]

FIELDS: dict[str, str] = {
    "kind": "event type, or kind of run",
    "level": "DEBUG INFO WARNING ERROR CRITICAL, ordered",
    "run": "run id",
    "flow": "flow name",
    "execution": "execution id",
    "node": "scope: where in the flow",
    "status": "running waiting completed failed cancelled lost",
    "source": "who emitted it",
    "message": "the message",
    "error": "type or text of the error",
    "attempt": "attempt number",
    "dur": "duration: 200ms 1.5s 3m",
    "seq": "order within the execution",
    "task": "task id",
    "tenant": "tenant id",
    "user": "user id",
    "events": "number of events of a run",
    "errors": "number of errors of a run",
}
"""Every field and what it means, for help and completion."""

_ALIASES = {"type": "kind", "lvl": "level", "scope": "node", "id": "run", "duration": "dur", "name": "flow"}
NUMERIC = frozenset({"attempt", "dur", "seq", "events", "errors"})
_OPS = (">=", "<=", "!=", ">", "<", "=")
_FIELD = re.compile(r"[A-Za-z_][\w.]*")


class FilterError(ValueError):
    """The text is not a filter. ``column`` counts characters from 0."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(message)
        self.column = column


@dataclass(frozen=True, slots=True)
class Word:
    """Text that must occur anywhere, whatever its case."""

    text: str


@dataclass(frozen=True, slots=True)
class Match:
    """A field that must be like one of the patterns."""

    field: str
    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """A field compared with a value; levels and durations have an order of their own."""

    field: str
    op: str
    value: str


@dataclass(frozen=True, slots=True)
class Not:
    """What must not hold."""

    node: Node


@dataclass(frozen=True, slots=True)
class All:
    """Everything that must hold; nothing at all holds always."""

    nodes: tuple[Node, ...]


Node = Word | Match | Compare | Not | All


def parse(text: str) -> All:
    """The tree of a filter.

    Raises:
        FilterError: the text is not a filter; says what and at which column.
    """
    nodes: list[Node] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        node, at = _term(text, at)
        nodes.append(node)
    return All(tuple(nodes))


def _term(text: str, at: int) -> tuple[Node, int]:
    if text[at] == "-" and at + 1 < len(text) and not text[at + 1].isspace():
        node, end = _term(text, at + 1)
        return Not(node), end
    if text[at] == '"':
        phrase, end = _quoted(text, at)
        return Word(phrase), end

    name = _FIELD.match(text, at)
    if name is not None:
        end = name.end()
        if text[end : end + 1] == ":":
            return _match(text, _field(name[0], at), end + 1)
        for op in _OPS:
            if text.startswith(op, end):
                return _compare(text, _field(name[0], at), op, end + len(op))

    end = at
    while end < len(text) and not text[end].isspace():
        end += 1
    return Word(text[at:end]), end


def _field(name: str, column: int) -> str:
    field = _ALIASES.get(name.lower(), name.lower())
    if field in FIELDS:
        return field
    head, dot, path = name.partition(".")
    if head.lower() in ("data", "payload") and dot and path:
        return f"data.{path}"
    raise FilterError(f"no field {name!r}; fields: {', '.join(FIELDS)}, data.<path>", column)


def _match(text: str, field: str, at: int) -> tuple[Node, int]:
    patterns: list[str] = []
    while True:
        pattern, at = _value(text, at, stop=",")
        patterns.append(pattern)
        if text[at : at + 1] != ",":
            break
        at += 1
    if field in NUMERIC:
        for pattern in patterns:
            number(field, pattern, at)
    return Match(field, tuple(patterns)), at


def _compare(text: str, field: str, op: str, at: int) -> tuple[Node, int]:
    start = at
    value, at = _value(text, at)
    if field == "level":
        if level(value) is None:
            raise FilterError(f"no level {value!r}; levels: debug info warning error critical", start)
    elif field in NUMERIC or op not in ("=", "!="):
        number(field, value, start)
    return Compare(field, op, value), at


def _value(text: str, at: int, stop: str = "") -> tuple[str, int]:
    if text[at : at + 1] == '"':
        return _quoted(text, at)
    end = at
    while end < len(text) and not text[end].isspace() and text[end] not in stop:
        end += 1
    if end == at:
        raise FilterError("a value is missing here", at)
    return text[at:end], end


def _quoted(text: str, at: int) -> tuple[str, int]:
    end = text.find('"', at + 1)
    if end < 0:
        raise FilterError('the closing " is missing', at)
    if end == at + 1:
        raise FilterError("nothing between the quotes", at)
    return text[at + 1 : end], end + 1


_LEVELS = ("debug", "info", "warning", "error", "critical")


def level(text: str) -> int | None:
    """Rank of a level given by its name or the beginning of it (``warn``, ``err``)."""
    low = text.lower()
    return next((rank for rank, name in enumerate(_LEVELS) if low and name.startswith(low)), None)


_NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)(us|µs|ms|s|m|h)?", re.IGNORECASE)
_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def number(field: str, text: str, column: int = 0) -> float:
    """A number; for ``dur`` seconds, with or without a unit.

    Raises:
        FilterError: it is none.
    """
    found = _NUMBER.fullmatch(text)
    if found is None or (found[2] and field != "dur" and not field.startswith("data.")):
        raise FilterError(f"{field} wants a number, not {text!r}", column)
    return float(found[1]) * _UNITS.get((found[2] or "s").lower(), 1.0)


def describe(nodes: Sequence[Node]) -> str:
    """The tree in words of the language again, for tests and messages."""
    return " ".join(_text(node) for node in nodes)


def _text(node: Node) -> str:
    match node:
        case Word(text):
            return f'"{text}"'
        case Match(field, patterns):
            return f"{field}:{','.join(patterns)}"
        case Compare(field, op, value):
            return f"{field}{op}{value}"
        case Not(inner):
            return f"-{_text(inner)}"
        case All(inner_nodes):
            return describe(inner_nodes)
