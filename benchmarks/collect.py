"""What receiving costs: CPU per span from the request to the events on disk, beside bare unpacking of the same bytes.

Run it with ``python -m benchmarks.collect`` (about 20 s). Requests are made before, of 500 spans each: those of a web
program (nine attributes) and those of a program with models (messages, usage, a tool). The bare limit is what
``opentelemetry-proto`` alone takes for a request, without looking at any of it. Nothing is published meanwhile.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.harness import Figure, table
from flowdeck_sinks.collect.decoding import PROTOBUF
from flowdeck_sinks.collect.intake import Collector

SPANS = 500
REQUESTS = 20
ROUNDS = 5
START_NS = 1_790_000_000_000_000_000
WEB = {
    "http.request.method": "POST",
    "url.full": "https://shop.example/orders?page=3",
    "http.response.status_code": 200,
    "network.peer.address": "10.0.0.7",
    "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64)",
    "db.system.name": "postgresql",
    "db.query.text": "SELECT * FROM orders WHERE customer = $1 ORDER BY at DESC LIMIT 20",
    "thread.id": 140_232,
    "app.cached": False,
}
MODEL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "m-large",
    "gen_ai.response.model": "m-large-2026",
    "gen_ai.usage.input_tokens": 812,
    "gen_ai.usage.output_tokens": 77,
    "gen_ai.input.messages": json.dumps(
        [{"role": "user", "parts": [{"type": "text", "content": "Which socks are left? " * 20}]}]
    ),
    "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": "Red. " * 40}]}]),
}


def make_requests(attributes: dict[str, object], first: int) -> list[bytes]:
    """Return the bodies of :data:`REQUESTS` requests; every fifth span begins a trace."""
    bodies = []
    for number in range(REQUESTS):
        message = ExportTraceServiceRequest()
        group = message.resource_spans.add()
        service = group.resource.attributes.add()
        service.key, service.value.string_value = "service.name", "shop"
        spans = group.scope_spans.add().spans
        for index in range(SPANS):
            serial = first + number * SPANS + index
            span = spans.add(
                trace_id=(serial // 5 + 1).to_bytes(16, "big"),
                span_id=(serial + 1).to_bytes(8, "big"),
                parent_span_id=b"" if serial % 5 == 0 else serial.to_bytes(8, "big"),
                name="work",
                start_time_unix_nano=START_NS + serial * 1000,
                end_time_unix_nano=START_NS + serial * 1000 + 900,
            )
            for key, value in attributes.items():
                item = span.attributes.add()
                item.key = key
                if isinstance(value, bool):
                    item.value.bool_value = value
                elif isinstance(value, int):
                    item.value.int_value = value
                else:
                    item.value.string_value = str(value)

        bodies.append(message.SerializeToString())

    return bodies


def cpu_per_span(rounds: list[Callable[[], None]]) -> list[float]:
    """Return the microseconds of CPU for one span, per round; all threads of the process count."""
    out = []
    for work in rounds:
        gc.collect()
        begun = time.process_time()
        work()
        out.append((time.process_time() - begun) / (SPANS * REQUESTS) * 1e6)

    return out


def figure(name: str, seconds: list[float], limit: float | None = None) -> Figure:
    return Figure(name, statistics.median(seconds), min(seconds), max(seconds), "us/span", limit=limit)


def main() -> None:
    os.environ["FLOWDECK_PUBLISH"] = "off"
    figures = []
    for kind, attributes in (("web", WEB), ("models", MODEL)):
        batches = [make_requests(attributes, n * SPANS * REQUESTS) for n in range(ROUNDS + 1)]
        with tempfile.TemporaryDirectory() as folder:
            collector = Collector(Path(folder) / "store")

            def take(bodies: list[bytes], to: Collector = collector) -> None:
                for body in bodies:
                    to.take("trace", PROTOBUF, "", body)

            def parse(bodies: list[bytes]) -> None:
                for body in bodies:
                    ExportTraceServiceRequest.FromString(body)

            take(batches[0])
            bare = cpu_per_span([lambda bodies=bodies: parse(bodies) for bodies in batches[1:]])  # type: ignore[misc]
            new = cpu_per_span([lambda bodies=bodies: take(bodies) for bodies in batches[1:]])  # type: ignore[misc]
            again = cpu_per_span([lambda bodies=bodies: take(bodies) for bodies in batches[1:]])  # type: ignore[misc]
            events = collector.statistics()["events"] / (SPANS * REQUESTS * (ROUNDS + 1))
            collector.close()

        limit = statistics.median(bare)
        size = sum(map(len, batches[1])) / (SPANS * REQUESTS)
        figures.append(figure(f"{kind}: {size:.0f} bytes a span, {events:.1f} events", new, limit))
        figures.append(figure(f"{kind}: the same delivered again", again, limit))

    print(table(figures))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"one core takes {1e6 / figures[0].median:,.0f} web spans/s, {1e6 / figures[2].median:,.0f} of models")
    print(f"peak memory {peak:.0f} MiB, the requests included; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
