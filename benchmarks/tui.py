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
from tests.devtools.scene import Scene, busy_store

from benchmarks import tui_terminal as terminal
from benchmarks.harness import Target, judged, table
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
PAINT = "paint: s CPU to the first picture"
TARGETS = {
    PAINT: Target("DevTools: first paint, CPU", "s", 0.6),
    "paint: MB resident after 4 s": Target("DevTools: window resident after the first paint", "MB", 150),
    "idle: % of a core": Target("DevTools: idle, of a core", "%", 0.5),
    "runs: ms CPU a page": Target("DevTools: a page of runs, CPU", "ms", 20),
    "keys: ms from key to paint, p95": Target("DevTools: key to paint, p95 (wall)", "ms", 50),
    "visible: ms, p99": Target("DevTools: emit -> terminal, p99 (wall)", "ms", 250),
    "waterfall: ms CPU a refresh, 100,000 steps, all threads": Target(
        "DevTools: refresh of a waterfall of 100,000 steps, CPU", "ms", 15
    ),
    "waterfall: MB resident": Target("DevTools: window resident with a run of 100,000 steps", "MB", 150),
    "tail: % of a core at that rate": Target("DevTools: tail at 10,000 events/s, of a core", "%", 10),
    "tail: ms CPU of a beat, tick and paint, p99": Target("DevTools: a beat of that tail, CPU, p99", "ms", 20),
    "tail: MB resident": Target("DevTools: window resident while tailing", "MB", 150),
}
"""Figures that have a target."""
FILTERS = ("refund", "level>=error", "kind:chunk.* -kind:chunk.started", "data.index>50000", "/cu.tomer/ OR attempt>1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help=f"of: {' '.join(MEASURES)} (all)")
    parser.add_argument("--store", type=Path, help="for paint: a store, such as one of benchmarks.store_make")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    if options.store is not None and not (options.store / "store.json").is_file():
        parser.error(f"{options.store} is no store; python -m benchmarks.store_query makes one")

    if options.store is not None:
        _STORE.append(options.store)
    found: dict[str, float] = {}
    for name, measure in MEASURES.items():
        if name in (options.what or MEASURES):
            with tempfile.TemporaryDirectory() as folder:
                found |= measure(Path(folder) / "store")
    for label, value in found.items():
        print(f"{label:<58}{value:>10.3f}")
    stored = options.store.name if options.store is not None else "a small store"
    targets = TARGETS | {PAINT: TARGETS[PAINT]._replace(title=f"{TARGETS[PAINT].title}, {stored}")}
    print(f"\n{table(judged(found, targets))}")
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
    lines = [trace.line(number)[0] for number in range(trace.line_count)]
    scene.close()
    found = {}
    for text in FILTERS:
        passes = compile_line(text)

        def test(passes: Callable[[bytes], bool] = passes) -> int:
            return sum(map(passes, lines))

        found[f"filter: us a line, {text}"] = cpu_ms(test, 3) * 1000 / len(lines)
    return found


def paint(store: Path) -> dict[str, float]:
    """First paint, idle and the runs page, on a small store or on that of ``--store``."""
    given = _STORE[0] if _STORE else None
    if given is None:
        busy_store(store).close()
    return {
        **terminal.first_paint(given or store),
        **terminal.idle(given or store),
        **terminal.runs_page(given or store),
    }


def in_scene(measure: Callable[[Scene], dict[str, float]]) -> Callable[[Path], dict[str, float]]:
    """A measurement on a fresh store with one writer."""

    def run(store: Path) -> dict[str, float]:
        scene = Scene(store)
        try:
            return measure(scene)
        finally:
            scene.close()

    return run


def many_steps(scene: Scene) -> int:
    """One open run of 100,000 steps in the journal. The number of its events."""
    run = scene.execution("large", at=0.0)
    lines: list[bytes] = []
    for index in range(SPANS):
        step, scope, at = run.step_run(), f"for_each[{index}]/work", index / 1000
        payload = {"chunk_name": "work"}
        lines.append(scene.line("chunk.started", at=at, run=step, payload=payload, scope=scope, attempt=1))
        lines.append(scene.line("chunk.completed", at=at + 1, run=step, scope=scope, duration_us=1_000_000))
    scene._file.write(b"\n".join(lines) + b"\n")
    return len(lines) + 2  # it was declared and has begun


MEASURES: dict[str, Callable[[Path], dict[str, float]]] = {
    "spans": spans,
    "filter": filters,
    "paint": paint,
    "keys": in_scene(terminal.keys),
    "visible": in_scene(terminal.emitted_to_visible),
    "waterfall": in_scene(lambda scene: terminal.waterfall(scene, many_steps, "large")),
    "tail": in_scene(terminal.tail),
}
_STORE: list[Path] = []


if __name__ == "__main__":
    main()
