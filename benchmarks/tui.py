"""What DevTools costs: ``python -m benchmarks.tui``. Process CPU in a real pseudo-terminal whose output is drained.

Every figure is CPU time (of DevTools' process, all threads) and not wall time, so that other work on the machine does
not count. The store is written here, line by line, in the wire format.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.segment import Segment
from tests.devtools.scene import Scene
from tests.devtools.terminal import Terminal

from flowdeck_devtools.core.bars import TimeScale, draw
from flowdeck_devtools.core.critical import critical_path
from flowdeck_devtools.core.failure import first_failure
from flowdeck_devtools.core.outline import Outline
from flowdeck_devtools.core.stretches import stretches
from flowdeck_devtools.core.trace import Trace
from flowdeck_devtools.core.wire import head
from flowdeck_devtools.filter import compile_line

ROWS = 34
SPANS = 100_000
TAIL_SECONDS = 6.0
PER_SECOND = 10_000
FILTERS = ("refund", "level>=error", "kind:chunk.* -kind:chunk.started", "data.index>50000", "/cu.tomer/ OR attempt>1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help="of: spans filter tail (all)")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    wanted = options.what or ["spans", "filter", "tail"]
    found: dict[str, float] = {}
    for name, measure in (("spans", spans), ("filter", filters), ("tail", tail)):
        if name in wanted:
            with tempfile.TemporaryDirectory() as folder:
                found |= measure(Path(folder) / "store")
    for label, value in found.items():
        print(f"{label:<58}{value:>10.3f}")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2), encoding="utf-8")


def cpu_ms(work: Callable[[], Any], rounds: int = 7) -> float:
    """Median CPU milliseconds of a call."""
    taken = []
    for _ in range(rounds):
        begun = time.process_time()
        work()
        taken.append((time.process_time() - begun) * 1000)
    return statistics.median(taken)


def large_trace(scene: Scene, number: int) -> tuple[Trace, float]:
    """A run of so many steps, open, and the CPU seconds it took to make its tree."""
    run = scene.execution("large", at=0.0)
    lines: list[bytes] = []
    for index in range(number):
        step = run.step_run()
        payload = {"chunk_name": "work", "input": {"index": index, "customer": f"c-{index % 97}"}}
        scope = f"for_each[{index}]/work"
        at = index / 1000
        lines.append(scene.line("chunk.started", at=at, run=step, payload=payload, scope=scope, attempt=1))
        lines.append(
            scene.line("chunk.completed", at=at + 1, run=step, payload=payload, scope=scope, duration_us=1_000_000)
        )
    trace = Trace(str(run.run["run_id"]))
    started = scene.layout.segment_path(scene.writer, 1).read_bytes().splitlines()[1:]
    heads = [("w", line, head(line)) for line in (*started, *lines)]
    begun = time.process_time()
    trace.extend(heads)
    return trace, time.process_time() - begun


def spans(store: Path) -> dict[str, float]:
    """A run of 100,000 steps: what a refresh of its waterfall and the questions about it cost."""
    scene = Scene(store)
    trace, seconds = large_trace(scene, SPANS)
    outline = Outline(trace)
    outline.refresh(0.0)
    now_us = (trace.started_us or 0) + 200_000_000
    scale = TimeScale(trace.started_us or 0, now_us, 60)

    def refresh() -> list[Segment]:
        outline.refresh(time.monotonic())
        rows = outline.rows[5_000 : 5_000 + ROWS]
        return [
            Segment(piece.text) for row in rows for piece in draw(scale, stretches(row.node, row.node.status, now_us))
        ]

    def remake() -> None:
        outline._made_for, outline._made_at = (-1, -1), 0.0
        outline.refresh(time.monotonic())

    scene.close()
    return {
        "spans: us to take in a line": seconds / (2 * SPANS) * 1e6,
        "spans: ms to draw a frame of the waterfall": cpu_ms(refresh),
        "spans: ms to list all rows anew": cpu_ms(remake, 3),
        "spans: ms to find the critical path": cpu_ms(lambda: critical_path(trace, now_us), 3),
        "spans: ms to find the first failure": cpu_ms(lambda: first_failure(trace), 3),
    }


def filters(store: Path) -> dict[str, float]:
    """Microseconds a line for filters of each kind of cost."""
    scene = Scene(store)
    trace, _ = large_trace(scene, 5_000)
    lines = [line for node in trace.nodes.values() for line in node.lines]
    scene.close()
    found = {}
    for text in FILTERS:
        passes = compile_line(text)

        def test(passes: Callable[[bytes], bool] = passes) -> int:
            return sum(map(passes, lines))

        found[f"filter: us a line, {text}"] = cpu_ms(test, 3) * 1000 / len(lines)
    return found


def tail(store: Path) -> dict[str, float]:
    """First paint, idle, and the tail of 10,000 events a second, as percent of a core."""
    scene = Scene(store)
    run = scene.execution("busy", at=0.0)
    terminal = Terminal(store)
    terminal.wait_for("busy")
    found = {"tail: s CPU to the first paint": terminal.cpu_seconds()}
    terminal.press("5")
    time.sleep(6.0)
    begun, at = terminal.cpu_seconds(), time.monotonic()
    time.sleep(TAIL_SECONDS)
    found["tail: % of a core, idle"] = 100 * (terminal.cpu_seconds() - begun) / (time.monotonic() - at)
    batch = PER_SECOND // 50
    step = run.step_run()
    payload = {"chunk_name": "work", "input": {"text": "x" * 500}}
    lines = [
        scene.line("chunk.started", at=50.0, run=step, payload=payload, scope=f"for_each[{n}]/work", attempt=1)
        for n in range(int(PER_SECOND * (TAIL_SECONDS + 2)))
    ]
    place, started = 0, time.monotonic()
    begun, at = terminal.cpu_seconds(), time.monotonic()
    while time.monotonic() - started < TAIL_SECONDS and place < len(lines):
        scene._file.write(b"\n".join(lines[place : place + batch]) + b"\n")
        place += batch
        time.sleep(max(0.0, started + place / PER_SECOND - time.monotonic()))
    wall = time.monotonic() - at
    found["tail: events/s written"] = place / wall
    found["tail: % of a core at that rate"] = 100 * (terminal.cpu_seconds() - begun) / wall
    found["tail: MB resident"] = terminal.rss_mb()
    terminal.close()
    scene.close()
    return found


if __name__ == "__main__":
    main()
