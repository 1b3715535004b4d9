"""What other programs send, as the store shows it: an SDK's spans and logs, once, and the views over them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from tests.otlp.collecting import START_NS, TRACE, collecting, request_of, span

from flowdeck_sinks.collect.intake import Collector
from flowdeck_sinks.otlp.conventions import SCOPE_NAME
from flowdeck_sinks.store import connect

MESSAGES = [{"role": "user", "parts": [{"type": "text", "content": "hello"}]}]
ELSEWHERE = SpanContext(0xABCDEF, 0x1234, is_remote=True, trace_flags=TraceFlags(1))
"""A span of a program that never sends to us."""


def agent_at_work(tracer: Any) -> None:
    """One request of a shop: an agent that asks a model by GenAI, calls a tool, and asks another by OpenInference."""
    with tracer.start_as_current_span("POST /ask", kind=SpanKind.SERVER) as root:
        agent = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "Helper",
            "gen_ai.conversation.id": "talk-1",
        }
        with tracer.start_as_current_span("invoke_agent Helper", attributes=agent):
            model = {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "m-large",
                "gen_ai.usage.input_tokens": 120,
                "gen_ai.usage.output_tokens": 30,
                "gen_ai.response.finish_reasons": ["stop"],
                "gen_ai.input.messages": json.dumps(MESSAGES),
            }
            with tracer.start_as_current_span("chat m-large", kind=SpanKind.CLIENT, attributes=model):
                logging.getLogger("shop").warning("slow model")

            tool = {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": "search",
                "gen_ai.tool.call.arguments": json.dumps({"q": "socks", "api_key": "sk-secret-1"}),
                "url.full": "https://user:sk-secret-2@shop.example/find?token=sk-secret-3&q=socks",
            }
            with tracer.start_as_current_span("execute_tool search", attributes=tool):
                pass

            inference = {
                "openinference.span.kind": "LLM",
                "llm.model_name": "m-small",
                "llm.provider": "local",
                "llm.token_count.prompt": 7,
                "llm.token_count.completion": 3,
                "llm.input_messages.0.message.role": "user",
                "llm.input_messages.0.message.content": "shorter",
                "output.value": "short",
            }
            with tracer.start_as_current_span("LocalLLM", attributes=inference):
                pass

        with (
            pytest.raises(ValueError, match="no such table"),
            tracer.start_as_current_span("db query", links=[Link(root.get_span_context())]),
        ):
            raise ValueError("no such table")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A connection to the store after a shop with the OpenTelemetry SDK has sent to a collector."""
    store = tmp_path_factory.mktemp("shop") / "store"
    resource = Resource.create({"service.name": "shop", "user.id": "ada"})
    with collecting(store, token="a-long-token") as at:
        headers = {"authorization": "Bearer a-long-token"}
        tracing = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(f"{at.server.url}/v1/traces", headers=headers, compression=Compression.Gzip)
        tracing.add_span_processor(BatchSpanProcessor(exporter))
        logs = LoggerProvider(resource=resource)
        logs.add_log_record_processor(
            SimpleLogRecordProcessor(OTLPLogExporter(f"{at.server.url}/v1/logs", headers=headers))
        )
        handler = LoggingHandler(logger_provider=logs)
        logging.getLogger("shop").addHandler(handler)
        try:
            agent_at_work(tracing.get_tracer("shop.app"))
            with tracing.get_tracer("shop.app").start_as_current_span(
                "charge", kind=SpanKind.CONSUMER, context=set_span_in_context(NonRecordingSpan(ELSEWHERE))
            ):
                pass
        finally:
            logging.getLogger("shop").removeHandler(handler)
            tracing.shutdown()
            logs.shutdown()

    with connect(store) as connection:
        yield connection


def test_a_trace_is_a_run_and_its_spans_are_what_they_are_about(shop: Any) -> None:
    """Steps, an agent, models and a tool, each below its parent, in one execution named after the service."""
    found = shop.execute(
        "SELECT s.step_name, s.run_kind, s.status, p.step_name FROM spans s "
        "LEFT JOIN spans p ON p.run_id = s.parent_run_id WHERE s.run_id <> s.root_run_id ORDER BY s.started_at"
    ).fetchall()
    assert found == [
        ("POST /ask", "chunk_execution", "completed", None),
        ("invoke_agent Helper", "agent_turn", "completed", "POST /ask"),
        ("chat m-large", "model_request", "completed", "invoke_agent Helper"),
        ("search", "action", "completed", "invoke_agent Helper"),
        ("LocalLLM", "model_request", "completed", "invoke_agent Helper"),
        ("db query", "chunk_execution", "failed", "POST /ask"),
        ("charge", "chunk_execution", "completed", None),
    ]
    runs = shop.execute(
        "SELECT flow_name, status, user_id, session_id, duration_ms > 0 FROM runs ORDER BY started_at"
    ).fetchall()
    assert runs == [("shop", "completed", "ada", "talk-1", True), ("shop", "completed", "ada", None, True)]


def test_tokens_of_both_conventions_are_in_model_usage(shop: Any) -> None:
    """GenAI's and OpenInference's counts stand beside those of our own models."""
    found = shop.execute(
        "SELECT model, requests, input_tokens, output_tokens FROM model_usage ORDER BY model"
    ).fetchall()
    assert found == [("m-large", 1, 120, 30), ("m-small", 1, 7, 3)]
    prompts = shop.execute(
        "SELECT payload ->> '$.prompt_messages[0].role', payload ->> '$.prompt_messages[0].content' FROM events "
        "WHERE event_type = 'prompt.built' ORDER BY ts"
    ).fetchall()
    assert prompts == [("user", None), ("user", "shorter")]


def test_an_exception_is_an_error_with_its_traceback(shop: Any) -> None:
    """The exception of a failed span is what the errors view shows, and the trace that went on is not failed."""
    ((kind, message, step, traceback),) = shop.execute(
        "SELECT error_type, message, step_name, traceback FROM errors WHERE level = 'ERROR'"
    ).fetchall()
    assert (kind, message, step) == ("ValueError", "no such table", "db query")
    assert "agent_at_work" in traceback


def test_a_log_record_belongs_to_the_span_it_was_written_in(shop: Any) -> None:
    """Its level is its severity, and its run is the span's."""
    found = shop.execute(
        "SELECT e.level, e.message, s.step_name FROM events e JOIN spans s USING (run_id) WHERE event_type = 'otel.log'"
    ).fetchall()
    assert found == [("WARNING", "slow model", "chat m-large")]


def test_links_and_all_attributes_are_kept_and_secrets_are_not(shop: Any) -> None:
    """What the sender said stands in the end event; keys in JSON texts and passwords in addresses are masked."""
    ((linked,),) = shop.execute(
        "SELECT s.step_name FROM events e JOIN spans s ON s.run_id = e.payload ->> '$.otel.links[0].run_id' "
        "WHERE e.event_type = 'chunk.failed'"
    ).fetchall()
    assert linked == "POST /ask"
    ((command, url),) = shop.execute(
        "SELECT s.payload -> '$.command.arguments', e.payload ->> '$.otel.attributes.\"url.full\"' FROM events s "
        "JOIN events e USING (run_id) WHERE s.event_type = 'action.started' AND e.event_type = 'action.completed'"
    ).fetchall()
    assert json.loads(command) == {"q": "socks", "api_key": "[redacted]"}
    assert url == "https://[redacted]@shop.example/find?token=[redacted]&q=socks"
    ((leaks,),) = shop.execute("SELECT count(*) FROM events WHERE payload::VARCHAR LIKE '%sk-secret%'").fetchall()
    assert leaks == 0


def test_spans_out_of_order_and_across_requests_make_the_same_tree(tmp_path: Path) -> None:
    """A child may come before its parent, and the caller after the called: the root's own span decides."""
    collector = Collector(tmp_path / "store")
    called = span(3, 2, name="called", kind=2, status={"code": 2, "message": "bad input"})
    for one in (called, span(1, name="root", end_time_unix_nano=START_NS + 9_000_000), span(2, 1, name="calling")):
        answer = collector.take("trace", "application/x-protobuf", "", request_of(one))
        assert (answer.status, answer.body) == (200, b"")

    collector.close()
    with connect(tmp_path / "store") as store:
        ((status, steps, took),) = store.execute("SELECT status, steps, duration_ms FROM runs").fetchall()
        assert (status, steps, round(took)) == ("completed", 3, 9)
        depths = store.execute(
            "SELECT c.step_name, p.step_name FROM spans c JOIN spans p ON p.run_id = c.parent_run_id "
            "WHERE p.run_id <> p.root_run_id ORDER BY c.step_name"
        ).fetchall()
        assert depths == [("called", "calling"), ("calling", "root")]
        ((message,),) = store.execute("SELECT message FROM errors WHERE NOT propagated").fetchall()
        assert message == "bad input"


def test_flowdecks_own_telemetry_is_left_out_and_the_sender_told(tmp_path: Path) -> None:
    """What a Flowdeck exports is in a store already; with own=True it is taken in like anybody's."""
    body = request_of(span(1), scope=SCOPE_NAME)
    for own, kept in ((False, 0), (True, 1)):
        collector = Collector(tmp_path / str(own), own=own)
        answer = collector.take("trace", "application/x-protobuf", "", body)
        assert (b"own telemetry" in answer.body) is not own
        assert collector.statistics()["spans"] == kept
        collector.close()


def test_messages_told_as_events_and_details_told_as_a_log_are_the_models(tmp_path: Path) -> None:
    """The two older ways to tell a model's messages end in the same prompt and the same usage."""
    model = {"key": "gen_ai.request.model", "value": {"stringValue": "m"}}
    told = [
        {"name": "gen_ai.user.message", "attributes": [{"key": "content", "value": {"stringValue": "ask"}}]},
        {"name": "gen_ai.choice", "attributes": [{"key": "message", "value": {"stringValue": '{"content":"yes"}'}}]},
    ]
    ids = {"traceId": TRACE.hex(), "spanId": "00000000000000AA"}
    times = {"startTimeUnixNano": str(START_NS), "endTimeUnixNano": START_NS + 5_000_000}
    one = {**ids, **times, "name": "chat", "attributes": [model], "events": told, "someday": {"new": True}}
    usage = {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "11"}}
    record = {**ids, "eventName": "gen_ai.client.inference.operation.details", "attributes": [usage, model]}
    collector = Collector(tmp_path / "store")
    for signal, body in (
        ("trace", {"resourceSpans": [{"scopeSpans": [{"spans": [one]}]}]}),
        ("logs", {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}),
    ):
        assert collector.take(signal, "application/json", "", json.dumps(body).encode()).body == b"{}"

    collector.close()
    with connect(tmp_path / "store") as store:
        ((name, kind, model_name, read),) = store.execute(
            "SELECT flow_name, run_kind, model, input_tokens FROM spans WHERE run_kind = 'model_request'"
        ).fetchall()
        assert (name, kind, model_name, read) == ("unknown_service", "model_request", "m", 11)
        ((asked, answered),) = store.execute(
            "SELECT any_value(payload ->> '$.prompt_messages[0].content'), "
            "any_value(payload ->> '$.result[0].message.content') "
            "FROM events WHERE run_id LIKE '00000000000000aa%'"
        ).fetchall()
        assert (asked, answered) == ("ask", "yes")
