"""Events by hand: emitted through an Event Center, or written as rows; and the spans they lead to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from tests.otlp.scenarios import check_invariants, make_mapper

from flowdeck.events import EventCenter, RunContext
from flowdeck.events.record import EventRecord
from flowdeck_sinks.otlp.conventions import ATTRIBUTES
from flowdeck_sinks.otlp.mapper import SpanMapper
from flowdeck_sinks.otlp.reading import Event, decode_event, event_of

HOUR_MS = 3_600_000


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    """A sink that keeps every record."""

    name = "recorder"

    def __init__(self) -> None:
        self.records: list[EventRecord] = []

    def accept(self, record: EventRecord) -> None:
        self.records.append(record)

    def flush(self, timeout: float) -> bool:
        return True

    def close(self, timeout: float) -> None:
        pass

    def statistics(self) -> dict[str, int | float | str]:
        return {}


class Hand:
    """Events emitted through an Event Center by hand, for runtimes that do not exist yet."""

    def __init__(self) -> None:
        self.center = EventCenter()
        self.recorder = Recorder()
        self.center.add_sink(self.recorder, min_level="DEBUG")
        self.root = RunContext.create(run_kind="workflow_execution", execution_id="x1", meta={"flow_name": "shop"})
        self.step = self.root.create_child(run_kind="chunk_execution", meta={"chunk_id": "c1", "chunk_name": "work"})

    def __call__(
        self,
        event_type: str,
        run: RunContext | None,
        payload: Any = None,
        *,
        level: str = "INFO",
        message: str | None = None,
        error: BaseException | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Hand:
        """Emit one event; ``meta`` may hold the place fields (epoch, seq, scope, attempt, duration_us) too."""
        user = dict(meta or {})
        place = {name: user.pop(name) for name in ("epoch", "seq", "scope", "attempt", "duration_us") if name in user}
        self.center.type(event_type, level).emit(
            payload, run=run, message=message, error=error, meta=user or None, source="Test", **place
        )
        return self

    def begin(self) -> Hand:
        self("triggerflow.execution_started", self.root, {"initial_value": 1}, meta={"epoch": 1, "seq": 1})
        return self("chunk.started", self.step, {"input": "in"}, meta={"attempt": 1, "scope": "work"})

    def end(self) -> Hand:
        self(
            "chunk.completed", self.step, {"status": "completed", "output": "out"}, meta={"attempt": 1, "scope": "work"}
        )
        return self("triggerflow.execution_completed", self.root, {"result": {}}, meta={"epoch": 1, "seq": 9})

    def events(self) -> list[Event]:
        """Return what was emitted, as the mapper reads it."""
        return [event_of(record) for record in self.recorder.records]

    def spans(self, mapper: SpanMapper | None = None) -> dict[str, ReadableSpan]:
        mapper = make_mapper() if mapper is None else mapper
        out = [span for record in self.recorder.records for span in mapper.feed(event_of(record))]
        out += mapper.flush_incomplete()
        assert mapper.statistics()["bad_events"] == 0
        check_invariants(out)
        assert {key for span in out for key in span.attributes or {}} <= set(ATTRIBUTES)
        encode_spans(out).SerializeToString()
        self.all = out
        return {span.name: span for span in out}


def notes(span: ReadableSpan) -> list[str]:
    return [event.name for event in span.events]


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def wait_lines(hours: float) -> list[dict[str, Any]]:
    """The events of an execution whose question was answered after ``hours``."""
    start = 1_700_000_000_000
    later = start + 10 + round(hours * HOUR_MS)
    flow = {
        "run_id": "R",
        "run_kind": "workflow_execution",
        "root_run_id": "R",
        "execution_id": "x",
        "meta": {"flow_name": "f"},
    }
    question = {"id": "q", "type": "approval", "created_at": (start + 5) / 1000, "source_execution_id": "x"}

    def step(name: str) -> dict[str, Any]:
        meta = {"flow_name": "f", "chunk_name": name}
        return {**flow, "run_id": name, "run_kind": "chunk_execution", "parent_run_id": "R", "meta": meta}

    rows: list[tuple[str, dict[str, Any], int, dict[str, Any]]] = [
        ("triggerflow.execution_started", flow, start, {}),
        ("chunk.started", step("ask"), start + 1, {}),
        ("triggerflow.interrupt_raised", step("ask"), start + 5, {"interrupt": question}),
        ("chunk.completed", step("ask"), start + 6, {"status": "waiting"}),
        ("triggerflow.execution_waiting", flow, start + 7, {}),
        ("triggerflow.execution_resumed", flow, later, {"interrupt_id": "q", "paused_at": (start + 5) / 1000}),
        ("chunk.started", step("pay"), later + 1, {}),
        ("chunk.completed", step("pay"), later + 2, {"status": "completed"}),
        ("triggerflow.execution_completed", flow, later + 3, {}),
    ]
    return [
        {
            "event_id": f"e{seq}", "event_type": name, "timestamp": at, "payload": payload, "run": run,
            "meta": {"epoch": 1, "seq": seq},
        }
        for seq, (name, run, at, payload) in enumerate(rows, 1)
    ]  # fmt: skip


def feed(mapper: SpanMapper, rows: Iterable[dict[str, Any]]) -> list[ReadableSpan]:
    out = [span for row in rows for span in mapper.feed(decode_event(json.dumps(row).encode()))]
    return out + mapper.flush_incomplete()
