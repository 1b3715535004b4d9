"""Log records as events: of the run whose span they name, of their trace, or of none.

A record does not say what its span is about, so its run has no kind; the span's own events do.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

from flowdeck_sinks.collect import genai
from flowdeck_sinks.collect.lines import MESSAGE_LIMIT, Line, ids_of, line, run_bytes, time_us_of, whole_id
from flowdeck_sinks.collect.spans import Origin, Refused, error_of, identity_of
from flowdeck_sinks.collect.values import attributes_of, clip, structure, text_of, value_of

__all__ = ["Copies", "log_lines"]

_DETAILS: Final = "gen_ai.client.inference.operation.details"
_LEVELS: Final = ("DEBUG", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
"""By severity number: four to a level, TRACE first."""
_TEXTS: Final = {
    "trace": "DEBUG",
    "debug": "DEBUG",
    "info": "INFO",
    "warn": "WARNING",
    "warning": "WARNING",
    "error": "ERROR",
    "critical": "CRITICAL",
    "fatal": "CRITICAL",
}


class Copies:
    """Tells equal records of one request apart, so that only a repeated request repeats their ids."""

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = {}

    def id_of(self, record: Any, origin: Origin) -> str:
        """Return the event id of a record: its ``log.record.uid``, or a hash of all that it says."""
        for pair in record.attributes:
            if pair.key == "log.record.uid" and 0 < len(pair.value.string_value) <= 64:
                uid = pair.value.string_value
                if uid.isascii() and uid.replace("-", "").isalnum():
                    return f"log-{uid}"

        said = record.SerializeToString(deterministic=True)
        digest = blake2b(said, digest_size=16, key=origin.service.encode("utf-8", "replace")[:64]).digest()
        copy = self._seen[digest] = self._seen.get(digest, 0) + 1
        return f"log-{digest.hex()}" if copy == 1 else f"log-{digest.hex()}-{copy}"


def log_lines(record: Any, origin: Origin, received_us: int, copies: Copies) -> list[Line]:
    """Return the events of one log record.

    Raises:
        Refused: It names a span or a trace with ids that are none.
    """
    trace_id, span_id = bytes(record.trace_id), bytes(record.span_id)
    attributes = attributes_of(record.attributes)
    event_id = copies.id_of(record, origin)
    name = record.event_name or text_of(attributes, "event.name") or ""
    body = structure(value_of(record.body))
    run = b"null"
    if any(trace_id) or any(span_id):
        if not whole_id(trace_id, 16):
            raise Refused(f"trace_id of a log record is not 16 bytes: {trace_id[:32].hex() or 'empty'}")

        if any(span_id) and len(span_id) != 8:
            raise Refused(f"span_id of a log record is not 8 bytes: {span_id[:32].hex()}")

        trace, run_id = ids_of(trace_id, span_id)
        session, meta = identity_of(trace, origin, attributes)
        of_trace = not any(span_id)
        run = run_bytes(
            trace if of_trace else run_id, "workflow_execution" if of_trace else None, trace, None, None, session, meta
        )

    at = time_us_of(record.time_unix_nano, record.observed_time_unix_nano) or received_us
    if name == _DETAILS and any(span_id):
        # It belongs to a model's call by its definition: it carries what the span did not.
        given = genai.input_of(genai.MODEL, attributes, [])
        result = genai.output_of(genai.MODEL, attributes, [])
        said: dict[str, Any] = {} if given is None else {"prompt_messages": given}
        said |= {} if result is None else {"output_messages": result}
        said["otel"] = {"attributes": attributes}
        out = [line(event_id, "prompt.built", "INFO", at, run, payload=said)]
        facts = genai.model_facts(attributes)
        if facts:  # counted once beside the span's own: the views take the largest of a run
            out.append(line(f"{event_id}.model", "model.meta", "INFO", at, run, payload={"meta": facts}))

        return out

    payload = {"attributes": attributes, "scope": origin.scope, "resource": origin.resource}
    message = body if isinstance(body, str) else None
    if body is not None and (message is None or len(message) > MESSAGE_LIMIT):
        payload["body"] = body

    number = record.severity_number
    level = _LEVELS[(number - 1) // 4] if 0 < number <= 24 else None
    failed = "exception.type" in attributes or "exception.message" in attributes
    return [
        line(
            event_id,
            f"otel.{clip(name, 200)}" if name else "otel.log",
            level or _TEXTS.get(record.severity_text.lower(), "INFO"),
            at,
            run,
            message=message,
            payload=payload,
            error=error_of(attributes, message) if failed else None,
        )
    ]
