"""Log records of events that are no span boundary, in the trace of their run."""

from __future__ import annotations

import json

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk._logs import ReadableLogRecord
from tests.otlp.hand import Hand
from tests.otlp.scenarios import make_mapper

from flowdeck_sinks.otlp.content import Capture
from flowdeck_sinks.otlp.conventions import ATTRIBUTES
from flowdeck_sinks.otlp.ids import span_id_of, trace_id_of
from flowdeck_sinks.otlp.logs import LogMapper
from flowdeck_sinks.otlp.mapper import SpanMapper
from flowdeck_sinks.otlp.reading import event_of


def logged(hand: Hand, mapper: SpanMapper | None = None, times: int = 1) -> list[ReadableLogRecord]:
    mapper = make_mapper() if mapper is None else mapper
    logs = LogMapper(mapper)
    out = []
    for record in hand.recorder.records * times:
        event = event_of(record)
        mapper.feed(event, "w1")
        found = logs.feed(event, "w1")
        if found is not None:
            out.append(found)
            assert set(found.log_record.attributes or {}) <= set(ATTRIBUTES)

    assert logs.statistics()["bad_events"] == 0
    encode_logs(out).SerializeToString()
    return out


def test_boundaries_are_spans_and_the_rest_are_logs(hand: Hand) -> None:
    """Starts and ends are no log records; everything else is one, with the span's ids."""
    hand("billing.paid", hand.step, {"amount": 3}, message="paid", level="WARNING")
    hand("runtime.info", None, None, message="hello")
    first, second = logged(hand.end())
    record = first.log_record
    assert (record.event_name, record.body, record.severity_text) == ("billing.paid", "paid", "WARNING")
    assert record.severity_number is SeverityNumber.WARN
    assert (record.trace_id, record.span_id) == (trace_id_of(hand.root.run_id), span_id_of(hand.step.run_id))
    assert record.timestamp == hand.recorder.records[2].time_us * 1000
    assert first.resource.attributes["service.instance.id"] == "w1"
    assert (second.log_record.event_name, second.log_record.trace_id) == ("runtime.info", 0)


def test_an_error_is_an_exception_record_once(hand: Hand) -> None:
    """A failed run is an ``exception`` record where it failed, not where it passed through."""
    error = ValueError("no")
    hand("chunk.failed", hand.step, {"status": "failed"}, level="ERROR", error=error)
    hand("triggerflow.execution_failed", hand.root, {"origin_run_id": "r"}, level="ERROR", error=error)
    (found,) = logged(hand)
    attributes = dict(found.log_record.attributes or {})
    assert found.log_record.event_name == "exception"
    assert (attributes["exception.type"], attributes["exception.message"]) == ("ValueError", "no")
    assert "ValueError: no" in str(attributes["exception.stacktrace"])


@pytest.mark.parametrize(("choice", "spans"), [("", 1), ("logs/dup", 1), ("logs", 0)])
def test_the_exception_switch(hand: Hand, choice: str, spans: int) -> None:
    """OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN=logs takes the errors off the spans; the records stay."""
    capture = Capture.from_environment({"OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN": choice})
    hand("chunk.failed", hand.step, {"status": "failed"}, level="ERROR", error=ValueError("no"))
    span = hand.spans(make_mapper(capture=capture))["step work"]
    assert [event.name for event in span.events].count("exception") == spans
    assert [found.log_record.event_name for found in logged(hand)] == ["exception"]


@pytest.mark.parametrize("events", [True, False])
def test_payloads_leave_only_when_captured(hand: Hand, events: bool) -> None:
    """EVENT_ONLY and SPAN_AND_EVENT put the redacted payload on the record."""
    hand("billing.paid", hand.step, {"amount": 3, "password": "hunter2", "kind": "card"})
    (found,) = logged(hand, make_mapper(capture=Capture(spans=False, events=events)))
    attributes = dict(found.log_record.attributes or {})
    assert attributes["flow.event.kind"] == "card"
    assert "hunter2" not in str(attributes)
    assert ("flow.payload" in attributes) is events
    if events:
        assert json.loads(str(attributes["flow.payload"]))["amount"] == 3


def test_twins_and_repetition(hand: Hand) -> None:
    """A marked tool.* twin is no record, and an event that comes twice is one record."""
    hand("action.plan_ready", hand.step, {"round_index": 1})
    hand("tool.plan_ready", hand.step, {"round_index": 1}, meta={"compat_event_alias": True})
    assert [found.log_record.event_name for found in logged(hand, times=2)] == ["action.plan_ready"]


def test_a_huge_payload_is_cut(hand: Hand) -> None:
    """6 MB become the limit and a mark."""
    hand("billing.paid", hand.step, {"text": "x" * 6_000_000})
    (found,) = logged(hand)
    attributes = dict(found.log_record.attributes or {})
    assert len(str(attributes["flow.payload"])) < 9000 and attributes["flow.payload.truncated"] is True
