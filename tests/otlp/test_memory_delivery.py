"""Memory mode against real receivers: outages, refusals, sizes, ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.otlp.receiver import Answer, grpc_receiver, http_receiver
from tests.otlp.story import Teller, memory_sink, settings

from flowdeck_sinks.otlp.settings import OtlpSettings
from flowdeck_sinks.otlp.sink import OTLPSink


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_spans_arrive_over_http(compression: str) -> None:
    """Every span arrives once, with headers and compression as the variables say."""
    with http_receiver() as receiver:
        sink = memory_sink(
            receiver.url, OTEL_EXPORTER_OTLP_HEADERS="x-key=se%20cret", OTEL_EXPORTER_OTLP_COMPRESSION=compression
        )
        teller = Teller(sink)
        for _ in range(5):
            teller.execution()

        assert sink.flush(10)
        assert len(receiver.copies()) == teller.spans == 20
        assert set(receiver.copies().values()) == {1}
        path, headers, _ = receiver.requests[0]
        assert (path, headers["x-key"]) == ("/v1/traces", "se cret")
        assert headers.get("content-encoding", "none") == compression
        assert receiver.resources[0]["service.name"] == "flowdeck"
        sink.close()


def test_spans_arrive_over_grpc() -> None:
    """With OTEL_EXPORTER_OTLP_PROTOCOL=grpc the same spans arrive over gRPC, headers as metadata."""
    with grpc_receiver() as receiver:
        sink = memory_sink(receiver.url, OTEL_EXPORTER_OTLP_PROTOCOL="grpc", OTEL_EXPORTER_OTLP_HEADERS="x-key=secret")
        teller = Teller(sink)
        for _ in range(5):
            teller.execution()

        assert sink.flush(10)
        assert len(receiver.copies()) == teller.spans
        assert receiver.requests[0][1]["x-key"] == "secret"
        sink.close()


def test_logs_and_metrics_arrive_too() -> None:
    """Without switches all three signals are sent, logs within the trace of their run."""
    with http_receiver() as receiver:
        chosen = OtlpSettings.from_environment(receiver.url, environ={"OTEL_BSP_SCHEDULE_DELAY": "20"})
        sink = OTLPSink(settings=chosen)
        teller = Teller(sink)
        run = teller.execution()
        teller.center.type("triggerflow.result_set").emit({"result": 1}, run=run)
        assert sink.flush(10)
        sink.close()

    assert {metric.name for metric in receiver.metrics} >= {"gen_ai.workflow.duration", "flow.step.duration"}
    roots = [span for span in receiver.spans if not span.parent_span_id]
    set_ = [record for record in receiver.logs if record.event_name == "triggerflow.result_set"]
    assert [record.trace_id for record in set_] == [roots[0].trace_id]


def test_a_collector_without_logs_gets_no_more_logs() -> None:
    """404 for logs, as from Jaeger, ends that signal and disturbs no other."""
    with http_receiver(lambda path, message: Answer(200 if path == "/v1/traces" else 404)) as receiver:
        sink = OTLPSink(settings=OtlpSettings.from_environment(receiver.url, environ={"OTEL_BSP_SCHEDULE_DELAY": "20"}))
        teller = Teller(sink)
        for _ in range(3):
            teller.center.type("triggerflow.result_set").emit({"result": 1}, run=teller.execution())
            assert sink.flush(10)

        assert len(receiver.copies()) == teller.spans
        assert [path for path, _, _ in receiver.requests].count("/v1/logs") == 1
        assert sink.statistics()["failure"] == ""
        assert sink.statistics()["unwanted"] == "logs, metrics"
        sink.close()


def test_an_outage_is_survived() -> None:
    """What is emitted while nobody listens arrives once the collector is there."""
    port = free_port()
    sink = memory_sink(f"http://127.0.0.1:{port}")
    teller = Teller(sink)
    for _ in range(10):
        teller.execution()

    waited = threading.Event()
    while "cannot be reached" not in str(sink.statistics()["failure"]):
        assert not waited.wait(0.01)

    with http_receiver(port=port) as receiver:
        assert sink.flush(20)
        assert len(receiver.copies()) == teller.spans
        assert set(receiver.copies().values()) == {1}
        assert sink.statistics()["failure"] == ""
        sink.close()


def test_retry_after_is_honoured() -> None:
    """A collector that says 429 is asked again after the time it named, not before."""
    times: list[float] = []

    def busy_once(path: str, message: Any) -> Answer:
        times.append(time.monotonic())
        return Answer(429, {"Retry-After": "1"}) if len(times) == 1 else Answer()

    with http_receiver(busy_once) as receiver:
        sink = memory_sink(receiver.url)
        teller = Teller(sink)
        teller.execution()
        assert sink.flush(10)
        assert 0.95 <= times[1] - times[0] < 3
        assert len(receiver.copies()) == teller.spans
        sink.close()


def test_413_splits_the_batch() -> None:
    """A batch that is too large is sent in halves until it fits."""

    def small_only(path: str, message: Any) -> Answer:
        spans = sum(len(scope.spans) for resource in message.resource_spans for scope in resource.scope_spans)
        return Answer(413) if spans > 3 else Answer()

    with http_receiver(small_only) as receiver:
        sink = memory_sink(receiver.url)
        teller = Teller(sink)
        for _ in range(4):
            teller.execution()

        assert sink.flush(10)
        assert len(receiver.copies()) == teller.spans
        assert sink.statistics()["splits"]
        sink.close()


def test_6_mb_of_spans_pass_a_4_mib_receiver() -> None:
    """Batches are split by bytes, so a gRPC receiver with the usual limit takes a large load at once."""
    with grpc_receiver() as receiver:
        sink = memory_sink(
            receiver.url,
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
            OTEL_BSP_SCHEDULE_DELAY="2000",
        )
        teller = Teller(sink)
        for _ in range(30):
            teller.execution(30, flow="f" * 6000)

        assert sink.flush(20)
        assert len(receiver.copies()) == teller.spans
        assert int(sink.statistics()["bytes"]) > 5_000_000
        assert (sink.statistics()["splits"], sink.statistics()["retries"]) == (0, 0)
        sink.close()


@pytest.mark.parametrize("status", [400, 422])
def test_a_refusal_for_good_is_counted_and_does_not_stop_the_rest(status: int) -> None:
    """A 4xx ends the batch, counted with its reason; later batches go on."""
    refused: list[int] = []

    def refuse_first(path: str, message: Any) -> Answer:
        if refused:
            return Answer()

        refused.append(1)
        return Answer(status, {"Content-Type": "text/plain"}, b"bad \x1b[31mdata")

    with http_receiver(refuse_first) as receiver:
        sink = memory_sink(receiver.url)
        teller = Teller(sink)
        teller.execution()
        assert sink.flush(10)
        first = teller.spans
        teller.execution()
        assert sink.flush(10)
        counts = sink.statistics()
        assert (counts["spans_dead"], counts["spans_exported"]) == (first, teller.spans - first)
        assert f"answered {status}: bad" in str(counts["last_refusal"])
        assert "\x1b" not in str(counts["last_refusal"])
        sink.close()


@pytest.mark.parametrize(("status", "hint"), [(401, "401"), (404, "404"), (301, "301")])
def test_a_wrong_address_or_key_is_said_and_loses_nothing(status: int, hint: str) -> None:
    """401, 404 and redirects are the operator's to mend: the spans wait, and statistics say why."""
    with http_receiver(lambda path, message: Answer(status, {"Location": "http://127.0.0.1:9/"})) as receiver:
        sink = memory_sink(receiver.url)
        Teller(sink).execution()
        receiver.wait(lambda: receiver.requests, "a request")
        assert not sink.flush(0.3)
        assert hint in str(sink.statistics()["failure"])
        assert sink.statistics()["spans_queued"] == 4
        sink.close(0.2)
        assert sink.statistics()["spans_dropped"] == 4


def test_partial_success_is_counted() -> None:
    """Spans that the collector took and threw away are counted with its reason."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    body = ExportTraceServiceResponse()
    body.partial_success.rejected_spans = 2
    body.partial_success.error_message = "quota"
    answer = Answer(200, {"Content-Type": "application/x-protobuf"}, body.SerializeToString())
    with http_receiver(lambda path, message: answer) as receiver:
        sink = memory_sink(receiver.url)
        Teller(sink).execution()
        assert sink.flush(10)
        counts = sink.statistics()
        assert (counts["spans_exported"], counts["spans_rejected"], counts["last_refusal"]) == (2, 2, "quota")
        sink.close()


@pytest.mark.parametrize("kind", ["dead", "silent"])
def test_the_end_does_not_wait_for_a_dead_collector(kind: str) -> None:
    """Closing ends within its timeout whether nobody listens or somebody listens and never answers."""
    with http_receiver(lambda path, message: Answer(hang=True)) as receiver:
        url = receiver.url if kind == "silent" else f"http://127.0.0.1:{free_port()}"
        sink = memory_sink(url)
        teller = Teller(sink)
        for _ in range(300):
            teller.execution()

        begun = time.monotonic()
        sink.close(2.0)
        assert time.monotonic() - begun < 3.0
        counts = sink.statistics()
        assert counts["spans_dropped"] == teller.spans
        sink.close(2.0)


def test_a_full_queue_loses_the_oldest_and_says_so() -> None:
    """Memory is bounded: beyond it the oldest spans go, counted and told to the other sinks."""

    class Listener:
        name = "listener"

        def __init__(self) -> None:
            self.told: list[dict[str, Any]] = []

        def accept(self, record: Any) -> None:
            if record.event_type == "sink.dropped":
                self.told.append(record.payload)

        def flush(self, timeout: float) -> bool:
            return True

        def close(self, timeout: float) -> None:
            pass

        def statistics(self) -> dict[str, int | float | str]:
            return {}

    listener = Listener()
    sink = OTLPSink(
        settings=settings(
            f"http://127.0.0.1:{free_port()}", FLOWDECK_OTLP_QUEUE_BYTES="70000", OTEL_BSP_SCHEDULE_DELAY="1"
        )
    )
    teller = Teller(sink, listener)
    for _ in range(200):
        teller.execution()

    sink.flush(0.5)
    counts = sink.statistics()
    assert int(counts["spans_queued"]) + int(counts["spans_dropped"]) == teller.spans
    assert int(counts["queued_bytes"]) <= 70_000
    assert sum(payload["count"] for payload in listener.told) == counts["spans_dropped"]
    sink.close(0.2)


def test_the_variables_can_switch_everything_off() -> None:
    """OTEL_SDK_DISABLED and OTEL_TRACES_EXPORTER=none leave a sink that does nothing."""
    with http_receiver() as receiver:
        for variables in ({"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}):
            sink = memory_sink(receiver.url, **variables)
            Teller(sink).execution()
            assert sink.flush(1)
            assert sink.statistics()["mode"] == "off"
            sink.close()

        assert receiver.requests == []


def test_bad_events_are_counted_and_the_rest_arrives() -> None:
    """Lines that are no events, negative times and unknown types never stop the others."""

    class Raw:
        def __init__(self, encoded: bytes) -> None:
            self.encoded = encoded

    with http_receiver() as receiver:
        sink = memory_sink(receiver.url)
        for line in (
            b"{not json",
            b"[]",
            b'{"event_id":"e1","event_type":"no.such.type","run":{"run_id":"r1"},"timestamp":-5}',
            b'{"event_id":"e2","event_type":"chunk.completed","message":"\xff\xfe","run":{"run_id":"r2",'
            b'"run_kind":"chunk_execution"},"meta":{"duration_us":-7},"timestamp":99999999999999999}',
        ):
            sink.accept(Raw(line))

        teller = Teller(sink)
        teller.execution()
        assert sink.flush(10)
        counts = sink.statistics()
        assert counts["undecodable"] == 2
        names = {span.name for span in receiver.spans}
        assert "invoke_workflow audit" in names
        assert all(span.end_time_unix_nano >= span.start_time_unix_nano for span in receiver.spans)
        sink.close()


def test_a_forked_child_sends_its_own_and_not_its_parents() -> None:
    """After a fork each process sends what it emitted, once."""
    with http_receiver() as receiver:
        sink = memory_sink(receiver.url, OTEL_BSP_SCHEDULE_DELAY="300")
        teller = Teller(sink)
        teller.execution(flow="parent")
        child = os.fork()
        if not child:
            try:
                Teller(sink).execution(flow="child")
                sink.flush(10)
            finally:
                os._exit(0)

        os.waitpid(child, 0)
        assert sink.flush(10)
        sink.close()

    roots = sorted(span.name for span in receiver.spans if not span.parent_span_id)
    assert roots == ["invoke_workflow child", "invoke_workflow parent"]
    assert set(receiver.copies().values()) == {1}


def test_a_worker_process_sends_what_it_holds_at_its_end() -> None:
    """A multiprocessing child ends without atexit; its spans are sent all the same."""
    import multiprocessing

    with http_receiver() as receiver:
        sink = memory_sink(receiver.url, OTEL_BSP_SCHEDULE_DELAY="5000")
        worker = multiprocessing.get_context("fork").Process(target=lambda: Teller(sink).execution() and None)
        worker.start()
        worker.join()
        assert len(receiver.copies()) == 4
        sink.close(1)


@pytest.mark.parametrize(("before", "code"), [("", -signal.SIGTERM), ("signal.signal(signal.SIGTERM, quit)", 7)])
def test_sigterm_sends_what_is_held(before: str, code: int) -> None:
    """With no journal beside it, too; where the application has a handler of its own, that one is called."""
    program = f"""
import signal, sys, time
from tests.otlp.story import Teller, memory_sink
quit = lambda *_: sys.exit(7)
{before}
sink = memory_sink(sys.argv[1], OTEL_BSP_SCHEDULE_DELAY="60000")
Teller(sink).execution()
print("ready", flush=True)
time.sleep(60)
"""
    with http_receiver() as receiver:
        child = subprocess.Popen([sys.executable, "-c", program, receiver.url], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        assert not receiver.copies()
        child.terminate()
        assert child.wait(20) == code
        assert set(receiver.copies().values()) == {1} and len(receiver.copies()) == 4


_BOTH = """
import sys, time
from tests.otlp.story import Teller, memory_sink
from flowdeck_sinks.journal import JournalSink
sinks = [memory_sink(sys.argv[1]), JournalSink(sys.argv[2], wake_seconds=30)]
teller = Teller(*sinks)
sinks[0].attached(teller.center)
teller.execution()
print("ready", flush=True)
"""


def journal_of(store: Path) -> bytes:
    return b"".join(path.read_bytes() for path in (store / "journal").glob("*.jsonl"))


def test_what_a_dead_collector_did_not_take_is_in_the_journal(tmp_path: Path) -> None:
    """An exporter is closed before the files are: what it drops at the end of the process is an event in the store."""
    url = f"http://127.0.0.1:{free_port()}"
    subprocess.run([sys.executable, "-c", _BOTH, url, str(tmp_path / "store")], check=True, timeout=20)
    written = journal_of(tmp_path / "store")
    assert written.count(b'"event_type":"chunk.completed"') == 3
    assert written.count(b'"event_type":"sink.dropped"') == 1
    assert b'"sink":"otlp","count":4' in written and b"the process ended before" in written


def test_a_collector_that_hangs_takes_no_time_of_a_file(tmp_path: Path) -> None:
    """At SIGTERM the journal is written first, and last what the collector did not take, within the two seconds."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        command = [sys.executable, "-c", _BOTH + "time.sleep(60)", url, str(tmp_path / "store")]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        begun = time.monotonic()
        child.terminate()
        assert child.wait(20) == -signal.SIGTERM
        assert time.monotonic() - begun < 6

    written = journal_of(tmp_path / "store")
    assert written.count(b'"event_type":"chunk.completed"') == 3
    assert written.count(b'"event_type":"sink.dropped"') == 1


def test_tls_errors_are_said(tmp_path: Any) -> None:
    """A certificate nobody vouches for is a clear sentence; with OTEL_EXPORTER_OTLP_CERTIFICATE the spans arrive."""
    import ssl

    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(trusted)
    with http_receiver(tls=context) as receiver:
        url = receiver.url.replace("http:", "https:")
        wrong = memory_sink(url)
        Teller(wrong).execution()
        assert not wrong.flush(0.5)
        assert "TLS to https://127.0.0.1" in str(wrong.statistics()["failure"])
        wrong.close(0.2)

        sink = memory_sink(url, OTEL_EXPORTER_OTLP_CERTIFICATE=str(trusted))
        teller = Teller(sink)
        teller.execution()
        assert sink.flush(10)
        assert len(receiver.copies()) == teller.spans
        sink.close()


def test_the_service_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over our defaults."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "audit-service")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=a%2Cb,service.name=loses")
    with http_receiver() as receiver:
        sink = memory_sink(receiver.url)
        Teller(sink).execution(1)
        assert sink.flush(10)
        sink.close()

    assert receiver.resources[0]["service.name"] == "audit-service"
    assert receiver.resources[0]["team"] == "a,b"
