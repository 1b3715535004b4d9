"""W1-W5 and W7: what a step, a branch, a pause and an event cost, off and journaled, beside the bare limits.

Run ``python -m benchmarks.core_workloads [--json FILE] [W1 W2 …]``. Every workload runs in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.flows import NoopSink, chain_flow, fan_flow, journaled, nap_flow, plain
from benchmarks.harness import (
    Figure,
    figure,
    measure,
    measure_async,
    peak_rss_mb,
    rate,
    reset_peak,
    table,
)
from benchmarks.pause_workloads import parked_branches, w4, w7
from flowdeck.events import EventCenter
from flowdeck.events.ids import new_id
from flowdeck.events.lineage import Fragment, RunContext
from flowdeck.execution.services import Services
from flowdeck.triggerflow import TriggerFlow

STATIC = Fragment(
    {
        "chunk_id": "chunk-0123456789abcdef",
        "chunk_name": "classify_document",
        "operator_kind": "chunk",
        "trigger_event": "Chunk[fetch]-chunk-fedcba9876543210",
        "trigger_type": "event",
    }
)
OUTPUT = {"title": "Quarterly report", "risk": "medium", "score": 0.82, "tags": ["finance", "q3", "review"]}


def chunk_events(center: EventCenter) -> Callable[[], None]:
    """Return an emit of the two events of one step, as the driver makes them: about 870 bytes each on the wire."""
    started, completed = center.type("chunk.started"), center.type("chunk.completed")
    root = RunContext.create(run_kind="workflow_execution", execution_id=new_id(), meta={"flow_name": "review"})
    attempt = RunContext.attempt
    scope = "for_each[3]/classify_document"

    def emit() -> None:
        run = attempt(root, "chunk_execution", STATIC)
        head = {"signal_id": "s6", "status": "running", "input": "document-17", "signal_source": "chunk"}
        started.emit(head, STATIC, run, 1, 13, 0, scope, 12, 1)
        tail = {"signal_id": "s6", "status": "completed", "output": OUTPUT, "returned_pause_signal": False}
        completed.emit(tail, STATIC, run, 1, 14, 0, scope, 13, 1, 2)

    return emit


async def bare(value: Any) -> Any:
    return value


def w1() -> list[Figure]:
    """20-step linear chain, us per step."""
    flow = chain_flow()

    async def bare_chain() -> None:
        value: Any = 1
        for _ in range(20):
            value = await bare(value)

    async def main() -> list[Figure]:
        limit = figure("bare await", await measure_async(bare_chain, 2000), 20)
        off = plain()
        out = [limit]
        seconds = await measure_async(lambda: flow.async_start(1, services=off), 300)
        out.append(figure("W1 off", seconds, 20, target=4, limit=limit.median))
        noop = plain()
        noop.center.add_sink(NoopSink())
        seconds = await measure_async(lambda: flow.async_start(1, services=noop), 200)
        out.append(figure("W1 no-op sink", seconds, 20, limit=limit.median))
        with tempfile.TemporaryDirectory() as folder:
            services, sink = journaled(folder)
            seconds = await measure_async(lambda: flow.async_start(1, services=services), 200)
            out.append(figure("W1 journaled", seconds, 20, target=15, limit=limit.median))
            sink.close(10)

        return out

    return asyncio.run(main())


def w2() -> list[Figure]:
    """for_each fan-out and join, us per branch."""
    flow = fan_flow()

    async def main() -> list[Figure]:
        out = []
        for n, inner in ((100, 30), (1_000, 5), (10_000, 1)):
            items = list(range(n))

            async def gather(items: list[int] = items) -> None:
                await asyncio.gather(*[bare(i) for i in items])

            limit = figure(f"bare gather {n:,}", await measure_async(gather, inner), n)
            off = plain()
            seconds = await measure_async(lambda off=off, items=items: flow.async_start(items, services=off), inner)
            out += [limit, figure(f"W2 off {n:,}", seconds, n, target=15, limit=limit.median)]
            with tempfile.TemporaryDirectory() as folder:
                services, sink = journaled(folder)
                seconds = await measure_async(
                    lambda services=services, items=items: flow.async_start(items, services=services), inner
                )
                out.append(figure(f"W2 journaled {n:,}", seconds, n, target=25, limit=limit.median))
                sink.close(10)

        return out

    return asyncio.run(main())


async def crowd(flow: TriggerFlow, services: Services) -> None:
    await asyncio.gather(*[flow.async_start(i, services=services) for i in range(1_000)])


def w3() -> list[Figure]:
    """1,000 executions of 10 steps that sleep 1 ms: CPU seconds and growth of the resident size."""
    flow = nap_flow()

    async def bare_crowd() -> None:
        async def one() -> None:
            for _ in range(10):
                await asyncio.sleep(0.001)

        await asyncio.gather(*[one() for _ in range(1_000)])

    async def main() -> list[Figure]:
        limit = figure("bare asyncio", await measure_async(bare_crowd, 1), 1, "s")
        off = plain()
        gc.collect()
        reset_peak()
        before = peak_rss_mb()
        seconds = await measure_async(lambda: crowd(flow, off), 1)
        grown = peak_rss_mb() - before
        return [
            limit,
            figure("W3 off", seconds, 1, "s", target=0.15, limit=limit.median),
            Figure("W3 off RSS growth", grown, grown, grown, "MB", 8),
        ]

    return asyncio.run(main())


def w3_journaled() -> list[Figure]:
    """The same with every INFO event in the journal; in a process of its own, or its growth would hide in W3's."""
    flow = nap_flow()

    async def main() -> list[Figure]:
        with tempfile.TemporaryDirectory() as folder:
            services, sink = journaled(folder)
            gc.collect()
            reset_peak()
            before = peak_rss_mb()
            seconds = await measure_async(lambda: crowd(flow, services), 1)
            grown = peak_rss_mb() - before
            sink.close(10)
            return [
                figure("W3 journaled", seconds, 1, "s", target=0.3),
                Figure("W3 journaled RSS growth", grown, grown, grown, "MB", 12),
            ]

    return asyncio.run(main())


def w5() -> list[Figure]:
    """Events per CPU second: one no-op sink, and into the journal until it is on disk."""
    center = EventCenter()
    center.add_sink(NoopSink())
    emit = chunk_events(center)

    def burst() -> None:
        for _ in range(1_000):
            emit()

    out = [rate("W5 one no-op sink", measure(burst, 30), 2_000, target=1_000_000)]
    with tempfile.TemporaryDirectory() as folder:
        from flowdeck_sinks.journal import JournalSink

        center = EventCenter()
        sink = JournalSink(folder, lossless=True, publish=False)
        center.add_sink(sink)
        emit = chunk_events(center)

        def journal() -> None:
            for _ in range(10_000):
                emit()

            sink.flush(30)

        out.append(rate("W5 journaled (all threads)", measure(journal, 1), 20_000, target=200_000))
        app: list[float] = []
        for _ in range(7):
            begun = time.thread_time()
            for _ in range(3_000):  # less than the queue holds: the emitting thread never waits
                emit()

            app.append(time.thread_time() - begun)
            sink.flush(30)

        out.append(figure("W5 app thread per journaled event", app, 6_000, target=3))
        sink.close(30)

    return out


WORKLOADS: dict[str, Callable[[], list[Figure]]] = {
    "W1": w1,
    "W2": w2,
    "W3": w3,
    "W3J": w3_journaled,
    "W4": w4,
    "W5": w5,
    "W7": w7,
    "PARKED": parked_branches,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="W", help=f"any of {', '.join(WORKLOADS)}; all by default")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps([asdict(f) for f in WORKLOADS[options.one]()]))
        return 0

    figures: list[Figure] = []
    for name in options.workloads or WORKLOADS:
        print(f"{name} …", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.core_workloads", "--one", name], capture_output=True, text=True
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return 1

        figures += [Figure(**row) for row in json.loads(done.stdout.splitlines()[-1])]

    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps([asdict(f) for f in figures], indent=1))

    return 0


if __name__ == "__main__":
    sys.exit(main())
