"""The fields of the filter language, and how their values are read: levels, durations, numbers, moments."""

from __future__ import annotations

import re
from datetime import datetime

from flowdeck.errors import FlowdeckError

__all__ = ["ALIASES", "COSTS", "FIELDS", "NUMERIC", "TOKENS", "FilterError", "field_of", "level", "moment", "number"]

FIELDS: dict[str, str] = {
    "kind": "event type, or kind of run",
    "level": "DEBUG INFO WARNING ERROR CRITICAL, ordered",
    "run": "run id, or its end",
    "flow": "flow name",
    "execution": "execution id, or its end",
    "node": "scope: where in the flow",
    "step": "name of the chunk or action",
    "status": "running waiting completed failed cancelled lost",
    "source": "who emitted it",
    "message": "the message",
    "error": "type, text, module or code of the error",
    "actor": "who answered or intervened",
    "attempt": "attempt number",
    "dur": "duration: 200ms 1.5s 3m",
    "waiting": "of a run: how long it has waited: waiting>1h",
    "seq": "order within the execution",
    "ts": "time: ts>-15m ts<2026-11-20T10:00",
    "last": "not older than: last:15m",
    "task": "task id",
    "tenant": "tenant id",
    "user": "user id",
    "agent": "agent name",
    "session": "session id",
    "tag": "a tag in the run's meta or the payload",
    "tok": "tokens of a model call: tok>1000",
    "cost": "cost the event tells, in its currency: cost>0.10",
    "span": "id of the attempt itself, or its end",
    "events": "number of events of a run",
    "errors": "number of errors of a run",
}
"""Every field and what it means, for help and completion."""

TOKENS = (("usage", "total_tokens"), ("meta", "usage", "total_tokens"), ("total_tokens",))
"""Where in a payload the tokens of a call may stand."""
COSTS = (("cost",), ("usage", "cost"), ("meta", "usage", "cost"), ("cost_usd",))
ALIASES = {
    "tags": "tag",
    "tokens": "tok",
    "type": "kind",
    "lvl": "level",
    "scope": "node",
    "id": "run",
    "duration": "dur",
    "name": "flow",
    "time": "ts",
    "since": "last",
}
"""Other names of fields, and the field each means."""
NUMERIC = frozenset({"attempt", "dur", "waiting", "seq", "events", "errors", "tok", "cost"})
_SPANS = frozenset({"dur", "waiting"})


class FilterError(FlowdeckError, ValueError):
    """The text is not a filter. ``column`` counts characters from 0."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(message)
        self.column = column


def field_of(name: str, column: int) -> str:
    """The field a name means: itself, what it is short for, ``data.<path>`` or ``attr.<path>``.

    Raises:
        FilterError: there is no such field.
    """
    field = ALIASES.get(name.lower(), name.lower())
    if field in FIELDS:
        return field
    head, dot, path = name.partition(".")
    if head.lower() in ("data", "payload") and dot and path:
        return f"data.{path}"
    if head.lower() in ("attr", "meta") and dot and path:
        return f"attr.{path}"
    raise FilterError(f"no field {name!r}; fields: {', '.join(FIELDS)}, data.<path>, attr.<path>", column)


_LEVELS = ("debug", "info", "warning", "error", "critical")


def level(text: str) -> int | None:
    """Rank of a level given by its name or the beginning of it (``warn``, ``err``)."""
    low = text.lower()
    return next((rank for rank, name in enumerate(_LEVELS) if low and name.startswith(low)), None)


_NUMBER = re.compile(r"(-?\d{1,15}(?:\.\d{1,15})?)(us|µs|ms|s|m|h|d)?", re.IGNORECASE | re.ASCII)
_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def number(field: str, text: str, column: int = 0) -> float:
    """A number; for durations seconds, with or without a unit.

    Raises:
        FilterError: it is none.
    """
    found = _NUMBER.fullmatch(text)
    if found is None or (found[2] and field not in _SPANS and not field.startswith(("data.", "attr."))):
        raise FilterError(f"{field} wants a number, not {text!r}", column)
    return float(found[1]) * _UNITS.get((found[2] or "s").lower(), 1.0)


def moment(text: str, now_us: int, column: int = 0) -> int:
    """A point in time in microseconds: ``-15m`` before ``now_us``, or an ISO time (local unless it has a zone).

    Raises:
        FilterError: it is none.
    """
    if text.startswith("-"):
        try:
            return now_us + round(number("dur", text) * 1e6)
        except FilterError:
            pass
    else:
        try:
            return round(datetime.fromisoformat(text).timestamp() * 1e6)
        except (ValueError, OverflowError, OSError):
            pass
    raise FilterError(f"ts wants a time such as -15m or 2026-11-20T10:00, not {text!r}", column)
