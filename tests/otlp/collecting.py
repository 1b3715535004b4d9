"""A collector to send to: in this process for one test, spans made by hand, and what its store then holds."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from flowdeck_sinks.collect.http import CollectServer, Limits
from flowdeck_sinks.collect.intake import Collector
from flowdeck_sinks.store import query

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
START_NS = 1_790_000_000_123_456_000
TRACE = bytes(range(16))


class Answered(NamedTuple):
    """An answer as a client gets it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def partial(self) -> tuple[int, str]:
        """How many spans were refused, and why."""
        partial = ExportTraceServiceResponse.FromString(self.body).partial_success
        return partial.rejected_spans, partial.error_message


class Collecting:
    """A collector that listens."""

    def __init__(self, server: CollectServer, store: Path, token: str | None) -> None:
        self.server = server
        self.store = store
        self.token = token

    @property
    def port(self) -> int:
        return int(self.server.url.rpartition(":")[2])

    def post(
        self, path: str = "/v1/traces", body: bytes = b"", *, method: str = "POST", **headers: str | None
    ) -> Answered:
        """Send a request on a connection of its own; a header that is ``None`` is left out."""
        given = {"content_type": PROTOBUF, "authorization": f"Bearer {self.token}" if self.token else None, **headers}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            sent = {name.replace("_", "-"): value for name, value in given.items() if value is not None}
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answered(response.status, found, response.read())
        finally:
            connection.close()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query of the store."""
        return rows(self.store, sql)


def rows(store: Path, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a query of a store."""
    return [tuple(row) for row in query(store, sql).rows]


@contextmanager
def collecting(
    store: Path, *, token: str | None = None, limits: Limits | None = None, **options: Any
) -> Iterator[Collecting]:
    """Run a collector on a thread, on a free port."""
    collector = Collector(store, **options)
    server = CollectServer(collector, port=0, token=token, limits=limits)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield Collecting(server, store, token)
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
        collector.close()


def span(number: int = 1, parent: int = 0, *, trace: bytes = TRACE, name: str = "work", **fields: Any) -> Span:
    """A span of one millisecond; ``number`` and ``parent`` are its ids."""
    fields.setdefault("start_time_unix_nano", START_NS + number * 1000)
    fields.setdefault("end_time_unix_nano", START_NS + number * 1000 + 1_000_000)
    above = parent.to_bytes(8, "big") if parent else b""
    fields.setdefault("span_id", number.to_bytes(8, "big"))
    return Span(trace_id=trace, parent_span_id=above, name=name, **fields)


def request_of(*spans: Span, service: str = "shop", scope: str = "by.hand") -> bytes:
    """The body of a request with these spans."""
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    name = group.resource.attributes.add()
    name.key, name.value.string_value = "service.name", service
    part = group.scope_spans.add()
    part.scope.name = scope
    part.spans.extend(spans)
    return message.SerializeToString()
