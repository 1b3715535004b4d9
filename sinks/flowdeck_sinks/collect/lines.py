"""Events of received telemetry: their ids, their runs and their wire form.

Ids are made of the sender's ids alone, so a delivery that is repeated makes the same events: a span is the run
``<span id><last 64 bits of the trace id>``, a trace is the execution and the run ``<trace id>``, an event is its run
and what it is of it (``.start``, ``.end``, ``.model``, ``.event-3``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from flowdeck.events.encoding import encode
from flowdeck.events.record import head_bytes

__all__ = ["MESSAGE_LIMIT", "SOURCE", "Line", "ids_of", "line", "run_bytes", "shortened", "time_us_of", "whole_id"]

SOURCE: Final = "OpenTelemetry"
"""The ``source`` of everything received."""
LATEST_NS: Final = 253_402_300_799_000_000_000
"""The end of the year 9999."""
MESSAGE_LIMIT: Final = 65_536
"""Characters of an event's message; of a longer text the whole stands in the payload."""


class Line(msgspec.Struct, gc=False):
    """One event as the journal takes it."""

    event_type: str
    event_id: str
    encoded: bytes


def ids_of(trace_id: bytes, span_id: bytes) -> tuple[str, str]:
    """Return the ids of the trace's run and of the span's run."""
    trace = trace_id.hex()
    return trace, span_id.hex() + trace[16:]


def whole_id(value: bytes, length: int) -> bool:
    """Whether this is an id as OTLP has it: of that many bytes, and not zero."""
    return len(value) == length and any(value)


def time_us_of(*nanoseconds: int) -> int:
    """Return the first of these times that is one, in microseconds; 0 when none is."""
    for value in nanoseconds:
        if 0 < value <= LATEST_NS:
            return max(1, value // 1000)

    return 0


def shortened(message: str) -> str:
    """Return a message as an event keeps it: a line of the journal has no room for megabytes outside its payload."""
    over = len(message) - MESSAGE_LIMIT
    return message if over <= 0 else f"{message[:MESSAGE_LIMIT]}… [{over} more characters]"


def run_bytes(
    run_id: str,
    kind: str | None,
    trace: str,
    parent: str | None,
    agent: str | None,
    session: str | None,
    meta: tuple[tuple[str, str], ...],
) -> bytes:
    """Return the ``run`` of events on the wire. ``kind`` is ``None`` where only a span's id is known."""
    run: dict[str, Any] = {"run_id": run_id}
    if kind is not None:
        run["run_kind"] = kind

    run["root_run_id"] = trace
    if parent is not None:
        run["parent_run_id"] = parent

    if agent is not None:
        run["agent_name"] = agent

    if session is not None:
        run["session_id"] = session

    run["execution_id"] = trace
    run["meta"] = dict(meta)
    return encode(run)


def line(
    event_id: str,
    event_type: str,
    level: str,
    time_us: int,
    run: bytes,
    *,
    payload: Any = None,
    message: str | None = None,
    error: Mapping[str, Any] | None = None,
    epoch: int = 0,
    duration_us: int | None = None,
) -> Line:
    """Return one event. Secret keys are masked and nesting is bounded, as in every event."""
    milliseconds, us = divmod(time_us, 1000)
    meta = b'{"v":1,"us":%d' % us
    if epoch:
        meta += b',"epoch":%d' % epoch

    if duration_us is not None:
        meta += b',"duration_us":%d' % duration_us

    return Line(
        event_type,
        event_id,
        b"".join(
            (
                b'{"event_id":"',
                event_id.encode(),
                head_bytes(event_type, SOURCE, level),
                b"null" if message is None else encode(shortened(message)),
                b',"payload":',
                b"null" if payload is None else encode(payload),
                b',"error":',
                b"null" if error is None else encode(error),
                b',"run":',
                run,
                b',"meta":',
                meta,
                b'},"timestamp":%d}' % milliseconds,
            )
        ),
    )
