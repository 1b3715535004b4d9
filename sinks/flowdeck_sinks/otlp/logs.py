"""LogMapper: events that are no span boundary become log records, errors become ``exception`` records.

A record stands in the trace of its run: trace id and span id are those of the run's span. ``event_name`` is the event's
type, the body its message. The payload goes along when content is captured for events (``EVENT_ONLY`` or
``SPAN_AND_EVENT``); without that only the few facts of :func:`~flowdeck_sinks.otlp.payloads.brief`.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, set_span_in_context

from flowdeck_sinks.otlp import conventions as names
from flowdeck_sinks.otlp.content import blob_of, clip, json_text
from flowdeck_sinks.otlp.kinds import ENDS, PLAIN, STARTS, canonical_type
from flowdeck_sinks.otlp.mapper import SpanMapper
from flowdeck_sinks.otlp.payloads import brief, end_facts
from flowdeck_sinks.otlp.reading import Event

__all__ = ["LogMapper"]

REMEMBERED: Final = 32_768
"""Events that are remembered, at least, so that one which comes twice is logged once."""
STACK_LIMIT: Final = 16_384
_SEVERITY: Final = {
    "DEBUG": SeverityNumber.DEBUG,
    "INFO": SeverityNumber.INFO,
    "WARNING": SeverityNumber.WARN,
    "ERROR": SeverityNumber.ERROR,
    "CRITICAL": SeverityNumber.FATAL,
}
_COUNTERS: Final = ("logs", "exceptions", "alias_suppressed", "repeated", "bad_events")
_NOWHERE: Final = set_span_in_context(INVALID_SPAN, Context())


class LogMapper:
    """Makes log records. Feed it each event after its mapper: the mapper knows the trace.

    Args:
        mapper: gives context, limits, resource and what may be captured.
    """

    def __init__(self, mapper: SpanMapper) -> None:
        self._mapper = mapper
        self._capture = mapper.capture
        self._limits = mapper.limits
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()
        self._count: Counter[str] = Counter()

    def feed(self, event: Event, writer: str = "") -> ReadableLogRecord | None:
        """Return the log record of one event; ``None`` for a span boundary without an error, and for a second time.

        Nothing raises: what cannot be mapped is counted.
        """
        try:
            return self._record(event, writer)
        except Exception:
            self._count["bad_events"] += 1
            return None

    def statistics(self) -> dict[str, int]:
        """Return counters."""
        return {
            name: self._count[name] for name in ("logs", "exceptions", "alias_suppressed", "repeated", "bad_events")
        }

    def _record(self, event: Event, writer: str) -> ReadableLogRecord | None:
        event_type = event.event_type
        if event_type not in PLAIN:
            if event.meta is not None and event.meta.compat_event_alias:
                self._count["alias_suppressed"] += 1
                return None

            event_type = canonical_type(event_type)

        if event_type in STARTS:
            return None

        failed = event_type in ENDS
        if failed and (event.error is None or end_facts(event.payload)[2]):
            return None

        if self._repeated(event.event_id):
            self._count["repeated"] += 1
            return None

        limit = self._limits.value
        attributes: dict[str, str | bool] = {names.LOG_UID: event.event_id}
        if event.source:
            attributes[names.CE_SOURCE] = clip(event.source, limit)

        attributes.update(brief(event.payload, self._limits))
        if event.run is not None:
            self._identify(event, attributes)

        error = event.error
        if error is not None:
            kind = error.type or "_OTHER"
            known = error.module and error.module != "builtins"
            attributes[names.EXCEPTION_TYPE] = clip(f"{error.module}.{kind}" if known else kind, limit)
            if error.message is not None:
                attributes[names.EXCEPTION_MESSAGE] = clip(error.message, limit)

            if error.traceback is not None:
                attributes[names.EXCEPTION_STACKTRACE] = clip(error.traceback[-STACK_LIMIT:], STACK_LIMIT)

        if self._capture.events:
            stored = blob_of(event.payload)
            text, cut = json_text(event.payload if stored is None else stored[1], limit)
            attributes[names.PAYLOAD] = text
            if cut or stored is not None:
                attributes[names.PAYLOAD_CUT] = True

        self._count["exceptions" if failed else "logs"] += 1
        span = self._mapper.context_of(event)
        time_ns = max(event.time_us, 0) * 1000
        record = LogRecord(
            timestamp=time_ns,
            observed_timestamp=time_ns,
            context=_NOWHERE if span is None else set_span_in_context(NonRecordingSpan(span), Context()),
            severity_text=event.level,
            severity_number=_SEVERITY.get(event.level, SeverityNumber.INFO),
            body=clip(event.message or event.event_type, limit),
            attributes=attributes,
            event_name="exception" if failed else clip(event.event_type, 200),
        )
        return ReadableLogRecord(record, self._mapper.resource_of(writer), self._mapper.scope)

    def _identify(self, event: Event, attributes: dict[str, str | bool]) -> None:
        run = event.run
        assert run is not None
        attributes[names.RUN_ID] = run.run_id
        if run.execution_id is not None:
            attributes[names.EXECUTION_ID] = run.execution_id

        if run.session_id is not None:
            attributes[names.SESSION_ID] = run.session_id

        flow = run.meta.get("flow_name")
        if isinstance(flow, str):
            attributes[names.FLOW_NAME] = clip(flow, self._limits.value)

    def _repeated(self, event_id: str) -> bool:
        key = hash(event_id)
        if key in self._seen or key in self._seen_before:
            return True

        self._seen.add(key)
        if len(self._seen) >= REMEMBERED:
            self._seen_before, self._seen = self._seen, set()

        return False
