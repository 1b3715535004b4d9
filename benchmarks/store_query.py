"""What questions about ten million events cost.

    python -m benchmarks.store_query [--store DIR] [--events N] [--json FILE]

Without ``--store`` one is made (:mod:`benchmarks.store_make`), which takes some minutes and 2 GB. Every question is
asked ``ROUNDS`` times on one open connection with two threads, as the TUI and a notebook do, and its best round is
given: wall time, which the budgets are about; CPU time, which neighbours do not change; and CPU time as a ratio to a
bare scan, the sum of one column of the same files by DuckDB alone. "The last hour" is that of the data. Opening is
measured in a process of its own: importing, connecting, and the first answer.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import store_make
from benchmarks.harness import Target, judged, table
from flowdeck.layout import Layout
from flowdeck_sinks.store import connect
from flowdeck_sinks.store.parts import published_pattern

EVENTS = 10_000_000
PLACE = Path(tempfile.gettempdir()) / f"flowdeck-bench-{EVENTS}"
"""Where the store is made that is asked when none is named; it stays."""
ROUNDS = 5
THREADS = 2
OPENING = """
import time
begun, wall = time.process_time(), time.perf_counter()
from flowdeck_sinks.store import connect
import sys
with connect(sys.argv[1], threads=2) as connection:
    opened = time.process_time() - begun, time.perf_counter() - wall
    connection.execute("SELECT count(*) FROM events WHERE ts > hours_ago(1)").fetchall()
print(*opened, time.process_time() - begun, time.perf_counter() - wall)
"""


class Cost(NamedTuple):
    """What one question costs: milliseconds, and the rows it gave."""

    wall: float
    cpu: float
    rows: int


def cost(ask: Callable[[], list[Any]]) -> Cost:
    """Return the best of the rounds."""
    wall = cpu = float("inf")
    rows: list[Any] = []
    for _ in range(ROUNDS):
        begun, spent = time.perf_counter(), time.process_time()
        rows = ask()
        wall = min(wall, time.perf_counter() - begun)
        cpu = min(cpu, time.process_time() - spent)
    return Cost(wall * 1000, cpu * 1000, len(rows))


def opening(store: Path) -> dict[str, float]:
    """Return the milliseconds until a new process has a connection, and until it has its first answer."""
    best = [float("inf")] * 4
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", OPENING, str(store)], capture_output=True, text=True, check=True
        ).stdout.split()
        best = [min(old, float(new) * 1000) for old, new in zip(best, done, strict=True)]
    return dict(zip(("open_cpu", "open_wall", "first_cpu", "first_wall"), best, strict=True))


def main() -> None:
    """Print the table; write it as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    store = options.store
    if store is None:
        store = PLACE if options.events == EVENTS else PLACE.with_name(f"flowdeck-bench-{options.events}")
        store_make.make(store, options.events)

    found: dict[str, Any] = {"load": os.getloadavg()[0], **opening(store)}
    with connect(store, threads=THREADS) as connection:

        def ask(sql: str) -> list[Any]:
            return list(connection.execute(sql).fetchall())

        ((events, age),) = ask("SELECT count(*), date_diff('millisecond', max(ts), utc_now()) / 3.6e6 FROM events")
        hour = f"{age + 1:.4f}"
        ((execution,),) = ask(f"SELECT execution_id FROM events WHERE ts > hours_ago({age + 200:.4f}) LIMIT 1")
        bare_sql = f"SELECT sum(duration_ms) FROM read_parquet({published_pattern(Layout(store))})"
        questions = {
            "recent 50 runs and all open": (
                f"SELECT execution_id, flow_name, status, started_at FROM recent_runs({hour}) LIMIT 50", 50.0,
            ),
            "the same, every column, all rows": (f"FROM recent_runs({hour})", None),
            "all events of one run": (f"FROM run_events('{execution}')", 60.0),
            "its tree": (f"FROM run_tree('{execution}')", None),
            "errors in the last hour": (f"FROM recent_errors({hour})", 60.0),
            "p95 by step, all history": ("FROM steps_p95", 300.0),
            "p95 by step, last hour": (f"FROM recent_steps({hour})", None),
            "statuses of all runs there ever were": ("SELECT status, count(*) FROM runs GROUP BY ALL", None),
            "newest 20 errors with JSON path": (
                "SELECT ts, error ->> '$.message' FROM events WHERE level = 'ERROR' ORDER BY ts DESC LIMIT 20", None,
            ),
        }  # fmt: skip
        bare = cost(lambda: ask(bare_sql))
        rows = []
        for name, (sql, budget) in questions.items():
            one = cost(lambda sql=sql: ask(sql))  # type: ignore[misc]
            rows.append({"question": name, "budget": budget, **one._asdict(), "ratio": one.cpu / bare.cpu})
            if budget is not None:
                # Of the process, after the questions that have a budget: the others may hold more.
                found["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    found |= {"events": events, "bare_scan": bare._asdict(), "questions": rows}
    _print(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def _print(found: dict[str, Any]) -> None:
    bare = found["bare_scan"]
    print(f"{found['events']:,} events, load {found['load']:.1f}, {THREADS} threads")
    print(f"bare scan of one column: wall {bare['wall']:.1f} ms, cpu {bare['cpu']:.1f} ms\n")
    print(f"{'':<40} {'wall ms':>8} {'cpu ms':>8} {'x bare':>7} {'rows':>7}  budget")
    for row in found["questions"]:
        verdict = ""
        if row["budget"] is not None:
            verdict = f"{row['budget']:.0f} {'met' if row['wall'] <= row['budget'] else 'MISSED'}"
        figures = f"{row['wall']:>8.1f} {row['cpu']:>8.1f} {row['ratio']:>7.1f} {row['rows']:>7,}"
        print(f"{row['question']:<40} {figures}  {verdict}")
    for name, value, budget, unit in (
        ("open, new process", found["open_wall"], 300.0, "ms"),
        ("open and first answer", found["first_wall"], None, "ms"),
        ("peak RSS", found["rss_mb"], 300.0, "MB"),
    ):
        verdict = "" if budget is None else f"{budget:.0f} {'met' if value <= budget else 'MISSED'}"
        print(f"{name:<40} {value:>8.0f} {unit:<23}  {verdict}")
    print(f"\n{table(judged(*_targets(found)))}")


def _targets(found: dict[str, Any]) -> tuple[dict[str, float], dict[str, Target]]:
    """Return what was measured and has a budget, and these budgets; the names tell of how many events."""
    of = f"of {found['events'] / 1e6:.3g} M events, wall"
    measured = {row["question"]: row["wall"] for row in found["questions"]}
    targets = {
        row["question"]: Target(f"{row['question']}, {of}", "ms", row["budget"])
        for row in found["questions"]
        if row["budget"] is not None
    }
    targets["open_wall"] = Target(f"store opened in a new process, {of}", "ms", 300.0)
    targets["rss_mb"] = Target("resident after the questions", "MB", 300.0)
    return found | measured, targets


if __name__ == "__main__":
    main()
