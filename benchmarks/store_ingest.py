"""What it costs to bring events to disk, to another process, and into Parquet.

    python -m benchmarks.store_ingest [--seconds 10] [--json FILE]

========  =============================================================================================================
burst     events/s of CPU, emitting until on disk, one process; the limit is one write(2) of the same bytes
paced     20,000 events/s for ``--seconds``: drops, and how far the disk is behind
idle      CPU beside the emitting thread at 2,000 events/s, per event
latency   emit until a byte tail in another process has the line, while 2,000 events/s are written
sql       emit until a query in another process returns it, polling without pause, while 500, 1,000 and 2,000 events/s
          are written and the publisher works; beside it the bare scan: what one such query takes
publish   CPU per event from journal to Parquet, and bytes per event of parts and of a compacted day
peer      ingest of agently-devtools' server: events/s, and CPU of the server per event (installed on first use)
========  =============================================================================================================

Payloads are those of :mod:`benchmarks.store_make`: about 1,000 bytes of JSON an event. CPU time, except where a rate or
a latency is the figure; the load average stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Target, judged, table
from benchmarks.store_make import lines_select, prepared
from flowdeck.events import EventCenter, Fragment, RunContext
from flowdeck.layout import Layout
from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.store import JournalTail, connect
from flowdeck_sinks.store._duckdb import require_duckdb
from flowdeck_sinks.store._keeping import Timing
from flowdeck_sinks.store.compaction import compact
from flowdeck_sinks.store.publisher import publish

AT_ONCE = Timing(visible_after_ms=0, keep_ms=0)
TARGETS = {
    "burst events_per_cpu_s": Target("journal: encoded events, queued until on disk", "/s", 200_000, True),
    "emit emit_events_per_cpu_s": Target("journal: emit until on disk", "/s", 200_000, True),
    "paced written_percent": Target("journal: written of 20,000 events/s", "%", 100, True),
    "idle background_us": Target("journal: CPU beside the emitting thread, 2,000 events/s", "us", 6),
    "latency tail_p50_ms": Target("emit -> tail in another process, p50", "ms", 30),
    "latency tail_p99_ms": Target("emit -> tail in another process, p99", "ms", 250),
    "sql 1000 p50_ms": Target("emit -> SQL in another process, 1,000 events/s, p50", "ms", 30),
    "sql 1000 p99_ms": Target("emit -> SQL in another process, 1,000 events/s, p99", "ms", 250),
    "publish day_bytes_per_event": Target("bytes per event in Parquet, a merged day", "B", 150),
}
"""Figures that have a target, by the part that measures them."""


class Line:
    """A record that is already encoded."""

    __slots__ = ("encoded", "event_type")

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded
        self.event_type = "bench.event"


def lines(count: int) -> list[Line]:
    """Return realistic events, encoded, without their number."""
    connection = prepared(require_duckdb(), seed=1)
    until = time.time_ns() // 1000
    select = lines_select(0, count, executions=max(1, count // 20), until_us=until, span_us=3_600_000_000, seed=1)
    target = Path(tempfile.mkdtemp()) / "lines.jsonl"
    connection.execute(f"COPY (SELECT * EXCLUDE (wseq, filename) FROM ({select})) TO '{target}' (FORMAT json)")
    found = [Line(line) for line in target.read_bytes().splitlines()]
    target.unlink()
    return found


def burst(records: list[Line]) -> dict[str, float]:
    """Emit as fast as possible until everything is on disk; beside it the bare write of the same bytes."""
    rates, bare, app = [], [], []
    size = sum(len(record.encoded) for record in records)
    for _ in range(5):
        with tempfile.TemporaryDirectory() as directory:
            sink = JournalSink(f"{directory}/s", queue_bytes=2 * size, publish=False)
            begun, thread = time.process_time(), time.thread_time()
            accept = sink.accept
            for record in records:
                accept(record)
            app.append((time.thread_time() - thread) / len(records))
            sink.flush(60)
            rates.append(len(records) / (time.process_time() - begun))
            sink.close()
            data = b"\n".join(record.encoded for record in records)
            begun = time.process_time()
            descriptor = os.open(f"{directory}/bare", os.O_WRONLY | os.O_CREAT)
            for start in range(0, len(data), 1 << 20):
                os.write(descriptor, data[start : start + (1 << 20)])
            os.close(descriptor)
            bare.append(len(records) / (time.process_time() - begun))
    return {
        "events_per_cpu_s": statistics.median(rates),
        "bare_write_events_per_cpu_s": statistics.median(bare),
        "ratio": statistics.median(bare) / statistics.median(rates),
        "app_us": statistics.median(app) * 1e6,
    }


def real_burst(count: int) -> dict[str, float]:
    """The same from ``emit`` on: records built, redacted and encoded, two kinds of event in turn."""
    center = EventCenter()
    rates = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as directory:
            sink = JournalSink(f"{directory}/s", queue_bytes=1 << 30, publish=False)
            center.add_sink(sink)
            run = RunContext.create(run_kind="workflow_execution", execution_id="e", meta={"flow_name": "bench"})
            static = Fragment({"flow_name": "bench", "chunk_name": "a", "chunk_id": "op-a"})
            chunk = RunContext.attempt(run, "chunk_execution", static)
            started, completed = center.type("chunk.started"), center.type("chunk.completed")
            note = "word " * 60
            begun = time.process_time()
            for n in range(0, count, 2):
                started.emit({"status": "running", "input": {"n": n, "note": note}}, run=chunk, epoch=1, seq=n + 1)
                completed.emit({"status": "completed", "output": {"n": n, "note": note}}, run=chunk, epoch=1, seq=n + 2)
            sink.flush(60)
            rates.append(count / (time.process_time() - begun))
            center.remove_sink(sink)
            sink.close()
    return {"emit_events_per_cpu_s": statistics.median(rates)}


def paced(records: list[Line], per_second: int, seconds: float) -> dict[str, float]:
    """Emit at a steady rate; return drops, lag at the end and CPU beside the emitting thread."""
    with tempfile.TemporaryDirectory() as directory:
        sink = JournalSink(f"{directory}/s", publish=False)
        begun, cpu, thread = time.monotonic(), time.process_time(), time.thread_time()
        sent, total = 0, int(per_second * seconds)
        worst = 0.0
        while sent < total:
            due = min(total, int((time.monotonic() - begun) * per_second))
            for n in range(sent, due):
                sink.accept(records[n % len(records)])
            sent = due
            worst = max(worst, float(sink.statistics()["queued_bytes"]))
            time.sleep(0.005)
        flushing = time.monotonic()
        sink.flush(60)
        lag = time.monotonic() - flushing
        beside = (time.process_time() - cpu) - (time.thread_time() - thread)
        wall = time.monotonic() - begun
        dropped = float(sink.statistics()["dropped"])
        sink.close()
    return {
        "events_per_s": total / wall,
        "dropped": dropped,
        "written_percent": 100 * (1 - dropped / total),
        "most_queued_kb": worst / 1024,
        "flush_at_end_ms": lag * 1e3,
        "background_us": beside / total * 1e6,
    }


def latency(records: list[Line], seconds: float) -> dict[str, float]:
    """Measure emit until another process's tail returned the line."""
    with tempfile.TemporaryDirectory() as directory:
        store = f"{directory}/s"
        Layout.create(store)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            _watch(store, writing, seconds + 1)
            os._exit(0)

        os.close(writing)
        sink = JournalSink(store, publish=False)
        begun = time.monotonic()
        sent = 0
        while time.monotonic() - begun < seconds:
            for _ in range(10):
                sink.accept(records[sent % len(records)])
                sent += 1
            stamp = b'{"event_id":"probe","event_type":"probe","at":%d}' % time.monotonic_ns()
            sink.accept(Line(stamp))
            time.sleep(0.005)
        sink.close()
        with os.fdopen(reading) as pipe:
            delays = sorted(json.loads(pipe.read()))
        os.waitpid(child, 0)
    return {
        "tail_p50_ms": delays[len(delays) // 2],
        "tail_p99_ms": delays[int(len(delays) * 0.99)],
        "probes": float(len(delays)),
    }


def sql_latency(records: list[Line], per_second: int, seconds: float) -> dict[str, float]:
    """Measure emit until a query of another process returned the event, the publisher at work."""
    with tempfile.TemporaryDirectory() as directory:
        store = f"{directory}/s"
        Layout.create(store)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            _ask(store, writing, seconds + 1)
            os._exit(0)

        os.close(writing)
        sink = JournalSink(store)
        begun = time.monotonic()
        sent = probes = 0
        while (passed := time.monotonic() - begun) < seconds:
            for _ in range(sent, int(passed * per_second)):
                sink.accept(records[sent % len(records)])
                sent += 1
            at, now = time.monotonic_ns(), time.time_ns() // 1_000_000
            probe = {"event_id": f"p{at}", "event_type": "probe", "payload": {"at": at}, "timestamp": now}
            sink.accept(Line(json.dumps(probe).encode()))
            probes += 1
            time.sleep(0.02)
        with os.fdopen(reading) as pipe:
            told = json.loads(pipe.read())
        os.waitpid(child, 0)
        trigger = sink._trigger
        sink.close()
        if trigger is not None and trigger._child is not None:  # it would outlive the store
            os.kill(trigger._child, signal.SIGKILL)
            os.waitpid(trigger._child, 0)
    delays = sorted(told["delays"])
    return {
        "p50_ms": delays[len(delays) // 2],
        "p99_ms": delays[int(len(delays) * 0.99)],
        "probes": float(len(delays)),
        "missed": float(probes - len(delays)),
        "query_ms": statistics.median(told["queries"]),
        "query_cpu_ms": told["cpu_ms"],
    }


def _ask(store: str, pipe: int, seconds: float) -> None:
    delays: list[float] = []
    queries: list[float] = []
    last = 0
    end = time.monotonic() + seconds
    with connect(store) as connection:
        cpu = time.process_time()
        while time.monotonic() < end:
            begun = time.perf_counter()
            rows = connection.execute(
                "SELECT (payload ->> '$.at')::BIGINT AS sent FROM events "
                "WHERE event_type = 'probe' AND ts > hours_ago(0.002) AND sent > ? ORDER BY sent",
                [last],
            ).fetchall()
            now = time.monotonic_ns()
            queries.append((time.perf_counter() - begun) * 1e3)
            delays += [(now - at) / 1e6 for (at,) in rows]
            last = rows[-1][0] if rows else last
        cpu = (time.process_time() - cpu) * 1e3 / len(queries)
    with os.fdopen(pipe, "w") as out:
        out.write(json.dumps({"delays": delays, "queries": queries, "cpu_ms": cpu}))


def _watch(store: str, pipe: int, seconds: float) -> None:
    delays = []
    end = time.monotonic() + seconds
    with JournalTail(store, from_start=True) as tail:
        while time.monotonic() < end:
            for batch in tail.poll():
                now = time.monotonic_ns()
                delays += [(now - int(line.split(b'"at":')[1][:-1])) / 1e6 for line in batch.lines if b'"at":' in line]
            time.sleep(0.005)
    with os.fdopen(pipe, "w") as out:
        out.write(json.dumps(delays))


def publishing(records: list[Line]) -> dict[str, float]:
    """Publish and compact what was written; return CPU and bytes per event."""
    with tempfile.TemporaryDirectory() as directory:
        sink = JournalSink(f"{directory}/s", queue_bytes=1 << 30, segment_bytes=8 << 20, publish=False)
        for record in records:
            sink.accept(record)
        sink.close(60)
        count = len(records)
        journal = sum(path.stat().st_size for path in sink.layout.journal.glob("w*.jsonl"))
        begun = time.process_time()
        report = publish(sink.layout, timing=AT_ONCE)
        published = time.process_time() - begun
        publish(sink.layout, timing=AT_ONCE)
        begun = time.process_time()
        merged = compact(sink.layout, force=True, timing=AT_ONCE)
        compacted = time.process_time() - begun
    return {
        "journal_bytes_per_event": journal / count,
        "part_bytes_per_event": report.bytes / count,
        "day_bytes_per_event": merged.bytes_after / count,
        "publish_us": published / count * 1e6,
        "compact_us": compacted / count * 1e6,
    }


def peer(records: list[Line]) -> dict[str, float]:
    """Send the same kind of event to the nearest peer's DevTools server, in an environment of its own."""
    folder = Path(__file__).parent / ".envs" / "agently_devtools"
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        print("installing agently-devtools …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, "agently==4.1.4.10", "agently-devtools==0.2.0"]).returncode:
            print("it cannot be installed here: left out", file=sys.stderr)
            return {}

        (folder / "made").touch()
    script = Path(__file__).parent / "peers" / "server_agently_devtools.py"
    event = next(line.encoded for line in records if b'"event_type":"chunk.completed"' in line.encoded)
    done = subprocess.run([str(python), str(script)], input=event, stdout=subprocess.PIPE)
    return dict(json.loads(done.stdout)) if not done.returncode else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the paced runs (60 for the full figure)")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="burst, emit, paced, idle, latency, sql RATE ..."
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    records = lines(given.events)
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "burst": lambda: burst(records),
        "emit": lambda: real_burst(given.events),
        "paced": lambda: paced(records, 20_000, given.seconds),
        "idle": lambda: paced(records, 2_000, given.seconds / 2),
        "latency": lambda: latency(records, given.seconds / 2),
        **{f"sql {rate}": partial(sql_latency, records, rate, given.seconds) for rate in (500, 1_000, 2_000)},
        "publish": lambda: publishing(records),
        "peer": lambda: peer(records),
    }
    out: dict[str, Any] = {"mean_bytes": statistics.fmean(len(record.encoded) for record in records)}
    print(f"{len(records):,} events of {out['mean_bytes']:,.0f} bytes; load {os.getloadavg()[0]:.1f}")
    for name in given.only or parts:
        run = parts[name]
        out[name] = run()
        for what, value in out[name].items():
            print(f"{name:8} {what:30} {value:>14,.2f}")
        print(f"{name:8} {'load':30} {os.getloadavg()[0]:>14,.2f}")
    flat = {f"{name} {what}": value for name, part in out.items() if name in parts for what, value in part.items()}
    print(f"\n{table(judged(flat, TARGETS))}")
    if given.json:
        given.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
