"""How long a run stays open: long waits, recoveries, dead processes, grace, and the bound on memory."""

from __future__ import annotations

import json

from tests.otlp.hand import Clock, Hand, feed, said, wait_lines
from tests.otlp.scenarios import check_invariants, make_mapper, tree

from flowdeck.events import RunContext
from flowdeck_sinks.otlp.ids import span_id_of, trace_id_of
from flowdeck_sinks.otlp.reading import decode_event, event_of


def test_a_very_long_wait_begins_a_linked_trace() -> None:
    """After more than a day the run goes on in a second trace, linked to the first; both have one root."""
    spans = feed(make_mapper(), wait_lines(25))
    check_invariants(spans)
    traces = {span.context.trace_id for span in spans if span.context is not None}
    assert traces == {trace_id_of("R"), trace_id_of("R", 1)}
    first, second = (
        [span for span in spans if span.context is not None and span.context.trace_id == trace_id_of("R", n)]
        for n in (0, 1)
    )
    assert tree(first) == ["invoke_workflow f", "  f segment 1", "  step ask", "  wait approval"]
    assert tree(second) == ["invoke_workflow f", "  f segment 2", "  step pay"]
    root = next(span for span in second if span.parent is None)
    (link,) = root.links
    assert link.context.span_id == span_id_of("R")
    assert dict(link.attributes or {}) == {"flow.link.kind": "previous_trace"}
    assert len({span.context.trace_id for span in feed(make_mapper(), wait_lines(23)) if span.context}) == 1


def test_the_trace_before_a_long_wait_names_who_took_the_answer() -> None:
    """The first root's process is the same exported at once or read back after another process went on."""
    rows = wait_lines(25)
    rows[-1] = {**rows[-1], "meta": {"epoch": 2, "seq": 9}}
    lines = [(json.dumps(row).encode(), "w2" if row is rows[-1] else "w1") for row in rows]
    clock = Clock()
    live, later = make_mapper(clock=clock), make_mapper()
    at_once, read_back = [], []
    for line, writer in lines:
        clock.now += 3.0
        at_once += live.due() + live.feed(decode_event(line), writer)
        read_back += later.feed(decode_event(line), writer)

    for spans in (at_once + live.flush_incomplete(), read_back + later.flush_incomplete()):
        roots = {span.context.trace_id: span for span in spans if span.parent is None and span.context is not None}
        assert roots[trace_id_of("R")].resource.attributes["service.instance.id"] == "w1"
        assert roots[trace_id_of("R", 1)].resource.attributes["service.instance.id"] == "w2"


def test_a_recovered_execution_closes_what_its_dead_process_left() -> None:
    """Steps of an earlier epoch without an end are incomplete; the segment they ran in ends with the last event."""
    rows = wait_lines(0.01)[:2]
    flow = rows[0]["run"]
    again = {**rows[1]["run"], "run_id": "ask-2"}
    later = rows[1]["timestamp"] + 60_000
    for seq, (name, run) in enumerate(
        [
            ("triggerflow.execution_recovered", flow),
            ("chunk.started", again),
            ("chunk.completed", again),
            ("triggerflow.execution_completed", flow),
        ],
        10,
    ):
        meta = {"epoch": 2, "seq": seq}
        rows.append(
            {**rows[0], "event_id": f"e{seq}", "event_type": name, "run": run, "meta": meta, "timestamp": later + seq}
        )

    spans = feed(make_mapper(), rows)
    check_invariants(spans)
    lost = next(span for span in spans if "flow.span.incomplete" in said(span) and span.name == "step ask")
    assert (said(lost)["flow.span.incomplete_reason"], said(lost)["flow.outcome"]) == ("process_lost", "incomplete")
    segment = next(span for span in spans if span.name == "f segment 1")
    assert said(segment)["flow.segment.end_reason"] == "lost"
    assert segment.end_time == rows[1]["timestamp"] * 1_000_000
    assert said(next(span for span in spans if span.parent is None))["flow.outcome"] == "success"


def test_a_resumable_execution_stays_open_when_its_process_dies(hand: Hand) -> None:
    """Its steps are closed as incomplete; its own span comes when it ends, once."""
    mapper = make_mapper()
    for record in hand.recorder.records:
        mapper.feed(event_of(record), "w1")

    closed = mapper.flush_incomplete(writers={"w1"}, resumable={"x1"})
    assert [span.name for span in closed] == ["step work"]
    assert mapper.open_writers() == {"w1"} and mapper.active() == {"shop": 1}
    hand.recorder.records.clear()
    hand("triggerflow.execution_completed", hand.root, {}, meta={"epoch": 2, "seq": 20})
    hand.spans(mapper)
    assert [span.name for span in hand.all] == ["invoke_workflow shop"]
    assert "flow.span.incomplete" not in said(hand.all[0])
    assert mapper.active() == {} and mapper.open_writers() == set()


def test_only_the_dead_writers_runs_are_given_up(hand: Hand) -> None:
    """Runs of other writers stay open."""
    mapper = make_mapper()
    for record in hand.recorder.records:
        mapper.feed(event_of(record), "alive")

    assert mapper.flush_incomplete(writers={"dead"}) == []
    assert mapper.statistics()["open_runs"] == 2


def test_spans_leave_once_after_their_grace(hand: Hand) -> None:
    """Nothing leaves before its grace, everything after it, and what comes later is counted."""
    clock = Clock()
    mapper = make_mapper(clock=clock)
    hand.end()
    for record in hand.recorder.records:
        assert mapper.feed(event_of(record)) == []

    clock.now += 0.9
    assert mapper.due() == []
    clock.now += 0.2
    assert [span.name for span in mapper.due()] == ["step work"]
    clock.now += 0.5
    assert [span.name for span in mapper.due()] == ["invoke_workflow shop"]
    for record in hand.recorder.records:
        mapper.feed(event_of(record))

    clock.now += 100
    assert mapper.due() == mapper.flush() == []
    assert mapper.statistics()["late_events"] == len(hand.recorder.records)
    assert mapper.statistics()["open_runs"] == mapper.statistics()["open_traces"] == 0


def test_a_run_left_behind_by_its_root_is_given_up_in_the_end(hand: Hand) -> None:
    """A step still running a minute after its execution ended is exported as incomplete: no memory is held for it."""
    clock = Clock()
    mapper = make_mapper(clock=clock)
    hand("triggerflow.execution_completed", hand.root, {}, meta={"epoch": 1, "seq": 9})
    for record in hand.recorder.records:
        mapper.feed(event_of(record))

    names = []
    for _ in range(70):
        clock.now += 1
        names += [span.name for span in mapper.due()]

    assert names == ["invoke_workflow shop", "step work"]
    assert mapper.statistics()["open_traces"] == 0


def test_memory_is_bounded() -> None:
    """Above the limit the oldest run leaves as incomplete, counted, and its trace stays whole."""
    mapper = make_mapper(max_open=50)
    spans = []
    for _ in range(500):
        hand = Hand().begin()
        spans += [span for record in hand.recorder.records for span in mapper.feed(event_of(record))]

    assert mapper.statistics()["open_runs"] == 50
    assert mapper.statistics()["evicted"] == 950
    spans += mapper.flush_incomplete()
    check_invariants(spans)
    assert len(spans) == 1000


def test_a_sink_of_live_events_takes_over_a_run_that_another_process_began() -> None:
    """What the other process exported is not exported again: neither the parent step nor a made-up root."""
    outer = RunContext.create(run_kind="workflow_execution", run_id="R", execution_id="x", meta={"flow_name": "outer"})
    step = outer.create_child(run_kind="chunk_execution", run_id="S")
    inner = step.create_child(
        run_kind="workflow_execution", run_id="I", execution_id="x.1", meta={"flow_name": "inner"}
    )
    hand = Hand()
    for seq, run in enumerate((outer, inner), 1):
        hand("triggerflow.execution_recovered", run, {"epoch": 2}, meta={"epoch": 2, "seq": seq})

    for seq, run in enumerate((inner, outer), 5):
        hand("triggerflow.execution_completed", run, {}, meta={"epoch": 2, "seq": seq, "duration_us": 9_000_000})

    mapper = make_mapper(partial=True)
    spans = [span for event in hand.events() for span in mapper.feed(event)] + mapper.flush_incomplete()
    assert sorted(span.name for span in spans) == ["invoke_workflow inner", "invoke_workflow outer"]
    root = next(span for span in spans if span.parent is None)
    assert root.end_time is not None and root.start_time == root.end_time - 9_000_000_000
    assert said(root)["flow.span.start_missing"] is True
