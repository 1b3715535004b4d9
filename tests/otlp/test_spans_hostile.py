"""Input nobody should send: it is mapped or counted, never raised, and what leaves can be encoded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from tests.otlp.hand import Hand, feed, said, wait_lines
from tests.otlp.scenarios import check_invariants, make_mapper

from flowdeck_sinks.otlp.content import Capture, Limits
from flowdeck_sinks.otlp.mapper import SpanMapper
from flowdeck_sinks.otlp.reading import decode_event

STEP = {"run_kind": "chunk_execution"}
FLOW = {"run_id": "h", "run_kind": "workflow_execution"}
HOSTILE: list[dict[str, Any]] = [
    {"event_type": "no.such.event"},
    {"event_type": "chunk.completed", "run": {"run_id": ""}, "timestamp": 5},
    {"event_type": "chunk.started", "payload": [1], "run": {"run_id": "a", **STEP}},
    {"event_type": "chunk.started", "timestamp": -5, "run": {"run_id": "b", **STEP}},
    {"event_type": "chunk.completed", "timestamp": 2**62, "run": {"run_id": "c", **STEP}},
    {
        "event_type": "chunk.failed",
        "timestamp": 1,
        "error": {"message": "\udc80 half"},
        "run": {"run_id": "d", "root_run_id": "c", "meta": {"chunk_name": ["odd"], "flow_name": {}}, **STEP},
    },
    {"event_type": "x" * 5000, "message": "m" * 99999, "run": {"run_id": "e", "parent_run_id": "e"}},
    {"event_type": "y", "run": {"run_id": "f", "parent_run_id": "g", "root_run_id": "f"}},
    {"event_type": "y", "run": {"run_id": "g", "parent_run_id": "f", "root_run_id": "f"}},
    {
        "event_type": "triggerflow.execution_resumed",
        "payload": {"interrupts": [None, 3, {"id": 4}], "paused_at": "x"},
        "run": FLOW,
    },
    {
        "event_type": "triggerflow.interrupt_raised",
        "payload": {"interrupt": {"id": "q", "created_at": "never"}},
        "run": FLOW,
    },
    {
        "event_type": "chunk.completed",
        "meta": {"duration_us": -7},
        "timestamp": 9,
        "run": {"run_id": "i", "meta": {"traceparent": 7}, **STEP},
    },
    {
        "event_type": "model.meta",
        "payload": {"meta": {"usage": {"input_tokens": "many", "output_tokens": True}}},
        "run": {"run_id": "j", "run_kind": "model_request"},
    },
    {
        "event_type": "action.started",
        "payload": {"action_name": 5, "command": [1, 2]},
        "run": {"run_id": "k", "run_kind": "action"},
    },
]


def test_hostile_events_are_mapped_or_counted() -> None:
    """Wrong types, times beyond all clocks, half characters, cycles, negative durations: spans that encode."""
    mapper = make_mapper()
    spans = feed(mapper, [{"event_id": str(number), **row} for number, row in enumerate(HOSTILE)])
    check_invariants(spans)
    encode_spans(spans).SerializeToString()
    counted = mapper.statistics()
    assert counted["bad_events"] == 0 and counted["unknown_types"] == 3
    assert counted["bad_times"] >= 2 and counted["negative_durations"] == 1
    assert max(len(span.name) for span in spans) < 300


def test_bytes_that_are_not_utf_8() -> None:
    """A line with a broken byte in its text is read with a replacement mark; a torn line is a ValueError."""
    line = json.dumps(wait_lines(1)[0]).encode().replace(b'"f"', b'"\xff\xfe"')
    event = decode_event(line)
    assert event.run is not None and event.run.meta["flow_name"] == "��"
    spans = [*make_mapper().feed(event)]
    assert spans == []
    for torn in (line[:50], b"", b"null", b"[]", b'{"event_id": 1}'):
        with pytest.raises(ValueError, match="."):
            decode_event(torn)


def test_a_payload_of_six_megabytes(hand: Hand) -> None:
    """It is cut to the limit with a mark; the span stays small and the text valid."""
    big = "é" * 3_000_000
    hand("chunk.completed", hand.step, {"status": "completed", "output": big}, meta={"attempt": 1})
    span = hand.spans()["step work"]
    value = said(span)["output.value"]
    assert len(value) < 9000 and value.startswith('"éé') and "bytes in all" in value
    assert said(span)["output.value.truncated"] is True
    assert len(encode_spans([span]).SerializeToString()) < 20_000


def test_a_payload_the_store_keeps_as_a_blob(hand: Hand) -> None:
    """Its preview is the content, its digest the reference."""
    row = wait_lines(1)[1] | {"payload": {"$blob": "ab" * 32, "size": 300_000, "preview": '{"input":"aaa'}}
    spans = feed(make_mapper(), [row])
    step = next(span for span in spans if span.name == "step ask")
    assert said(step)["flow.input.blob"] == "ab" * 32
    assert said(step)["input.value"] == '{"input":"aaa'


def test_a_resource_always_has_a_service_name() -> None:
    """unknown_service never leaves; what is set stays."""
    for given, wanted in (
        ({}, "flowdeck"),
        ({"service.name": "unknown_service:py"}, "flowdeck"),
        ({"service.name": "a"}, "a"),
    ):
        mapper = SpanMapper(resource=Resource(given), capture=Capture(), limits=Limits())
        assert mapper.resource_of("").attributes["service.name"] == wanted
        assert mapper.resource_of("w9").attributes["service.instance.id"] == "w9"


def test_a_snapshot_of_another_version_is_refused(hand: Hand) -> None:
    """restore() says whether it could be read and changes nothing otherwise."""
    mapper = make_mapper()
    for saved in (b"", b"rubbish", b"\x83" + mapper.snapshot()[1:].replace(b"\xa7version\x01", b"\xa7version\x09")):
        assert make_mapper().restore(saved) is False

    assert make_mapper().restore(mapper.snapshot()) is True


def test_the_limits_of_the_environment() -> None:
    """The span variable wins over the general one; rubbish counts as not set."""
    limits = Limits.from_environment(
        {
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "10",
            "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "20",
            "OTEL_SPAN_EVENT_COUNT_LIMIT": "few",
        }
    )
    assert (limits.value, limits.events) == (20, 128)
