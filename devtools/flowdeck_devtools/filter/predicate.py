"""A filter as a test on journal lines, and on mappings of fields such as a run's.

A line is tested in the order of cost: bytes that must occur (no decoding), then what its head says (1 µs), then its
whole content. Most lines of a busy journal never get past the first.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from fnmatch import translate
from typing import Any

from flowdeck_devtools.core.text import names_id
from flowdeck_devtools.core.wire import Event, Head, decode, head, level_rank
from flowdeck_devtools.filter.fields import COSTS, NUMERIC, TOKENS, level, moment, number
from flowdeck_devtools.filter.grammar import All, Compare, Match, Node, Not, Regex, Word, parse
from flowdeck_devtools.filter.grammar import Any as Either
from flowdeck_devtools.filter.regex import portable

__all__ = ["LinePredicate", "compile_fields", "compile_line", "escaped", "event_field"]

HeadTest = Callable[[Head], bool]
EventTest = Callable[[Event], bool]
Getter = Callable[[str], Any]
Clock = Callable[[], int]


def _now_us() -> int:
    return time.time_ns() // 1000


class LinePredicate:
    """Whether a journal line passes a filter. Call it with the line's bytes."""

    def __init__(self, text: str, tree: All, now_us: Clock = _now_us) -> None:
        self.text = text
        self._now_us = now_us
        self._needles: list[bytes] = []
        self._heads: list[HeadTest] = []
        self._events: list[EventTest] = []
        for node in tree.nodes:
            self._add(node)

    @property
    def is_empty(self) -> bool:
        """Everything passes."""
        return not (self._needles or self._heads or self._events)

    def __call__(self, line: bytes) -> bool:
        if self._needles:
            low = line.lower()  # one copy, and only when some needle needs it
            for needle in self._needles:
                if needle not in low:
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
        if isinstance(node, All):
            for inner in node.nodes:
                self._add(inner)
            return
        self._needles.extend(_implied(node))
        if _fields_of(node) <= _HEAD_FIELDS:
            self._heads.append(_on_head(node, self._now_us))
        else:
            self._events.append(_on_event(node, self._now_us))


def compile_line(text: str, now_us: Clock = _now_us) -> LinePredicate:
    """The test for journal lines.

    Raises:
        FilterError: the text is not a filter.
    """
    return LinePredicate(text, parse(text), now_us)


def compile_fields(text: str, now_us: Clock = _now_us) -> Callable[[Mapping[str, Any]], bool]:
    """The test for a mapping of fields; a bare word must occur in some value that is text.

    Raises:
        FilterError: the text is not a filter.
    """
    tree = parse(text)

    def passes(fields: Mapping[str, Any]) -> bool:
        return _holds(tree, fields.get, lambda: ((v for v in fields.values() if isinstance(v, str)), ()), now_us)

    return passes


def escaped(text: str) -> str:
    """How a text stands within a JSON document."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _implied(node: Node) -> list[bytes]:
    """Bytes a line must hold for the node to be able to hold; ``bytes.lower`` knows ASCII letters only."""
    if isinstance(node, Word):
        return [escaped(node.text).encode("utf-8", "replace").lower()] if node.text.isascii() else []
    if isinstance(node, Match) and len(node.patterns) == 1 and node.field in _LITERAL:
        pattern = node.patterns[0]
        if pattern.isascii() and pattern.isprintable() and not set(pattern) & set('*?["\\'):
            return [pattern.encode().lower()]
    return []


_HEAD_FIELDS = frozenset({"kind", "level", "run", "execution", "node", "attempt", "dur", "seq", "ts"})
_LITERAL = frozenset({"kind", "run", "execution", "node", "source", "task", "tenant", "user", "session"})


def _fields_of(node: Node) -> set[str]:
    match node:
        case Match(field, _) | Compare(field, _, _):
            return {field}
        case Regex(field, _):
            return {field or "*"}
        case Not(inner):
            return _fields_of(inner)
        case All(nodes) | Either(nodes):
            return set().union(*(_fields_of(inner) for inner in nodes))
        case _:
            return {"*"}


def _on_head(node: Node, now_us: Clock) -> HeadTest:
    return lambda one: _holds(node, lambda field: _head_field(one, field), _no_texts, now_us)


def _on_event(node: Node, now_us: Clock) -> EventTest:
    return lambda event: _holds(node, lambda field: event_field(event, field), lambda: _texts(event), now_us)


Texts = tuple[Iterable[str], Iterable[str]]
"""Texts as they are, and JSON documents."""


def _no_texts() -> Texts:
    return (), ()


def _texts(event: Event) -> Texts:
    """Where a bare word is looked for: what the event says and whom it belongs to, but not the names of its keys."""
    run, error = event.run, event.error or {}
    found: list[Any] = [event.event_type, event.source, event.level, event.message, event.meta.get("scope")]
    if run is not None:
        found += [run.run_id, run.root_run_id, run.parent_run_id, run.execution_id, run.agent_name, run.session_id]
        found += [run.meta.get(key) for key in ("flow_name", "chunk_name", "task_id", "tenant_id", "user_id")]
    found += [error.get(key) for key in (*_ERROR_KEYS, "traceback")]
    payload = bytes(event.raw_payload).decode("utf-8", "replace")
    return (text for text in found if isinstance(text, str)), () if payload == "null" else (payload,)


_ERROR_KEYS = ("type", "message", "module", "code")


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
        case "ts":
            return one.time_us
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


def event_field(event: Event, field: str) -> Any:
    """The value of a field; a tuple where any of several counts, ``None`` where there is none."""
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
            found = tuple(v for v in map((event.error or {}).get, _ERROR_KEYS) if isinstance(v, str))
            return found or None
        case "node":
            return event.meta.get("scope")
        case "attempt" | "seq":
            return event.meta.get(field) or None  # 0 is "not given"
        case "dur":
            us = event.meta.get("duration_us")
            return us / 1e6 if isinstance(us, int | float) else None
        case "flow":
            return (run.meta.get("flow_name") if run else None) or event.payload_map().get("flow_name")
        case "status":
            return event.payload_map().get("status")
        case "actor":
            return event.payload_map().get("actor")
        case "ts":
            return event.time_us
        case "tok" | "cost":
            payload = event.payload_map()
            places = TOKENS if field == "tok" else COSTS
            return next((one for place in places if _is_number(one := _at(payload, [*place]))), None)
        case "tag":
            lists = (event.payload_map().get("tags"), run.meta.get("tags") if run is not None else None)
            return tuple(tag for tags in lists if isinstance(tags, list) for tag in tags if isinstance(tag, str))
    if field.startswith("data."):
        return _at(event.payload, field[5:].split("."))
    if field.startswith("attr."):
        path = field[5:].split(".")
        return (_at(event.meta, path), _at(run.meta, path) if run is not None else None)
    if run is None:
        return None
    match field:
        case "run":
            return (run.run_id, run.root_run_id)
        case "span":
            return run.run_id
        case "execution":
            return run.execution_id
        case "task" | "tenant" | "user":
            return run.meta.get(f"{field}_id")
        case "step":
            if run.run_kind == "workflow_execution":
                return None  # a sub flow inherits the meta of the step that started it
            return run.meta.get("chunk_name") or run.meta.get("action_name")
        case "agent":
            return run.agent_name
        case "session":
            return run.session_id
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


def _holds(node: Node, get: Getter, texts: Callable[[], Texts], now_us: Clock) -> bool:
    match node:
        case Word(text):
            plain, documents = texts()
            low, inside = text.lower(), escaped(text).lower()
            return any(low in one.lower() for one in plain) or any(inside in one.lower() for one in documents)
        case Regex("", pattern):
            search = portable(pattern).search
            return any(search(one) is not None for group in texts() for one in group)
        case Not(inner):
            return not _holds(inner, get, texts, now_us)
        case All(nodes):
            return all(_holds(inner, get, texts, now_us) for inner in nodes)
        case Either(nodes):
            return any(_holds(inner, get, texts, now_us) for inner in nodes)

    found = get(node.field)
    for one in found if isinstance(found, tuple) else (found,):
        if one is None:
            continue
        if isinstance(node, Regex):
            held = not _is_number(one) and portable(node.pattern).search(_as_text(one)) is not None
        elif isinstance(node, Match):
            held = _matches(node.field, node.patterns, one)
        else:
            held = _compares(node, one, now_us)
        if held:
            return True
    return False


def _is_number(found: Any) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


def _as_text(found: Any) -> str:
    """A value as the text patterns are laid on. What has parts is there, but has no text of its own."""
    if isinstance(found, str):
        return found
    return str(found).lower() if isinstance(found, bool) else ""


def _float(found: float) -> float:
    try:
        return float(found)
    except OverflowError:
        return math.inf if found > 0 else -math.inf


def _matches(field: str, patterns: tuple[str, ...], found: Any) -> bool:
    if _is_number(found):
        return any(_equals(field, pattern, found) for pattern in patterns)
    text = _as_text(found).lower()
    if field == "level":
        return any(level(pattern) == level_rank(text) for pattern in patterns)
    if field in NUMERIC:
        return False
    # An id is named by its end, as it is shown; every other field as a whole, or with stars.
    if field in ("run", "execution", "span"):
        return any(_like(pattern, text) or names_id(pattern, text) for pattern in patterns)
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


def _equals(field: str, pattern: str, found: float) -> bool:
    try:
        return number(field, pattern) == _float(found)
    except ValueError:
        return not pattern.strip("*")


def _compares(node: Compare, found: Any, now_us: Clock) -> bool:
    field, op, value = node.field, node.op, node.value
    if field == "level":
        return _ordered(op, level_rank(str(found)), level(value) or 0)
    if _is_number(found):
        if field == "ts":
            return _ordered(op, found, moment(value, now_us()))
        try:
            return _ordered(op, _float(found), number(field, value))
        except ValueError:
            return False
    return op == "=" and field not in NUMERIC and _as_text(found).lower() == value.lower()


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
    return left == right
