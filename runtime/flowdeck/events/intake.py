"""What users hand to an emit call, checked and turned into a record."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from time import time_ns
from typing import Any, Final

from flowdeck.errors import FlowdeckError
from flowdeck.events.errorinfo import ErrorInfo
from flowdeck.events.ids import next_serial
from flowdeck.events.levels import LEVELS
from flowdeck.events.lineage import RunContext, current_run
from flowdeck.events.record import EventRecord

__all__ = ["InvalidEvent", "infer_source", "make_record", "record_from_event"]

DEFAULT_SOURCE: Final = "Flowdeck"
FIELDS: Final = frozenset(
    {"event_id", "event_type", "source", "level", "message", "payload", "error", "run", "meta", "timestamp"}
)
"""The fields of an observation event. Source: seed 004."""
_TEXT_LIMIT: Final = 512
_OWN_FRAMES: Final = ("flowdeck.events", "flowdeck._runtime", "flowdeck.compat")


class InvalidEvent(FlowdeckError, ValueError):
    """An event cannot be accepted. The message names the field and what it should be."""


def make_record(
    event_type: Any,
    *,
    level: Any = "INFO",
    source: Any = None,
    message: Any = None,
    payload: Any = None,
    error: Any = None,
    run: Any = None,
    meta: Any = None,
    event_id: Any = None,
    timestamp: Any = None,
) -> EventRecord:
    """Return the record of a user's event. Without ``run`` the event belongs to the current run.

    Raises:
        InvalidEvent: a field is not what it should be.
    """
    if not isinstance(event_type, str) or not event_type:
        raise InvalidEvent(
            f"event_type must be a non-empty text such as 'billing.invoice_created', not {_show(event_type)}"
        )

    if len(event_type) > _TEXT_LIMIT:
        raise InvalidEvent(f"event_type is {len(event_type)} characters long; at most {_TEXT_LIMIT} are allowed")

    level = check_level(level)
    if source is not None and not isinstance(source, str):
        raise InvalidEvent(f"source must be text, not {_show(source)}")

    if message is not None and not isinstance(message, str):
        raise InvalidEvent(f"message must be text or None, not {_show(message)}")

    if meta is not None and not isinstance(meta, Mapping):
        raise InvalidEvent(f"meta must be a mapping, not {_show(meta)}")

    if event_id is not None and not (isinstance(event_id, str) and 0 < len(event_id) <= _TEXT_LIMIT):
        raise InvalidEvent(f"event_id must be a text of 1 to {_TEXT_LIMIT} characters, not {_show(event_id)}")

    if timestamp is None:
        time_us = time_ns() // 1000
    elif isinstance(timestamp, int) and not isinstance(timestamp, bool) and 0 <= timestamp < 2**53:
        given_us = meta.get("us") if meta is not None else None
        time_us = timestamp * 1000 + (given_us if isinstance(given_us, int) and 0 <= given_us < 1000 else 0)
    else:
        raise InvalidEvent(f"timestamp must be milliseconds since the Unix epoch, not {_show(timestamp)}")

    return EventRecord(
        event_type,
        level,
        time_us,
        0 if event_id is not None else next_serial(),
        source or DEFAULT_SOURCE,
        payload,
        None,
        _check_run(run),
        message=message,
        error=ErrorInfo.of(error),
        _meta=dict(meta) if meta else None,
        _event_id=event_id,
    )


def record_from_event(event: Any) -> EventRecord:
    """Return the record of a mapping, an ObservationEvent or an EventRecord.

    Raises:
        InvalidEvent: it is none of these, or a field is not what it should be.
    """
    if isinstance(event, EventRecord):
        return event

    if isinstance(event, Mapping):
        fields = {key: event[key] for key in event if key in FIELDS}
        unknown = sorted(str(key) for key in event if key not in FIELDS)
        if unknown:  # fail-open, but not silently: the wire names what was ignored
            fields["meta"] = {**(fields.get("meta") or {}), "ignored_fields": unknown}

        if not fields.get("source"):
            fields["source"] = infer_source()
    elif _is_observation_event(event):
        fields = {name: getattr(event, name) for name in FIELDS}
    else:
        raise InvalidEvent(f"an event is a mapping or an ObservationEvent, not {_show(event)}")

    return _place(make_record(fields.pop("event_type", None), **fields))


def _place(record: EventRecord) -> EventRecord:
    """Put the envelope's own meta of an event that was received and is emitted again back where it came from."""
    meta = record._meta
    if not meta or meta.get("v") != 1 or not isinstance(meta.get("us"), int):
        return record

    rest = {key: value for key, value in meta.items() if key not in ("v", "us")}
    for name in ("epoch", "seq", "sub", "cause", "attempt", "duration_us"):
        if type(rest.get(name)) is int:
            setattr(record, name, rest.pop(name))

    if isinstance(rest.get("scope"), str):
        record.scope = rest.pop("scope")

    record._meta = rest or None
    return record


def check_level(level: Any) -> str:
    """Return the level's name.

    Raises:
        InvalidEvent: it is none of the five.
    """
    if type(level) is str:
        if level in LEVELS:
            return level

        if level.upper() in LEVELS:
            return level.upper()

    raise InvalidEvent(f"level must be one of {', '.join(LEVELS)}, not {_show(level)}")


def infer_source() -> str:
    """Name the code that emits: its ``self.name``, else its class, else its module."""
    frame = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith(_OWN_FRAMES):
        if frame.f_back is None:
            return DEFAULT_SOURCE

        frame = frame.f_back

    owner = frame.f_locals.get("self")
    if owner is not None:
        try:
            name = owner.name
        except Exception:
            name = None

        return name if isinstance(name, str) and name else type(owner).__name__

    module = frame.f_globals.get("__name__")
    if isinstance(module, str) and module != "__main__":
        return module

    return Path(frame.f_code.co_filename).stem or DEFAULT_SOURCE


def _check_run(run: Any) -> RunContext | None:
    if run is None:
        return current_run.get()

    if isinstance(run, RunContext):
        return run

    if isinstance(run, Mapping):
        try:
            return RunContext.from_mapping(run)
        except ValueError as problem:
            raise InvalidEvent(str(problem)) from None

    raise InvalidEvent(f"run must be a RunContext or a mapping, not {_show(run)}")


def _is_observation_event(event: Any) -> bool:
    # Looked up, not imported: without the module loaded nobody can hold such an event.
    model = sys.modules.get("flowdeck.events.model")
    return model is not None and isinstance(event, model.ObservationEvent)


def _show(value: object) -> str:
    from flowdeck.events.encoding import describe

    text = describe(value)["$repr"]
    return f"{type(value).__name__} {text[:80]}"
