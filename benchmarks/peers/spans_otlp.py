"""Spans of the bare OpenTelemetry SDK and of Logfire, sent by OTLP; ``benchmarks/otlp.py`` runs it in their own Python.

``spans_otlp.py sdk|logfire URL cost TRACES ROUNDS`` prints CPU seconds per span, one JSON list per round: of all
threads, and of the thread that makes the spans alone. ``spans_otlp.py sdk|logfire URL outage SPANS RATE`` makes spans
at a rate per second. Both say ``ready``, wait for a line, and have sent what they could when they end. Nothing goes
anywhere but to URL. Spans are like ours: traces of a root and 20 steps, 15 attributes each.
"""

import gc
import json
import logging
import sys
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor

STEPS = 20
AT_ONCE = 40
"""Traces between two flushes: 840 spans, less than the queue of 2,048 holds, so that none is dropped."""
ATTRIBUTES = {
    "openinference.span.kind": "CHAIN",
    "flow.run.kind": "chunk_execution",
    "flow.name": "work",
    "flow.step.id": "chunk-b0109527ac276bf3",
    "graph.node.id": "chunk-b0109527ac276bf3",
    "flow.step.name": "step-1",
    "graph.node.name": "step-1",
    "flow.step.kind": "chunk",
    "flow.run.id": "1a1ff209262260417f17550000000008",
    "flow.execution.id": "1a1ff209262260417f17550000000001",
    "flow.step.attempt": 1,
    "flow.step.scope": "step-1",
    "graph.node.parent_id": "chunk-5f7f11e4c43855d6",
    "flow.duration_us": 29,
    "flow.outcome": "success",
}


def sdk(processor):
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("benchmark")
    return lambda name, attributes: tracer.start_as_current_span(name, attributes=attributes)


def with_logfire(processor):
    import logfire

    logfire.configure(
        send_to_logfire=False,
        console=False,
        metrics=False,
        service_name="benchmark",
        additional_span_processors=[processor],
    )
    return lambda name, attributes: logfire.span(name, **attributes)


def cost(span, processor, traces, rounds):
    def trace():
        with span("work", ATTRIBUTES):
            for number in range(STEPS):
                with span(f"step-{number}", ATTRIBUTES):
                    pass

    for _ in range(rounds + 1):
        gc.collect()
        begun, making = time.process_time(), 0.0
        for _ in range(0, traces, AT_ONCE):
            at = time.thread_time()
            for _ in range(AT_ONCE):
                trace()

            making += time.thread_time() - at
            processor.force_flush(60_000)

        spans = traces * (STEPS + 1)
        print(json.dumps([(time.process_time() - begun) / spans, making / spans]), flush=True)


def outage(span, spans, rate):
    begun = time.monotonic()
    for number in range(spans):
        with span("step", ATTRIBUTES):
            pass

        if number % 100 == 0:
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))


def main():
    logging.disable(logging.CRITICAL)  # both tell of every request that fails
    who, url, what, *given = sys.argv[1:]
    processor = BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces"))
    span = (sdk if who == "sdk" else with_logfire)(processor)
    print("ready", flush=True)
    sys.stdin.readline()
    if what == "cost":
        cost(span, processor, int(given[0]), int(given[1]))
    else:
        outage(span, int(given[0]), float(given[1]))

    processor.force_flush(60_000)
    processor.shutdown()


main()
