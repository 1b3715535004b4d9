"""A real OTLP receiver on loopback: HTTP or gRPC, keeps what it gets, and answers as a test tells it to."""

from __future__ import annotations

import gzip
import ssl
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

REQUESTS: dict[str, type[Message]] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
}


class Answer(NamedTuple):
    """What the receiver says to a request."""

    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""
    hang: bool = False
    """Take the request and never answer, until the receiver stops."""


class Receiver:
    """What arrived. ``answer`` decides per request: ``(path, message) -> Answer``; an accepted request is kept."""

    def __init__(self, answer: Callable[[str, Any], Answer] | None = None) -> None:
        self.answer = answer or (lambda path, message: Answer())
        self.port = 0
        self.requests: list[tuple[str, dict[str, str], int]] = []
        self.messages: dict[str, list[Any]] = {path: [] for path in REQUESTS}
        self.changed = threading.Condition()
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[Any]:
        """Every span that was accepted, in order of arrival."""
        with self.changed:
            return [
                span
                for message in self.messages["/v1/traces"]
                for resource in message.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]

    @property
    def resources(self) -> list[dict[str, Any]]:
        """The attributes of the resources of all accepted traces."""
        with self.changed:
            return [
                {pair.key: value_of(pair.value) for pair in resource.resource.attributes}
                for message in self.messages["/v1/traces"]
                for resource in message.resource_spans
            ]

    @property
    def logs(self) -> list[Any]:
        with self.changed:
            return [
                record
                for message in self.messages["/v1/logs"]
                for resource in message.resource_logs
                for scope in resource.scope_logs
                for record in scope.log_records
            ]

    @property
    def metrics(self) -> list[Any]:
        with self.changed:
            return [
                metric
                for message in self.messages["/v1/metrics"]
                for resource in message.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
            ]

    def copies(self) -> Counter[bytes]:
        """How often each span id arrived."""
        return Counter(bytes(span.span_id) for span in self.spans)

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
        """Wait until the condition holds after some request."""
        with self.changed:
            assert self.changed.wait_for(condition, seconds), f"timed out: {what}"

    def take(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        message = REQUESTS[path].FromString(body) if path in REQUESTS else None
        given = self.answer(path, message) if message is not None else Answer(404)
        with self.changed:
            self.requests.append((path, headers, given.status))
            if given.status == 200 and not given.hang and message is not None:
                self.messages[path].append(message)
            self.changed.notify_all()

        if given.hang:
            self.stopping.wait(30)

        return given


def attributes(item: Any) -> dict[str, Any]:
    """Return the attributes of a span, log record, event or link."""
    return {pair.key: value_of(pair.value) for pair in item.attributes}


def value_of(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        encoding = self.headers.get("Content-Encoding", "")
        if encoding == "gzip":
            body = gzip.decompress(body)
        elif encoding == "deflate":
            body = zlib.decompress(body)

        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.receiver.take(self.path, headers, body)
        if answer.hang:
            self.close_connection = True
            return

        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    receiver: Receiver

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away is part of many tests


@contextmanager
def http_receiver(
    answer: Callable[[str, Any], Answer] | None = None,
    *,
    port: int = 0,
    receiver: Receiver | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Receiver]:
    """Run a receiver for OTLP over HTTP; ``receiver`` goes on with one that was stopped."""
    kept = receiver or Receiver(answer)
    kept.stopping = threading.Event()
    server = _Server(("127.0.0.1", port), _Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)

    server.receiver = kept
    kept.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        kept.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def grpc_receiver(
    answer: Callable[[str, Any], Any] | None = None, *, limit: int = 4 * 1024 * 1024
) -> Iterator[Receiver]:
    """Run a receiver for OTLP over gRPC. ``answer`` may return a ``grpc.StatusCode`` to refuse."""
    import grpc

    kept = Receiver()
    refuse = answer or (lambda path, message: None)

    def handler(path: str) -> Any:
        def take(message: Any, context: Any) -> Any:
            code = refuse(path, message)
            if code is not None:
                context.abort(code, "as told")

            headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            with kept.changed:
                kept.requests.append((path, headers, 200))
                kept.messages[path].append(message)
                kept.changed.notify_all()

            return ExportTraceServiceResponse()  # the three responses have the same shape

        return grpc.unary_unary_rpc_method_handler(
            take, request_deserializer=REQUESTS[path].FromString, response_serializer=lambda m: m.SerializeToString()
        )

    server = grpc.server(
        futures.ThreadPoolExecutor(4),
        options=[("grpc.max_receive_message_length", limit), ("grpc.so_reuseport", 0)],
    )
    names = {
        "/v1/traces": "opentelemetry.proto.collector.trace.v1.TraceService",
        "/v1/logs": "opentelemetry.proto.collector.logs.v1.LogsService",
        "/v1/metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    }
    for path, name in names.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": handler(path)}),))

    kept.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield kept
    finally:
        server.stop(None).wait()
