"""A filter as an SQL condition on the views of a store, with the meaning :mod:`predicate` gives it on live lines.

Every leaf is true or false and never NULL, so that ``NOT`` means the same on both sides. Values stand in the condition
as literals: it can be copied into any DuckDB.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from flowdeck_devtools.filter.fields import COSTS, TOKENS, level, moment, number
from flowdeck_devtools.filter.grammar import All, Compare, Match, Node, Not, Regex, Word, parse
from flowdeck_devtools.filter.grammar import Any as Either
from flowdeck_devtools.filter.predicate import escaped

__all__ = ["compile_sql", "literal"]

Table = Literal["events", "runs"]


@dataclass(frozen=True)
class _Source:
    """What the fields are called in one relation."""

    texts: Mapping[str, tuple[str, ...]]
    numbers: Mapping[str, str]
    words: tuple[str, ...]
    documents: tuple[str, ...] = ()
    level: str | None = None
    moment: str = "ts"
    payload: str | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    """Documents in which ``attr.<path>`` is looked for, each with the pointer before the path."""
    lists: tuple[tuple[str, str], ...] = ()
    """Documents and pointers of lists of tags."""


_ERROR = tuple(
    f"(CASE WHEN json_type(error, '/{key}') = 'VARCHAR' THEN error ->> '/{key}' END)"
    for key in ("type", "message", "module", "code")
)
_TRACE = "(CASE WHEN json_type(error, '/traceback') = 'VARCHAR' THEN error ->> '/traceback' END)"
_FLOW = (
    "coalesce(nullif(flow_name, ''), CASE WHEN json_type(payload, '/flow_name') = 'VARCHAR' "
    "THEN payload ->> '/flow_name' END)"
)

_NUMBERS = "('UBIGINT', 'BIGINT', 'HUGEINT', 'UHUGEINT', 'DOUBLE')"


def _first_number(places: tuple[tuple[str, ...], ...]) -> str:
    found = []
    for place in places:
        pointer = "'/" + "/".join(place) + "'"
        held = f"TRY_CAST(payload ->> {pointer} AS DOUBLE)"
        found.append(f"CASE WHEN json_type(payload, {pointer}) IN {_NUMBERS} THEN {held} END")
    return f"coalesce({', '.join(found)})"


_EVENTS = _Source(
    texts={
        "kind": ("event_type",), "run": ("run_id", "root_run_id"), "flow": (_FLOW,), "execution": ("execution_id",),
        "node": ("scope",), "step": ("step_name",), "source": ("source",), "message": ("message",), "error": _ERROR,
        "task": ("task_id",), "tenant": ("tenant_id",), "user": ("user_id",), "agent": ("agent_name",),
        "session": ("session_id",), "span": ("run_id",),
    },
    numbers={
        "attempt": "nullif(attempt, 0)", "seq": "nullif(seq, 0)", "dur": "duration_ms / 1000.0",
        "tok": _first_number(TOKENS), "cost": _first_number(COSTS),
    },
    words=(
        "event_type", "source", "level", "message", "scope", "run_id", "root_run_id", "parent_run_id", "execution_id",
        "agent_name", "session_id", "flow_name", "run ->> '$.meta.chunk_name'", "task_id", "tenant_id", "user_id",
        *_ERROR, _TRACE,
    ),
    documents=("payload::VARCHAR",),
    level="level",
    payload="payload",
    attributes=(("meta", ""), ("run", "/meta")),
    lists=(("payload", "/tags"), ("run", "/meta/tags")),
)  # fmt: skip

_RUNS = _Source(
    texts={
        "kind": ("'workflow_execution'",), "run": ("run_id", "root_run_id"), "flow": ("flow_name",),
        "execution": ("execution_id",), "status": ("status",), "error": ("concat_ws(': ', error_type, error_message)",),
        "task": ("task_id",), "tenant": ("tenant_id",), "user": ("user_id",), "session": ("session_id",),
    },
    numbers={
        "dur": "coalesce(duration_ms / 1000.0, (epoch_us(utc_now()) - epoch_us(started_at)) / 1e6)",
        "waiting": "(epoch_us(utc_now()) - epoch_us(waiting_since)) / 1e6",
        "events": "events",
        "errors": "errors",
    },
    words=(
        "run_id", "flow_name", "'workflow_execution'", "status", "execution_id", "error_type", "error_message",
        "task_id", "tenant_id", "user_id",
    ),
    moment="started_at",
)  # fmt: skip
_SOURCES: Mapping[Table, _Source] = {"events": _EVENTS, "runs": _RUNS}


def compile_sql(text: str, table: Table = "events", now_us: Callable[[], int] | None = None) -> str:
    """The condition for ``WHERE`` over ``events`` or ``runs``.

    Raises:
        FilterError: the text is not a filter.
    """
    now = now_us() if now_us is not None else time.time_ns() // 1000
    return _sql(parse(text), _SOURCES[table], now)


def literal(text: str) -> str:
    """A text as an SQL literal."""
    safe = text.encode("utf-8", "replace").decode()
    return "'" + safe.replace("'", "''").replace("\0", "' || chr(0) || '") + "'"


def _sql(node: Node, source: _Source, now_us: int) -> str:
    match node:
        case Word(text):
            low = literal(text.lower())
            leaves = [f"contains(lower({one}), {low})" for one in source.words]
            inside = literal(escaped(text).lower())
            leaves += [f"contains(lower({one}), {inside})" for one in source.documents]
            return _any(leaves)
        case Regex("", pattern):
            return _any([_found(one, pattern) for one in (*source.words, *source.documents)])
        case Not(inner):
            return f"NOT {_sql(inner, source, now_us)}"
        case All(nodes):
            return _joined([_sql(inner, source, now_us) for inner in nodes], "AND")
        case Either(nodes):
            return _joined([_sql(inner, source, now_us) for inner in nodes], "OR")
    if node.field == "ts":
        return _time(node, source, now_us)
    if node.field == "level":
        return _level(node, source)
    if node.field in source.numbers:
        return _number(node, source.numbers[node.field])
    if node.field.startswith("attr."):
        below = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in node.field[5:].split("."))
        return _any([_of_json(node, document, before + below) for document, before in source.attributes])
    if node.field == "tag":
        element = "(one ->> '$')"
        each = f"json_type(one) = 'VARCHAR' AND {_text(node, element)}"
        lists = [f"TRY_CAST({document} -> {literal(pointer)} AS JSON[])" for document, pointer in source.lists]
        return _any([f"len(list_filter({tags}, lambda one: {each})) > 0" for tags in lists])
    path = _path(node.field)
    if path is not None and source.payload is not None:
        return _any([_of_json(node, source.payload, path)])
    return _any([_text(node, one) for one in source.texts.get(node.field, ())])


def _joined(parts: list[str], word: str) -> str:
    if not parts:
        return "true"
    return parts[0] if len(parts) == 1 else "(" + f" {word} ".join(parts) + ")"


def _any(leaves: list[str]) -> str:
    """Whether one of the leaves is true; NULL is not."""
    return (
        f"coalesce({_either(leaves)}, false)"
        if len(leaves) == 1
        else ("(" + " OR ".join(f"coalesce({leaf}, false)" for leaf in leaves) + ")" if leaves else "false")
    )


def _either(leaves: list[str]) -> str:
    return leaves[0] if len(leaves) == 1 else "(" + " OR ".join(leaves) + ")"


def _time(node: Match | Compare | Regex, source: _Source, now_us: int) -> str:
    if not isinstance(node, Compare):
        return "false"
    at = moment(node.value, now_us)
    return f"coalesce({source.moment} {node.op} make_timestamp({at}), false)"


def _level(node: Match | Compare | Regex, source: _Source) -> str:
    if source.level is None or isinstance(node, Regex):
        return "false"
    name = f"upper({source.level})"
    rank = (
        f"CASE {name} WHEN 'DEBUG' THEN 0 WHEN 'WARNING' THEN 2 WHEN 'WARN' THEN 2 WHEN 'ERROR' THEN 3 "
        "WHEN 'CRITICAL' THEN 4 WHEN 'FATAL' THEN 4 ELSE 1 END"
    )
    if isinstance(node, Compare):
        return f"({rank} {node.op} {level(node.value) or 0})"
    return f"({rank} IN ({', '.join(str(level(one)) for one in node.patterns)}))"


def _number(node: Match | Compare | Regex, expression: str) -> str:
    match node:
        case Compare(field, op, value):
            return f"coalesce({expression} {op} {_double(field, value)}, false)"
        case Match(field, patterns):
            return _any([f"{expression} = {_double(field, one)}" for one in patterns])
    return "false"


def _double(field: str, value: str) -> str:
    return f"{number(field, value)!r}::DOUBLE"


def _path(field: str) -> str | None:
    """The JSON pointer of a field of the payload."""
    if field.startswith("data."):
        return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in field[5:].split("."))
    return {"status": "/status", "actor": "/actor"}.get(field)


def _of_json(node: Match | Compare | Regex, document: str, path: str) -> str:
    """A value whose type only the row knows: numbers are compared, texts and booleans matched, parts only counted."""
    pointer = literal(path)
    kind, text = f"json_type({document}, {pointer})", f"{document} ->> {pointer}"
    as_number = f"TRY_CAST({text} AS DOUBLE)"
    as_text = f"CASE WHEN {kind} IN ('OBJECT', 'ARRAY') THEN '' ELSE {text} END"
    when_number = "false"
    if isinstance(node, Compare):
        value = _maybe(node.field, node.value)
        when_number = f"{as_number} {node.op} {value}" if value is not None else "false"
    elif isinstance(node, Match):
        tests = [_equal(node.field, pattern, as_number) for pattern in node.patterns]
        when_number = _either(tests)
    return f"CASE WHEN {kind} IN {_NUMBERS} THEN {when_number} WHEN {kind} <> 'NULL' THEN {_text(node, as_text)} END"


def _equal(field: str, pattern: str, expression: str) -> str:
    value = _maybe(field, pattern)
    if value is None:
        return "true" if not pattern.strip("*") else "false"
    return f"{expression} = {value}"


def _maybe(field: str, value: str) -> str | None:
    try:
        return _double(field, value)
    except ValueError:
        return None


def _text(node: Match | Compare | Regex, expression: str) -> str:
    match node:
        case Regex(_, pattern):
            return _found(expression, pattern)
        case Compare(_, op, value):
            return f"lower({expression}) = {literal(value.lower())}" if op == "=" else "false"
        case Match(field, patterns):
            return _either([_matches(field, pattern, expression) for pattern in patterns])
    return "false"


def _matches(field: str, pattern: str, expression: str) -> str:
    low = f"lower({expression})"
    like = _like(pattern.lower(), low)
    if field in ("run", "execution", "span"):
        first, _, last = pattern.lower().rpartition("…")
        named = f"suffix({low}, {literal(last)})"
        if first.strip("…"):  # as it is shown: the end of the prefix and the end of the whole
            named += f" AND contains(left({low}, greatest(len({low}) - {len(last)}, 0)), {literal(first.strip('…'))})"
        return f"({like} OR ({named}))"
    if field in ("node", "error", "message"):
        return f"({like} OR contains({low}, {literal(pattern.lower())}))"
    return like


def _like(pattern: str, expression: str) -> str:
    if "*" not in pattern and "?" not in pattern:
        return f"{expression} = {literal(pattern)}"
    quoted = "".join(f"\\{char}" if char in "%_\\" else char for char in pattern)
    return f"{expression} LIKE {literal(quoted.replace('*', '%').replace('?', '_'))} ESCAPE '\\'"


def _found(expression: str, pattern: str) -> str:
    return f"regexp_matches({expression}, {literal('(?is)' + pattern)})"
