"""The hand-written OTLP bytes against the official encoder."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from flowdeck_sinks.otlp.wire import encode_log, encode_request, encode_resource, encode_scope, encode_span

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)
PLAIN = st.one_of(
    TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.binary(max_size=99)
)
VALUES = st.one_of(PLAIN, st.lists(st.integers(0, 5000), max_size=4), st.lists(TEXT, max_size=3))
ATTRIBUTES = st.dictionaries(TEXT.filter(bool), VALUES, max_size=12)
IDS = st.integers(1, 2**64 - 1)
TIMES = st.integers(0, 2**63)
CONTEXTS = st.builds(
    SpanContext, st.integers(1, 2**128 - 1), IDS, st.booleans(), st.just(TraceFlags(TraceFlags.SAMPLED))
)
SPANS = st.builds(
    ReadableSpan,
    name=TEXT,
    context=CONTEXTS,
    parent=st.none() | CONTEXTS,
    resource=st.just(Resource({"service.name": "audit", "n": 7}, "https://example.test/schema")),
    attributes=ATTRIBUTES,
    events=st.lists(st.builds(Event, TEXT, ATTRIBUTES, TIMES), max_size=3),
    links=st.lists(st.builds(Link, CONTEXTS, ATTRIBUTES), max_size=3),
    kind=st.sampled_from(SpanKind),
    status=st.builds(Status, st.just(StatusCode.ERROR), st.none() | TEXT) | st.just(Status()),
    start_time=TIMES,
    end_time=TIMES,
    instrumentation_scope=st.just(InstrumentationScope("flowdeck.observation", "1.0", "https://example.test/scope")),
)


def request_of(spans: list[ReadableSpan]) -> bytes:
    first = spans[0]
    return encode_request(
        [
            (
                encode_resource(first.resource),
                encode_scope(first.instrumentation_scope),
                [encode_span(span) for span in spans],
            )
        ]
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(SPANS, min_size=1, max_size=4))
def test_spans_like_the_official_encoder(spans: list[ReadableSpan]) -> None:
    """Whatever a span holds, the bytes mean what the official encoder would have said."""
    assert ExportTraceServiceRequest.FromString(request_of(spans)) == encode_spans(spans)


@settings(max_examples=50, deadline=None)
@given(TEXT, ATTRIBUTES, TIMES)
def test_logs_like_the_official_encoder(body: str, attributes: dict[str, Any], time: int) -> None:
    """A log record, with its span and event name, reads like the official encoder's."""
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.sdk._logs import ReadableLogRecord

    record = LogRecord(
        timestamp=time,
        observed_timestamp=time + 1,
        severity_number=SeverityNumber.WARN,
        severity_text="WARNING",
        body=body,
        attributes=attributes,
        event_name="triggerflow.result_set",
    )
    record.trace_id, record.span_id, record.trace_flags = 5, 6, TraceFlags(1)
    resource, scope = Resource({"service.name": "audit"}), InstrumentationScope("flowdeck", "1")
    readable = ReadableLogRecord(record, resource, scope)
    ours = encode_request([(encode_resource(resource), encode_scope(scope), [encode_log(record)])])
    assert ExportLogsServiceRequest.FromString(ours) == encode_logs([readable])


def span_with(attributes: dict[str, Any], **fields: Any) -> ReadableSpan:
    given: dict[str, Any] = {"start_time": 1, "end_time": 2, **fields}
    return ReadableSpan(
        name="s", context=SpanContext(1, 2, False), attributes=attributes, resource=Resource({}), **given
    )


def test_what_has_no_wire_form_is_text() -> None:
    """Lone surrogates, numbers beyond 64 bits and foreign objects do not lose the span."""
    span = span_with({"half": "a\ud800b", "huge": 2**80, "vast": 10**5000, "object": object(), "deep": [[["x"]]]})
    request = ExportTraceServiceRequest.FromString(request_of([span]))
    found = {pair.key: pair.value for pair in request.resource_spans[0].scope_spans[0].spans[0].attributes}
    assert found["half"].string_value == "a?b"
    assert found["huge"].string_value == str(2**80)
    assert found["vast"].string_value.startswith("0x")
    assert found["object"].string_value.startswith("<object")


def test_times_before_1970_and_negative_durations_are_zero_or_kept() -> None:
    """A time that does not fit is sent as 0, never refused."""
    span = span_with({}, start_time=-5, end_time=None)
    sent = ExportTraceServiceRequest.FromString(request_of([span])).resource_spans[0].scope_spans[0].spans[0]
    assert (sent.start_time_unix_nano, sent.end_time_unix_nano) == (0, 0)
