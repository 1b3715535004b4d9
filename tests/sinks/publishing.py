"""What the tests of publisher and compaction share: short times, polls in plain DuckDB, children to be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
from tests.sinks.support import plain

from flowdeck.layout import Layout
from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.store._keeping import Timing
from flowdeck_sinks.store.compaction import compact
from flowdeck_sinks.store.parts import visibility_views, visible_events_select
from flowdeck_sinks.store.publisher import publish
from flowdeck_sinks.store.schema import empty_select

OTHER_PYTHON = os.environ.get("FLOWDECK_TEST_OTHER_DUCKDB")

AT_ONCE = Timing(visible_after_ms=0, keep_ms=0)
"""For tests without readers at the same time."""
SHORT = Timing(visible_after_ms=1000, keep_ms=1500)
"""For tests with readers: far more than a query takes here, far less than the 35 seconds of a real store."""

POLL = """
import json, sys, time
import duckdb

setup, counters, until = json.loads(sys.stdin.readline())
con = duckdb.connect(":memory:", config={"autoload_known_extensions": "false"})
con.execute("SET threads = 1")
for statement in setup:
    con.execute(statement)
out = {"version": duckdb.__version__, "polls": 0, "vanished": 0, "wrong": [], "seen": {}}
print("ready", flush=True)
while time.time() < until:
    flushed = {}
    for writer, path in counters.items():
        with open(path) as file:
            flushed[writer] = int(file.read() or 0)
    try:
        rows = con.execute(
            "SELECT writer, count(*), count(DISTINCT wseq), min(wseq), max(wseq) FROM events GROUP BY writer"
        ).fetchall()
    except duckdb.IOException as error:
        if "No such file" not in str(error) and "Cannot open" not in str(error):
            raise
        out["vanished"] += 1
        continue
    out["polls"] += 1
    found = {row[0]: row[1:] for row in rows}
    for writer, least in flushed.items():
        count, distinct, first, last = found.get(writer, (0, 0, 1, 0))
        least = max(least, out["seen"].get(writer, 0))
        if not (count == distinct == last and first == 1 and last >= least):
            out["wrong"].append([writer, count, distinct, first, last, least])
        out["seen"][writer] = last
print(json.dumps(out))
"""


def sql_setup(layout: Layout) -> list[str]:
    """Return the statements that give a plain DuckDB the ``events`` of a store by the rule of ``parts.py``."""
    seed = layout.parts / "_.parquet"
    if not seed.exists():
        duckdb.connect().execute(f"COPY ({empty_select(plain=True)}) TO '{seed}' (FORMAT parquet)")
    views = {**visibility_views(layout), "events": visible_events_select(layout)}
    return ["SET TimeZone = 'UTC'", *(f"CREATE VIEW {name} AS {body}" for name, body in views.items())]


def start_polling(python: str, layout: Layout, counters: dict[str, Path], seconds: float) -> subprocess.Popen[str]:
    """Start a process that checks every writer's rows in a loop; it has begun when this returns."""
    child = subprocess.Popen([python, "-c", POLL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    given = [sql_setup(layout), {writer: str(path) for writer, path in counters.items()}, time.time() + seconds]
    child.stdin.write(json.dumps(given) + "\n")
    child.stdin.flush()
    assert child.stdout.readline() == "ready\n"
    return child


def start_writing(store: Path, counter: Path, *, per_second: int, seconds: float) -> tuple[int, str]:
    """Fork a process that writes numbered events and, after each flush, how many to ``counter``; return pid, writer."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        sink = JournalSink(store, segment_bytes=100_000, segment_seconds=0.5)
        os.write(writing, sink.writer.encode())
        os.close(writing)
        end = time.monotonic() + seconds
        sent = 0
        while time.monotonic() < end:
            for _ in range(per_second // 20):
                sink.accept(plain(sent, 400))
                sent += 1
            if sink.flush(10):
                _count(counter, sent)
            time.sleep(0.05)
        sink.close(30)
        _count(counter, sent)
        os._exit(0)

    os.close(writing)
    with os.fdopen(reading) as pipe:
        return child, pipe.read()


def _count(counter: Path, sent: int) -> None:
    temporary = counter.with_suffix(".new")
    temporary.write_text(str(sent))
    temporary.rename(counter)


def start_keeping(store: Path, timing: Timing) -> int:
    """Fork a process that publishes and compacts without end; return its pid."""
    child = os.fork()
    if child:
        return child

    try:
        layout = Layout(store)
        while True:
            publish(layout, timing=timing)
            compact(layout, force=True, timing=timing)
            time.sleep(0.02)
    finally:
        os._exit(1)


def kill(pid: int) -> None:
    """Kill a child with SIGKILL and bury it."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def exact(layout: Layout) -> dict[str, tuple[Any, ...]]:
    """Return count, distinct count and highest ``wseq`` per writer, as plain SQL sees them."""
    with duckdb.connect() as connection:
        for statement in sql_setup(layout):
            connection.execute(statement)
        rows = connection.execute(
            "SELECT writer, count(*), count(DISTINCT wseq), max(wseq) FROM events GROUP BY writer"
        ).fetchall()
    return {row[0]: row[1:] for row in rows}


PYTHONS = [sys.executable, *([OTHER_PYTHON] if OTHER_PYTHON else [])]
