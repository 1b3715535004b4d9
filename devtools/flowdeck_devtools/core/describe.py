"""An event in one line of words: what it says about itself, for a tail a person reads.

Only presentation depends on event types here; a type nobody foresaw shows its message or its payload in short.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flowdeck_devtools.core.model import chunk_name, error_line
from flowdeck_devtools.core.span import short_json
from flowdeck_devtools.core.text import clean, duration, size
from flowdeck_devtools.core.wire import Event

__all__ = ["PREVIEW_BYTES", "describe"]

PREVIEW_BYTES = 16 * 1024
"""A payload larger than this is not decoded for one line; its beginning is shown as it stands."""

_Payload = Mapping[str, Any]


def describe(event: Event, *, limit: int = 240) -> str:
    """One cleaned line for an event. Never raises."""
    if event.payload_bytes > PREVIEW_BYTES:
        start = bytes(memoryview(event.raw_payload)[:limit]).decode("utf-8", "replace")
        text = f"{event.message or ''} {size(event.payload_bytes)} {start}"
    else:
        text = _words(event)
    return clean(text.strip(), limit=limit)


def _words(event: Event) -> str:
    payload = event.payload_map()
    writer = _BY_TYPE.get(event.event_type)
    parts: list[str] = [event.message] if event.message else []
    if writer is not None:
        parts.append(writer(event, payload))
    failure = error_line(event.error)
    if failure and failure not in parts:
        parts.append(failure)
    if not parts and event.payload_bytes > 4:
        parts.append(short_json(event.payload))
    return "  ".join(part for part in parts if part)


def _started(event: Event, payload: _Payload) -> str:
    attempt = event.meta.get("attempt")
    again = f"  attempt {attempt}" if isinstance(attempt, int) and attempt > 1 else ""
    return f"{chunk_name(event)}  {_value(payload, 'input')}{again}"


def _completed(event: Event, payload: _Payload) -> str:
    outcome = "waits for an answer" if payload.get("returned_pause_signal") is True else _value(payload, "output")
    return f"{chunk_name(event)}  {_lasted(event)}{outcome}"


def _failed(event: Event, payload: _Payload) -> str:
    again = ""
    if payload.get("will_retry") is True:
        delay = payload.get("retry_delay_s")
        again = f"  retries in {duration(delay * 1e6)}" if isinstance(delay, int | float) and delay else "  retries"
    return f"{chunk_name(event)}  {_lasted(event)}{error_line(event.error) or ''}{again}"


def _run(event: Event, payload: _Payload) -> str:
    for key in ("initial_value", "result", "reason"):
        if payload.get(key) is not None:
            return f"{_lasted(event)}{_value(payload, key)}"
    return _lasted(event)


def _interrupt(event: Event, payload: _Payload) -> str:
    record = payload.get("interrupt")
    record = record if isinstance(record, dict) else payload
    return f"{record.get('type') or 'interrupt'}  {_value(record, 'payload')}"


def _answered(event: Event, payload: _Payload) -> str:
    actor = payload.get("actor")
    return f"{actor or 'somebody'} answered {_value(payload, 'value')}"


def _resumed(event: Event, payload: _Payload) -> str:
    return _answered(event, payload) if "value" in payload else "a matching signal came"


def _waiting(event: Event, payload: _Payload) -> str:
    ids = payload.get("interrupt_ids")
    number = len(ids) if isinstance(ids, list | dict) and ids else 0
    return f"waits for {number} answer{'s' if number != 1 else ''}" if number else "waits for an answer"


def _declared(event: Event, payload: _Payload) -> str:
    definition = payload.get("definition")
    operators = definition.get("operators") if isinstance(definition, dict) else None
    number = f"  {len(operators)} operators" if isinstance(operators, list) else ""
    return f"{payload.get('flow_name') or ''}{number}".replace("1 operators", "1 operator")


def _stream(event: Event, payload: _Payload) -> str:
    item = payload.get("item")
    if not isinstance(item, dict):
        return _value(payload, "item")
    if item.get("type") in ("interrupt", "intervention") and "action" in item:
        return f"{item['type']} {item['action']}"
    title = item.get("title") or item.get("message")
    return title if isinstance(title, str) and title else short_json(item)


def _state(event: Event, payload: _Payload) -> str:
    return f"{payload.get('key')} = {_value(payload, 'value')}"


def _dropped(event: Event, payload: _Payload) -> str:
    return f"{payload.get('sink')} dropped {payload.get('count')} events: {payload.get('reason')}"


def _value(payload: _Payload, key: str) -> str:
    value = payload.get(key)
    if value is None:
        return ""
    return value if isinstance(value, str) else short_json(value)


def _lasted(event: Event) -> str:
    us = event.meta.get("duration_us")
    return f"{duration(us)}  " if isinstance(us, int | float) else ""


_BY_TYPE: dict[str, Callable[[Event, _Payload], str]] = {
    "chunk.started": _started,
    "chunk.completed": _completed,
    "chunk.failed": _failed,
    "triggerflow.execution_started": _run,
    "triggerflow.execution_completed": _run,
    "triggerflow.execution_closed": _run,
    "triggerflow.execution_failed": _run,
    "triggerflow.definition_declared": _declared,
    "triggerflow.interrupt_raised": _interrupt,
    "triggerflow.interrupt_answered": _answered,
    "triggerflow.execution_resumed": _resumed,
    "triggerflow.execution_waiting": _waiting,
    "triggerflow.state_changed": _state,
    "triggerflow.stream_item_emitted": _stream,
    "sink.dropped": _dropped,
}
