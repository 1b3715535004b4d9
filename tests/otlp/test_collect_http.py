"""A collector's door: who may send, what is refused and how, and that a refusal costs nobody else anything."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from tests.e2e.cli_shell import eventually
from tests.otlp.collecting import JSON, START_NS, TRACE, Answered, Collecting, collecting, request_of, rows, span
from tests.sinks.test_journal_faults import break_disk, mend_disk, needs_dev_full

from flowdeck_sinks.collect.decoding import MAX_ITEMS, BadRequest
from flowdeck_sinks.collect.http import CollectError, CollectServer, Limits
from flowdeck_sinks.collect.intake import Collector

TOKEN = "only-for-senders"
MANY = b"\x0a\xe6\xa7\x12\x12\xe2\xa7\x12" + b"\x12\0" * 150_001
"""150,001 empty spans of two bytes."""
MANY_IN_JSON = b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b"0," * MAX_ITEMS + b"0]}]}]}"
QUICK = Limits(connections=4, idle_s=5.0, head_s=0.3, body_s=0.3)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    """A collector with a token, one MiB a request and little patience."""
    store = tmp_path_factory.mktemp("door") / "store"
    with collecting(store, token=TOKEN, limits=QUICK, max_body=1024 * 1024) as running:
        yield running


def in_json(**fields: Any) -> bytes:
    one = {"traceId": TRACE.hex(), "spanId": "00000000000000bb", "name": "j", **fields}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [one]}]}]}).encode()


def patient(at: Collecting, **given: Any) -> Answered:
    """Send until there is room for the connection."""
    return eventually(lambda: answer if (answer := at.post(**given)).status != 503 else None, "room for a connection")  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("status", "says", "given"),
    [
        (401, "token is missing or wrong", {"authorization": None}),
        (401, "token is missing or wrong", {"authorization": "Bearer only-for-sender"}),
        (401, "token is missing or wrong", {"authorization": "Basic only-for-senders"}),
        (403, "web page", {"origin": "https://evil.example"}),
        (404, "/v1/spans is none of", {"path": "/v1/spans"}),
        (405, "takes POST", {"method": "GET"}),
        (415, "text/html", {"content_type": "text/html"}),
        (415, "'br' is not known", {"content_encoding": "br"}),
        (400, "no gzip", {"content_encoding": "gzip"}),
        (400, "cut off", {"content_encoding": "gzip", "body": gzip.compress(b"x" * 5000)[:-9]}),
        (400, "send one stream", {"content_encoding": "gzip", "body": gzip.compress(b"") * 2}),
        (413, "unpacked", {"content_encoding": "deflate", "body": zlib.compress(b"\0" * 2_000_000)}),
        (413, "larger than 1048576", {"body": b"\0" * 1_048_577}),
        (413, f"more than {MAX_ITEMS} spans", {"body": MANY}),
        (413, f"more than {MAX_ITEMS} spans", {"body": b"\x0a\0" * 70_000}),
        (413, f"more than {MAX_ITEMS} spans", {"content_type": JSON, "body": MANY_IN_JSON}),
        (400, "no ExportTraceServiceRequest in protobuf", {"body": b"\x0a\xff\xff\xff"}),
        (400, "no ExportTraceServiceRequest in JSON", {"content_type": JSON, "body": b"{"}),
        (400, "no object", {"content_type": JSON, "body": b"[]"}),
        (400, "not UTF-8", {"content_type": JSON, "body": b'{"a":"\xff"}'}),
        (400, "nested", {"content_type": JSON, "body": b'{"resourceSpans":' + b"[" * 200_000}),
        (400, "in JSON", {"content_type": JSON, "body": in_json(startTimeUnixNano=str(2**64))}),
        (400, "in JSON", {"content_type": JSON, "body": b'{"resourceSpans":{"a":1}}'}),
    ],
)  # fmt: skip
def test_what_is_no_request_gets_one_clear_answer(
    at: Collecting, status: int, says: str, given: dict[str, Any]
) -> None:
    """Each is refused with its status and a sentence, and is not for a sender to repeat."""
    answer = at.post(**{"body": b"xyz", **given})
    assert (answer.status, says in answer.body.decode(errors="replace")) == (status, True), answer
    assert "retry-after" not in answer.headers
    if given.get("content_type") == JSON:
        assert json.loads(answer.body)["code"] in (3, 8)


def test_hostile_spans_are_refused_by_name_or_kept_and_their_neighbours_are_safe(at: Collecting) -> None:
    """Wrong ids are rejected and counted; endless names, times and values are kept as far as they can be told."""
    value: AnyValue = AnyValue(string_value="deep")
    for _ in range(30):
        value = AnyValue(kvlist_value={"values": [KeyValue(key="k", value=value)]})

    hostile = [
        span(1, trace=b"\0" * 16),
        span(2, trace=b"short"),
        span(3, span_id=b"\0" * 8),
        span(4, span_id=b"much too long"),
        span(5, start_time_unix_nano=2**63, end_time_unix_nano=1),
        span(6, name="n\x1b[31m\n" * 50_000),
        span(7, attributes=[KeyValue(key="deep", value=value), KeyValue(key="", value=AnyValue(bytes_value=b"\xff"))]),
        span(8, 8, name="its own parent"),
        span(9, name="", kind=77, status={"code": 99}),
        span(10, events=[{"name": "exception", "attributes": [
            KeyValue(key="exception.message", value=AnyValue(string_value="m" * 200_000)),
            KeyValue(key="exception.type", value=AnyValue(double_value=float("nan")))]}], status={"code": 2}),
        span(11, events=[{}] * (MAX_ITEMS + 1)),
    ]  # fmt: skip
    answer = at.post(body=request_of(*hostile))
    assert answer.status == 200
    rejected, why = answer.partial
    assert rejected == 5
    assert f"more than {MAX_ITEMS} span events" in why
    assert "trace_id is not 16 bytes, or all zero" in why
    assert "span_id is not 8 bytes" in why
    found = at.rows("SELECT step_name FROM spans WHERE run_id <> root_run_id ORDER BY run_id")
    assert len(found) == 6
    name = found[1][0]
    assert len(name) <= 512
    assert name.isprintable()


def test_ten_megabytes_and_lone_surrogates_arrive(tmp_path: Path) -> None:
    """A large value is kept as a blob, whole; half a character becomes readable text."""
    with collecting(tmp_path / "store") as at:
        large = {"key": "large", "value": {"stringValue": "x" * 10_000_000}}
        assert at.post(body=in_json(name="a\ud800b", attributes=[large]), content_type=JSON).body == b"{}"
        ((name, size),) = at.rows(
            "SELECT message, payload ->> '$.\"$blob\"' FROM events WHERE event_type = 'chunk.completed'"
        )
        assert name == r"a\ud800b"
        assert size is not None
        assert sum(file.stat().st_size for file in (tmp_path / "store").rglob("*") if file.is_file()) < 25_000_000


def test_metrics_are_counted_and_said_to_be_left_out(at: Collecting) -> None:
    """A program that sends all three signals goes on; its metrics are refused by name."""
    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add()
    metric.name = "m"
    metric.sum.data_points.add().as_int = 1
    answer = at.post("/v1/metrics", message.SerializeToString())
    said = ExportMetricsServiceResponse.FromString(answer.body).partial_success
    assert (answer.status, said.rejected_data_points, "not stored" in said.error_message) == (200, 1, True)


def test_logs_of_no_span_and_of_wrong_ones(at: Collecting) -> None:
    """A record without a span is an event of no run; one with half an id is refused; equal ones are not lost."""
    message = ExportLogsServiceRequest()
    records = message.resource_logs.add().scope_logs.add().log_records
    for trace in (b"", b"", b"half"):
        records.add(trace_id=trace, time_unix_nano=START_NS, body={"string_value": "hello"}, severity_number=17)

    body = message.SerializeToString()
    for _ in range(2):
        assert at.post("/v1/logs", body).partial[0] == 1

    assert (
        at.rows("SELECT level, message, run_id FROM events WHERE event_type = 'otel.log'")
        == [("ERROR", "hello", None)] * 2
    )


def test_slow_and_broken_clients_are_let_go_while_others_are_served(at: Collecting) -> None:
    """A head or a body that does not come in time is 408, too many connections 503, and health is told throughout."""
    slow = []
    try:
        for sent in (b"POST /v1/tra", b"GARBAGE\r\n\r\n"):
            client = socket.create_connection(("127.0.0.1", at.port), timeout=5)
            client.sendall(sent)
            slow.append(client)

        body = socket.create_connection(("127.0.0.1", at.port), timeout=5)
        slow.append(body)
        head = f"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        body.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        idle = [socket.create_connection(("127.0.0.1", at.port), timeout=5) for _ in range(2)]
        slow += idle
        answers = [client.recv(200).split(b"\r\n")[0] for client in slow[:3]]
        assert answers == [b"HTTP/1.1 408 ", b"HTTP/1.1 400 ", b"HTTP/1.1 408 "]
    finally:
        for client in slow:
            client.close()

    assert patient(at, path="/healthz", method="GET", authorization=None).body == b'{"status":"ok"}'


def test_more_connections_than_the_limit_are_told_to_come_again(tmp_path: Path) -> None:
    """The one too many gets 503 with Retry-After; when another leaves, there is room again."""
    with collecting(tmp_path / "store", limits=Limits(connections=1)) as at:
        with socket.create_connection(("127.0.0.1", at.port), timeout=5) as first:
            first.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert first.recv(100).startswith(b"HTTP/1.1 200")
            refused = at.post(body=request_of(span()))
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")

        assert patient(at, body=request_of(span())).status == 200


def test_without_a_token_only_this_machine_is_let_in(tmp_path: Path) -> None:
    """No token: loopback only, and a name that a web page could have been given is refused."""
    with collecting(tmp_path / "store") as at:
        assert at.post(body=request_of(span()), host="evil.example").status == 403
        assert at.post(body=request_of(span()), host="localhost:1").status == 200
        with pytest.raises(CollectError, match="reachable from other machines"):
            CollectServer(at.server.collector, host="0.0.0.0")


def test_a_delivery_that_comes_again_is_counted_once_also_after_a_restart(tmp_path: Path) -> None:
    """Ids of events are made of the sender's: whatever is repeated is there already."""
    store = tmp_path / "store"
    body = request_of(*(span(number, number - 1) for number in range(1, 6)))
    for times in range(2):
        with collecting(store) as at:
            for _ in range(2):
                assert at.post(body=body).body == b""

            assert at.server.collector.statistics()["duplicates"] == (10 if times else 5)

    assert rows(store, "SELECT count(*), count(DISTINCT event_id) FROM events") == [(12, 12)]


@needs_dev_full
def test_a_full_disk_is_not_acknowledged_and_loses_nothing(tmp_path: Path) -> None:
    """While the disk refuses, senders are told to come again; when they do, each span is there once."""
    with collecting(tmp_path / "store", flush_seconds=0.2) as at:
        assert at.post(body=request_of(span(1))).status == 200
        sink = at.server.collector._sink
        real = break_disk(sink)
        for number in (2, 3):
            refused = at.post(body=request_of(span(number)))
            assert (refused.status, refused.headers["retry-after"]) == (503, "5")

        mend_disk(sink, real)
        assert sink.flush(10)
        for number in (2, 3):
            assert at.post(body=request_of(span(number))).status == 200

    assert rows(
        tmp_path / "store", "SELECT count(*), count(DISTINCT event_id) FROM events WHERE event_type LIKE 'chunk%'"
    ) == [(6, 6)]


def test_a_segment_taken_away_is_not_acknowledged(tmp_path: Path) -> None:
    """What the journal lost is not held for known: it is taken in when it is sent again."""
    collector = Collector(tmp_path / "store")
    body = request_of(span(1))
    collector.take("trace", "application/x-protobuf", "", request_of(span(2)))
    for segment in (tmp_path / "store" / "journal").glob("w*.jsonl"):
        segment.unlink()

    with pytest.raises(BadRequest, match="not lost if it is sent again"):
        collector.take("trace", "application/x-protobuf", "", body)

    assert collector.take("trace", "application/x-protobuf", "", body).status == 200
    collector.close()
    assert rows(
        tmp_path / "store", "SELECT count(DISTINCT event_id) FROM events WHERE event_id LIKE '0000000000000001%'"
    ) == [(4,)]
