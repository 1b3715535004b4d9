"""The six scenarios as journal lines of real runs, and what every trace must satisfy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

from flowdeck_sinks.otlp.content import Capture, Limits
from flowdeck_sinks.otlp.mapper import SpanMapper
from flowdeck_sinks.otlp.reading import Event, decode_event
from flowdeck_sinks.store.tail import JournalTail

SOURCE = Path(__file__).parents[2]
PROCESSES = {
    "success": ("success",),
    "fan-out": ("fan-out",),
    "retry": ("retry",),
    "failure": ("failure",),
    "pause": ("pause", "resume"),
    "killed": ("killed",),
}
"""Scenario -> the processes it takes, one after the other."""


class Line(NamedTuple):
    """One journal line and who wrote it."""

    writer: str
    data: bytes

    @property
    def event(self) -> Event:
        return decode_event(self.data)


def play(scenario: str, folder: Path) -> list[Line]:
    """Run a scenario in processes of its own and return what they journaled, in order."""
    store = folder / scenario / "store"
    shutil.rmtree(store.parent, ignore_errors=True)  # of an attempt that failed
    store.parent.mkdir(parents=True)
    for number, name in enumerate(PROCESSES[scenario]):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.otlp.process_scenario", name, str(store)],
            cwd=SOURCE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if name == "killed":
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            _wait_for_line(store, b'"chunk_name":"fetch"')
            process.kill()
            process.communicate()
        else:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, f"{scenario}/{number}: {errors}"

    return lines_of(store)


def _wait_for_line(store: Path, text: bytes) -> None:
    """Wait until a line with ``text`` is in the journal: the writer hands over within some 20 ms."""
    import time

    deadline = time.monotonic() + 20
    while not any(text in line.data for line in lines_of(store)):
        assert time.monotonic() < deadline, f"{text!r} never reached the journal"
        time.sleep(0.01)


def lines_of(store: Path) -> list[Line]:
    """Return every line of a store, each writer's in order, the writers one after the other."""
    with JournalTail(store, from_start=True) as tail:
        return [
            Line(batch.writer, line)
            for batch in iter(lambda: tail.poll() or None, None)
            for batch in batch
            for line in batch.lines
        ]


def make_mapper(content: bool = True, **options: object) -> SpanMapper:
    """Return a mapper that takes nothing from the environment."""
    given = {
        "resource": Resource({"service.name": "shop"}),
        "capture": Capture(content, content),
        "limits": Limits(),
        **options,
    }
    return SpanMapper(**given)  # type: ignore[arg-type]


def map_all(lines: Iterable[Line], mapper: SpanMapper | None = None) -> list[ReadableSpan]:
    """Return the spans of all lines, what never ended included."""
    mapper = make_mapper() if mapper is None else mapper
    spans: list[ReadableSpan] = []
    for line in lines:
        spans += mapper.feed(line.event, line.writer)

    spans += mapper.flush_incomplete()
    assert mapper.statistics()["bad_events"] == 0
    assert mapper.statistics()["open_runs"] == mapper.statistics()["open_traces"] == 0
    return spans


def check_invariants(spans: Sequence[ReadableSpan]) -> None:
    """What every viewer needs, whatever was lost: one root a trace, no dangling parent, unique ids, sane times."""
    traces: dict[int, list[ReadableSpan]] = {}
    for span in spans:
        assert span.context is not None
        traces.setdefault(span.context.trace_id, []).append(span)
        assert span.start_time is not None and span.end_time is not None
        assert 0 < span.start_time <= span.end_time < 2**63
        assert span.resource.attributes["service.name"] == "shop"
        assert span.context.trace_id and span.context.span_id

    ids = [span.context.span_id for span in spans if span.context is not None]
    assert len(set(ids)) == len(ids), "a span id was exported twice"
    for members in traces.values():
        known = {span.context.span_id for span in members if span.context is not None}
        outside = [span for span in members if span.parent is None or span.parent.is_remote]
        assert len(outside) == 1, f"{len(outside)} roots: {[span.name for span in outside]}"
        for span in members:
            if span.parent is not None and not span.parent.is_remote:
                assert span.context is not None and span.parent.trace_id == span.context.trace_id
                assert span.parent.span_id in known, f"{span.name}: its parent was never exported"


def tree(spans: Iterable[ReadableSpan]) -> list[str]:
    """Return the names as an indented tree, in order of start."""
    spans = list(spans)
    known = {span.context.span_id for span in spans if span.context is not None}
    out: list[str] = []

    def add(parent: int | None, depth: int) -> None:
        for span in sorted(spans, key=lambda s: (s.start_time or 0, s.name)):
            above = span.parent.span_id if span.parent is not None and span.parent.span_id in known else None
            if above == parent and span.context is not None:
                out.append("  " * depth + span.name)
                add(span.context.span_id, depth + 1)

    add(None, 0)
    return out
