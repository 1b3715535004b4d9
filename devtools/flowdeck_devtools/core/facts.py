"""Facts in words: what a run, a step or an event is, as sections for a viewer and as text to copy."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import msgspec

from flowdeck_devtools.core.model import RunRow, error_line
from flowdeck_devtools.core.span import SpanNode
from flowdeck_devtools.core.status import glyph
from flowdeck_devtools.core.text import clean, clock_time, duration, size
from flowdeck_devtools.core.wire import Event, decode

__all__ = [
    "Section",
    "copy_event",
    "copy_run",
    "event_sections",
    "node_sections",
    "place_label",
    "python_query",
    "store_name",
    "store_option",
]

Section = tuple[str, Any, str]
"""Heading, JSON value (or ``None`` for a heading alone), role of the heading."""

TRACEBACK_LINES = 60


def event_sections(line: bytes) -> list[Section]:
    """An event for the viewer: what it is on top, then error, payload, lineage and meta."""
    event = decode(line)
    title = f"{clean(event.event_type)}  {event.level}"
    role = "failed" if event.level in ("ERROR", "CRITICAL") else "waiting" if event.level == "WARNING" else "strong"
    sections: list[Section] = [(title, None, role), (_when(event), None, "dim")]
    if event.message:
        sections.append(("message", event.message, "title"))
    if event.error:
        sections += _error_sections(event.error)
    payload = event.payload
    if payload is not None:
        note = f"  {size(event.payload_bytes)}" if event.payload_bytes > 2_000 else ""
        sections.append((f"payload{note}", payload, "title"))
    if event.run is not None:
        lineage = {key: value for key, value in msgspec.to_builtins(event.run).items() if value not in (None, {})}
        sections.append(("run", lineage, "title"))
    sections.append(("meta", {**event.meta, "event_id": event.event_id, "source": event.source}, "title"))
    return sections


def _when(event: Event) -> str:
    parts = [clock_time(event.time_us)]
    scope, attempt, lasted = (event.meta.get(key) for key in ("scope", "attempt", "duration_us"))
    if isinstance(scope, str):
        parts.append(f"at {clean(scope)}")
    if isinstance(attempt, int) and attempt > 1:
        parts.append(f"attempt {attempt}")
    if isinstance(lasted, int | float):
        parts.append(f"took {duration(lasted)}")
    return "  ".join(parts)


def _error_sections(error: dict[str, Any]) -> list[Section]:
    known = {key: value for key, value in error.items() if value not in (None, "", {}, [])}
    trace = known.pop("traceback", None)
    sections: list[Section] = [("error", known, "failed")]
    if isinstance(trace, str):
        lines = trace.strip().splitlines()
        cut = lines[-TRACEBACK_LINES:]
        if len(cut) < len(lines):
            cut = [f"… {len(lines) - len(cut)} lines above", *cut]
        sections.append(("traceback", "\n".join(cut), "title"))
    return sections


def node_sections(node: SpanNode, now_us: int) -> list[Section]:
    """A step for the viewer, when none of its events is chosen."""
    status = node.status
    lasted = duration(node.duration_us(now_us))
    role = {"failed": "failed", "waiting": "waiting", "completed": "ok", "running": "running"}.get(status, "strong")
    sections: list[Section] = [(f"{glyph(status)} {node.name}  {status}  {lasted}", None, role)]
    facts: dict[str, Any] = {"kind": node.kind, "scope": node.scope, "started": clock_time(node.started_us)}
    if node.attempt_count > 1:
        facts["attempts"] = node.attempt_count
    if node.progress:
        facts["members"] = f"{node.progress[0]} of {node.progress[1]} ended"
    sections.append(("", {key: value for key, value in facts.items() if value}, "title"))
    error = error_line(node.error)
    if error:
        sections.append(("error", error, "failed"))
    return sections


def place_label(path: Path) -> str:
    """A path as people say it: relative to where they are, or to their home."""
    path = path.absolute()
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_relative_to(base):
            return clean(f"{prefix}{path.relative_to(base)}")
    return clean(str(path))


def store_name(store: Path) -> str:
    """A store in a word, for a column: its folder, or that which holds its ``.flowdeck``."""
    return clean(store.parent.name if store.name == ".flowdeck" else store.name)


def store_option(store: Path) -> str:
    """``--store …`` for a command, or nothing for the default place."""
    return "" if store == Path(".flowdeck").absolute() else f" --store {shlex.quote(str(store))}"


def copy_event(line: bytes, store: Path | None = None) -> list[tuple[str, str]]:
    """What can be copied of an event."""
    event = decode(line)
    choices = [("event as JSON", _pretty(line))]
    payload = event.payload
    if payload is not None:
        choices.append(("payload as JSON", json.dumps(payload, ensure_ascii=False, indent=2)))
    choices.append(("event id", event.event_id))
    if store is not None and event.event_id:
        sql = f"select * from events where event_id = {_quoted(event.event_id)}"
        choices.append(("SQL for this event", sql))
        choices.append(("command for this event", f"flowdeck sql {shlex.quote(sql)}{store_option(store)}"))
        choices.append(("Python for this event", python_query(sql, store)))
    if event.run is not None and event.run.run_id:
        choices.append(("run id", event.run.run_id))
        choices.append(
            ("SQL for the events of this run", f"select * from events where run_id = {_quoted(event.run.run_id)}")
        )
    if event.error:
        choices.insert(0, ("error", _error_text(event.error)))
    return choices


def copy_run(row: RunRow, store: Path) -> list[tuple[str, str]]:
    """What can be copied of a run."""
    sql = f"select time, event_type, message from events where root_run_id = {_quoted(row.run_id)} order by time"
    facts = {name: value for name, value in row.fields().items() if value is not None}
    about = row.execution_id or row.run_id
    choices = [("run id", row.run_id)]
    if row.execution_id:
        choices.append(("execution id", row.execution_id))
    if row.error:
        choices.append(("error", row.error))
    choices.append(("run as JSON", json.dumps(facts, ensure_ascii=False, indent=2)))
    choices.append(("command that shows it", f"flowdeck show {shlex.quote(about)}{store_option(store)}"))
    choices.append(("SQL for its events", sql))
    choices.append(("command for its events", f"flowdeck sql {shlex.quote(sql)}{store_option(store)}"))
    choices.append(("Python for its events", python_query(sql, store)))
    return choices


def python_query(sql: str, store: Path) -> str:
    """A program that asks the store the same."""
    asked = f'query({str(store)!r}, """\n{sql}\n""")'
    return f"from flowdeck_sinks.store import query\n\nfor row in {asked}:\n    print(row)\n"


def _pretty(line: bytes) -> str:
    try:
        return msgspec.json.format(line, indent=2).decode("utf-8", "replace")
    except msgspec.MsgspecError:
        return line.decode("utf-8", "replace")


def _error_text(error: dict[str, Any]) -> str:
    trace = error.get("traceback")
    return str(trace) if trace else error_line(error) or ""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
