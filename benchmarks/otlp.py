"""What exporting costs, and what arrives through an outage; the bare SDK and Logfire beside it in the same run.

Run it with ``python -m benchmarks.otlp`` (about a minute; ``--full`` for 100,000 spans, a 10 s outage and three times
as long; ``--install`` makes what is missing of the peers' environments, see ``benchmarks/peers``). The collector is a
process of its own: its CPU time is not counted. CPU per span covers everything from the event to the answered request:
queueing or reading back, decoding, mapping, encoding, sending, saving the cursor. Of a peer's span it covers making it
and everything up to the answered request; no flow runs there.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, table
from benchmarks.peers import environments
from flowdeck import TriggerFlow, runtime
from flowdeck.layout import Layout
from flowdeck_sinks.otlp.settings import OtlpSettings
from flowdeck_sinks.otlp.store_export import StoreExport

RATE = 5_000
STEPS = 20
PEERS = {"otel_sdk": ("sdk", "the bare SDK"), "logfire": ("logfire", "Logfire")}
SPANS_OTLP = Path(__file__).parent / "peers" / "spans_otlp.py"
TRACES = {"OTEL_LOGS_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}


# -- the collector -----------------------------------------------------------------------------------------------------


def serve(down: float) -> None:
    """Count spans; for ``down`` seconds from the first request on, nobody listens."""
    from tests.otlp.receiver import http_receiver

    with http_receiver() as probe:
        port = probe.port

    print(port, flush=True)
    if down:
        sys.stdin.readline()
        time.sleep(down)

    with http_receiver(port=port) as receiver:
        print("up", flush=True)
        for _ in sys.stdin:
            copies = receiver.copies()
            print(json.dumps([len(copies), sum(copies.values())]), flush=True)


class Collector:
    """The process that :func:`serve` runs in."""

    def __init__(self, down: float = 0.0) -> None:
        command = [sys.executable, "-m", "benchmarks.otlp", "--serve", str(down)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self.url = f"http://127.0.0.1:{int(self._out.readline())}"
        if not down:
            self._out.readline()

    def begin_outage(self) -> None:
        self._say()

    def counted(self) -> tuple[int, int]:
        """Return distinct spans and all spans that arrived."""
        self._say()
        while (line := self._out.readline().strip()) == "up":
            pass

        distinct, received = json.loads(line)
        return distinct, received

    def _say(self) -> None:
        self._in.write("\n")
        self._in.flush()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def collector(down: float = 0.0) -> Iterator[Collector]:
    running = Collector(down)
    try:
        yield running
    finally:
        running.close()


# -- work --------------------------------------------------------------------------------------------------------------


def make_flow() -> TriggerFlow:
    flow = TriggerFlow(name="work")

    async def step(data: Any) -> Any:
        return data.input

    position: Any = flow
    for number in range(STEPS):
        position = position.to((f"step-{number}", step))

    return flow


async def run(flow: TriggerFlow, executions: int, per_second: float = 0.0) -> None:
    """Run executions; at a rate of spans per second when one is given."""
    begun = time.monotonic()
    for number in range(executions):
        await flow.async_start({"number": number, "text": "x" * 100})
        if per_second:
            ahead = begun + (number + 1) * (STEPS + 1) / per_second - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)


def settings(url: str, **variables: str) -> OtlpSettings:
    return OtlpSettings.from_environment(url, environ=variables)


def figure(
    name: str, values: list[float], factor: float, unit: str, *, target: float | None = None, at_least: bool = False
) -> Figure:
    """Return values times ``factor`` as a figure in ``unit``."""
    scaled = sorted((value * factor for value in values), reverse=at_least)
    return Figure(name, statistics.median(scaled), scaled[0], scaled[-1], unit, target, at_least)


# -- figures -----------------------------------------------------------------------------------------------------------


def cost_per_span(flow: TriggerFlow, executions: int, rounds: int) -> list[Figure]:
    """CPU of the exporting side alone: a stored run is read back and exported."""
    with tempfile.TemporaryDirectory() as folder, collector() as target:
        store = Path(folder) / "store"
        with runtime.observe(store):
            asyncio.run(run(flow, executions))

        out: list[Figure] = []
        for name, variables in (("traces alone", TRACES), ("traces, logs and metrics", {})):
            samples = []
            for attempt in range(rounds + 1):
                export = StoreExport(Layout(store), settings(target.url, **variables), name=f"{len(out)}-{attempt}")
                gc.collect()
                begun = time.process_time()
                export.open()
                while export.round():
                    pass

                export.settle()
                export.shut()
                samples.append((time.process_time() - begun) / int(export.statistics()["spans_exported"]))

            out.append(figure(f"OTLP CPU per span, durable, {name}", samples[1:], 1e6, "us", target=45.0))

        return out


def app_thread(flow: TriggerFlow, executions: int, rounds: int) -> list[Figure]:
    """CPU of the thread that runs the flow, per step: journal only, and with the sink beside it."""
    with tempfile.TemporaryDirectory() as folder, collector() as target:
        samples: dict[str, list[float]] = {"journal": [], "journal + otlp durable": [], "journal + otlp memory": []}
        for attempt in range(rounds + 1):
            for name, kept in samples.items():
                os.environ["FLOWDECK_OTLP_MODE"] = "memory" if "memory" in name else "auto"
                otlp = target.url if "otlp" in name else None
                with runtime.observe(Path(folder) / f"{attempt}-{len(kept)}-{name[-7:]}", otlp=otlp):
                    asyncio.run(run(flow, 20))
                    gc.collect()
                    begun = time.thread_time()
                    asyncio.run(run(flow, executions))
                    kept.append((time.thread_time() - begun) / (executions * STEPS))

        os.environ.pop("FLOWDECK_OTLP_MODE", None)

    out = [figure(f"OTLP app thread per step, {name}", kept[1:], 1e6, "us") for name, kept in samples.items()]
    alone = min(samples["journal"][1:])
    for name, kept in samples.items():
        if "otlp" in name:  # the best rounds: what neighbours do to the caches only ever adds
            out.append(
                figure(f"OTLP app thread grows by, {name}", [min(kept[1:]) / alone - 1.0], 100.0, "%", target=10.0)
            )

    return out


def through_an_outage(flow: TriggerFlow, spans: int, down: float) -> list[Figure]:
    """What arrives when the collector is away for the first seconds."""
    executions = spans // (STEPS + 1)
    load = f"{spans / 1000:g} k spans at {RATE / 1000:g} k/s, {down:g} s outage"
    out = []
    for name, target_share in (("durable", 100.0), ("memory", 95.0)):
        with tempfile.TemporaryDirectory() as folder, collector(down) as target:
            os.environ.update(TRACES)
            store = Path(folder) / "store" if name == "durable" else None
            begun = time.process_time()
            with runtime.observe(store, otlp=target.url) as observation:
                target.begin_outage()
                asyncio.run(run(flow, executions, RATE))
                observation.flush(60)

            cpu = time.process_time() - begun
            distinct, received = target.counted()
            sent = executions * (STEPS + 1)
            out.append(
                figure(
                    f"OTLP arrived, {load}, {name}", [distinct / sent], 100.0, "%", target=target_share, at_least=True
                )
            )
            out.append(figure(f"  arrived twice, {name}", [float(received - distinct)], 1.0, "spans"))
            out.append(figure(f"  CPU of the whole program per span, {name}", [cpu / sent], 1e6, "us"))
            for variable in TRACES:
                os.environ.pop(variable)

    peer = "otel_sdk" if environments.ready("otel_sdk") else None  # the SDK is ours, too
    sent = executions * (STEPS + 1)
    with collector(down) as target:
        peer_spans(peer, "sdk", target, "outage", sent, RATE)
        out.append(figure(f"OTLP arrived, {load}, the SDK's batch processor", [target.counted()[0] / sent], 100.0, "%"))

    return out


def peer_spans(peer: str | None, library: str, target: Collector, what: str, *given: float) -> list[str]:
    """Run ``peers/spans_otlp.py`` in a peer's environment, or with our own packages. Returns the lines it printed."""
    python = environments.python_of(peer) if peer else sys.executable
    command = [str(python), str(SPANS_OTLP), library, target.url, what, *map(str, given)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tempfile.gettempdir()
    ) as running:
        assert running.stdin is not None and running.stdout is not None
        if running.stdout.readline() != "ready\n":
            raise RuntimeError(f"{library} did not start")

        if what == "outage":
            target.begin_outage()

        printed, _ = running.communicate("\n")
        return printed.splitlines()


def peers_cost(executions: int, rounds: int) -> list[Figure]:
    """CPU per span of the peers, as many spans as :func:`cost_per_span` exports; all must arrive."""
    out: list[Figure] = []
    for peer, (library, name) in PEERS.items():
        if not environments.ready(peer):
            print(f"left out, not installed: {name} (--install)", file=sys.stderr)
            continue

        with collector() as target:
            lines = peer_spans(peer, library, target, "cost", executions, rounds)
            taken = [json.loads(line) for line in lines][1:]
            arrived = target.counted()[0] / (executions * (rounds + 1) * (STEPS + 1))

        in_all, making = zip(*taken, strict=True)
        out.append(figure(f"OTLP CPU per span, made and exported, {name}", list(in_all), 1e6, "us"))
        out.append(figure(f"  of it in the thread that makes it, {name}", list(making), 1e6, "us"))
        if arrived != 1.0:  # a cost of spans that were dropped would be too good
            out.append(figure(f"  arrived, {name}", [arrived], 100.0, "%"))

    return out


def dead_collector(flow: TriggerFlow) -> list[Figure]:
    """How long the end takes when nobody listens."""
    out = []
    for name in ("durable", "memory"):
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store" if name == "durable" else None
            observation = runtime.observe(store, otlp="http://127.0.0.1:9")
            asyncio.run(run(flow, 100))
            begun = time.monotonic()
            observation.close()
            out.append(
                figure(
                    f"OTLP closing with a dead collector, {name}", [time.monotonic() - begun], 1.0, "s wall", target=5.0
                )
            )

    return out


def main() -> None:
    if "--serve" in sys.argv:
        serve(float(sys.argv[-1]))
        return

    full = "--full" in sys.argv
    flow = make_flow()
    urllib.request.getproxies()  # looked up once per process by every HTTP client; not a cost of spans
    if "--install" in sys.argv:
        for peer in PEERS:
            environments.make(peer)

    figures = cost_per_span(flow, 1_000 if full else 500, 5 if full else 3)
    figures += peers_cost(1_000 if full else 400, 5 if full else 3)
    figures += app_thread(flow, 200, 9 if full else 7)
    figures += dead_collector(flow)
    figures += through_an_outage(flow, 100_000 if full else 20_000, 10.0 if full else 2.0)
    print(table(figures))
    print(f"\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {STEPS} steps per execution")


if __name__ == "__main__":
    main()
