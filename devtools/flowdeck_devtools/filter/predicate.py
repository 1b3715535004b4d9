"""A filter as a test on journal lines, and on mappings of fields such as a run's.

A line is tested in the order of cost: bytes that must occur (no decoding), then what its head says (1 µs), then its
whole content. Most lines of a busy journal never get past the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import translate
from typing import Any

from flowdeck_devtools.core.wire import Event, Head, decode, head, level_rank
from flowdeck_devtools.filter.grammar import All, Compare, Match, Node, Not, Word, level, number, parse

__all__ = ["LinePredicate", "compile_fields", "compile_line"]

HeadTest = Callable[[Head], bool]
EventTest = Callable[[Event], bool]
Getter = Callable[[str], Any]


class LinePredicate:
    """Whether a journal line passes a filter. Call it with the line's bytes."""

    def __init__(self, text: str, tree: All) -> None:
        self.text = text
        self._needles: list[bytes] = []
        self._absent: list[bytes] = []
        self._heads: list[HeadTest] = []
        self._events: list[EventTest] = []
        for node in tree.nodes:
            self._add(node)
        # One copy of the line in lower case is only made when some needle needs it.
        self._plain = not (self._needles or self._absent)

    @property
    def is_empty(self) -> bool:
        """Everything passes."""
        return self._plain and not self._heads and not self._events

    def __call__(self, line: bytes) -> bool:
        if not self._plain:
            low = line.lower()
            for needle in self._needles:
                if needle not in low:
                    return False
            for needle in self._absent:
                if needle in low:
                    return False
        if self._heads:
            one = head(line)
            for test in self._heads:
                if not test(one):
                    return False
        if self._events:
            event = decode(line)
            for check in self._events:
                if not check(event):
                    return False
        return True

    def _add(self, node: Node) -> None:
        match node:
            case Word(text):
                self._needles.append(_needle(text))
            case Not(Word(text)):
                self._absent.append(_needle(text))
            case All(nodes):
                for inner in nodes:
                    self._add(inner)
            case _:
                self._needles.extend(_implied(node))
                if _fields_of(node) <= _HEAD_FIELDS:
                    self._heads.append(_on_head(node))
                else:
                    self._events.append(_on_event(node))


def compile_line(text: str) -> LinePredicate:
    """The test for journal lines.

    Raises:
        FilterError: the text is not a filter.
    """
    return LinePredicate(text, parse(text))


def compile_fields(text: str) -> Callable[[Mapping[str, Any]], bool]:
    """The test for a mapping of fields; a bare word must occur in some value.

    Raises:
        FilterError: the text is not a filter.
    """
    tree = parse(text)

    def passes(fields: Mapping[str, Any]) -> bool:
        return _holds(tree, fields.get, lambda word: any(word in str(value).lower() for value in fields.values()))

    return passes


def _needle(text: str) -> bytes:
    # Within a JSON line quotes and backslashes are escaped; bytes.lower() leaves non-ASCII letters as they are.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return escaped.encode().lower()


def _implied(node: Node) -> list[bytes]:
    """Bytes a line must hold for the node to be able to hold: only for a single literal pattern."""
    if isinstance(node, Match) and len(node.patterns) == 1 and node.field in _LITERAL:
        pattern = node.patterns[0]
        if pattern.isascii() and pattern.isprintable() and not set(pattern) & set('*?["\\'):
            return [_needle(pattern)]
    return []


_HEAD_FIELDS = frozenset({"kind", "level", "run", "execution", "node", "attempt", "dur", "seq"})
_LITERAL = frozenset({"kind", "run", "execution", "node", "source", "error", "task", "tenant", "user"})


def _fields_of(node: Node) -> set[str]:
    match node:
        case Match(field, _) | Compare(field, _, _):
            return {field}
        case Not(inner):
            return _fields_of(inner)
        case All(nodes):
            return set().union(*(_fields_of(inner) for inner in nodes))
        case _:
            return {"*"}


def _on_head(node: Node) -> HeadTest:
    return lambda one: _holds(node, lambda field: _head_field(one, field), _no_words)


def _on_event(node: Node) -> EventTest:
    return lambda event: _holds(node, lambda field: _event_field(event, field), _no_words)


def _no_words(word: str) -> bool:
    return False


def _head_field(one: Head, field: str) -> Any:
    run, meta = one.run, one.meta
    match field:
        case "kind":
            return one.event_type
        case "level":
            return one.level
        case "run":
            return (run.run_id, run.root_run_id) if run else None
        case "execution":
            return run.execution_id if run else None
    if meta is None:
        return None
    match field:
        case "node":
            return meta.scope
        case "attempt":
            return meta.attempt or None
        case "seq":
            return meta.seq or None
        case "dur":
            return meta.duration_us / 1e6 if meta.duration_us is not None else None
    return None


def _event_field(event: Event, field: str) -> Any:
    run = event.run
    match field:
        case "kind":
            return event.event_type
        case "level":
            return event.level
        case "source":
            return event.source
        case "message":
            return event.message
        case "error":
            return tuple(str(value) for value in (event.error or {}).values() if isinstance(value, str)) or None
        case "node":
            return event.meta.get("scope")
        case "attempt" | "seq":
            return event.meta.get(field)
        case "dur":
            us = event.meta.get("duration_us")
            return us / 1e6 if isinstance(us, int | float) else None
        case "flow":
            return (run.meta.get("flow_name") if run else None) or event.payload_map().get("flow_name")
        case "status":
            return event.payload_map().get("status")
    if field.startswith("data."):
        return _at(event.payload, field[5:].split("."))
    if run is None:
        return None
    match field:
        case "run":
            return (run.run_id, run.root_run_id)
        case "execution":
            return run.execution_id
        case "task" | "tenant" | "user":
            return run.meta.get(f"{field}_id")
    return None


def _at(value: Any, path: list[str]) -> Any:
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _holds(node: Node, get: Getter, has_word: Callable[[str], bool]) -> bool:
    match node:
        case Word(text):
            return has_word(text.lower())
        case Not(inner):
            return not _holds(inner, get, has_word)
        case All(nodes):
            return all(_holds(inner, get, has_word) for inner in nodes)
        case Match(field, patterns):
            return _matches(field, patterns, get(field))
        case Compare(field, op, value):
            return _compares(field, op, value, get(field))


def _matches(field: str, patterns: tuple[str, ...], found: Any) -> bool:
    if isinstance(found, tuple):
        return any(_matches(field, patterns, one) for one in found)
    if found is None:
        return False
    if isinstance(found, int | float) and not isinstance(found, bool):
        return any(_is_number(field, pattern, found) for pattern in patterns)
    text = str(found).lower() if not isinstance(found, bool) else ("true" if found else "false")
    if field == "level":
        return any(level(pattern) == level_rank(str(found)) for pattern in patterns)
    # An id is named by its end, as it is shown; every other field as a whole, or with stars.
    if field in ("run", "execution"):
        return any(_like(pattern, text) or text.endswith(pattern.lower().lstrip("…")) for pattern in patterns)
    if field in ("node", "error", "message"):
        return any(pattern.lower() in text or _like(pattern, text) for pattern in patterns)
    return any(_like(pattern, text) for pattern in patterns)


_compiled: dict[str, re.Pattern[str]] = {}


def _like(pattern: str, text: str) -> bool:
    if "*" not in pattern and "?" not in pattern:
        return pattern.lower() == text
    known = _compiled.get(pattern)
    if known is None:
        if len(_compiled) > 500:
            _compiled.clear()
        known = _compiled[pattern] = re.compile(translate(pattern.lower().replace("[", "[[]")))
    return known.match(text) is not None


def _is_number(field: str, pattern: str, found: float) -> bool:
    try:
        return number(field, pattern) == found
    except ValueError:
        return _like(pattern, str(found))


def _compares(field: str, op: str, value: str, found: Any) -> bool:
    if isinstance(found, tuple):
        return any(_compares(field, op, value, one) for one in found)
    if found is None:
        return op == "!="
    if field == "level":
        return _ordered(op, level_rank(str(found)), level(value) or 0)
    if isinstance(found, int | float) and not isinstance(found, bool):
        try:
            return _ordered(op, float(found), number(field, value))
        except ValueError:
            return op == "!="
    same = str(found).lower() == value.lower()
    return same if op == "=" else not same if op == "!=" else False


def _ordered(op: str, left: float, right: float) -> bool:
    match op:
        case ">":
            return left > right
        case ">=":
            return left >= right
        case "<":
            return left < right
        case "<=":
            return left <= right
        case "=":
            return left == right
    return left != right
