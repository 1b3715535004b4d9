"""The SQL views: right answers from events that are missing, doubled, unordered or hostile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.sinks.support import Encoded, Story

from flowdeck.events.catalogue import CATALOGUE
from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.store import query
from flowdeck_sinks.store.schema import COLUMNS


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[JournalSink]:
    """A journal in a new store."""
    sink = JournalSink(tmp_path / "store")
    yield sink
    sink.close()


@pytest.fixture
def story(sink: JournalSink) -> Story:
    """An Event Center that writes to it."""
    return Story(sink)


def rows(story: Story, sql: str) -> list[tuple[Any, ...]]:
    """Return the answer of ``sql`` over everything told so far."""
    assert story.sink.flush(5)
    return list(query(story.sink.store, sql))


def status(story: Story, name: str) -> str:
    """Return the status of one execution."""
    ((value,),) = rows(story, f"SELECT status FROM runs WHERE execution_id = '{name}'")
    return str(value)


def raw(sink: JournalSink, **fields: Any) -> None:
    """Write an event as a hostile or foreign writer would."""
    sink.accept(Encoded(json.dumps({"event_id": "raw", **fields}).encode()))


def test_an_event_has_every_column(story: Story) -> None:
    """Each field of the envelope is a typed column; time is in microseconds, UTC."""
    run = story.execution("e1", task_id="t1", tenant_id="acme", user_id="u1", trace_id="tr1")
    chunk = story.chunk(run, "classify")
    story.tell(
        chunk, "chunk.failed", {"chunk_id": "op-classify"}, scope="each[3]/classify", cause=4, attempt=2,
        duration_us=1500, error=ValueError("no"), message="oops",
    )  # fmt: skip
    story.sink.flush(5)
    result = query(story.sink.store, "FROM events")
    assert [(name, kind) for name, kind in zip(result.columns, result.types, strict=True)] == [
        (column.name, column.type) for column in COLUMNS
    ]
    (row,) = result.rows
    event = dict(zip(result.columns, row, strict=True))
    ts = event.pop("ts")
    assert isinstance(ts, datetime)
    assert abs(ts.timestamp() - ts.replace(tzinfo=None).timestamp()) < 1
    documents = {name: json.loads(event.pop(name)) for name in ("payload", "meta", "run", "error")}
    assert documents["payload"] == {"chunk_id": "op-classify"}
    assert documents["error"]["message"] == "no"
    assert documents["run"]["run_id"] == chunk.run_id
    assert ts.microsecond % 1000 == documents["meta"]["us"]
    event.pop("event_id")
    assert event == {
        "event_type": "chunk.failed", "source": "TriggerFlowExecution", "level": "ERROR", "message": "oops",
        "run_id": chunk.run_id, "parent_run_id": "run-e1", "root_run_id": "run-e1", "run_kind": "chunk_execution",
        "agent_name": None, "model": None, "input_tokens": None, "output_tokens": None, "session_id": None,
        "execution_id": "e1", "flow_name": "audit", "step_name": "classify",
        "operator_id": "op-classify", "scope": "each[3]/classify", "cause": 4, "epoch": 1, "seq": 1, "sub": None,
        "attempt": 2, "duration_ms": 1.5, "task_id": "t1", "tenant_id": "acme", "user_id": "u1", "trace_id": "tr1",
        "error_type": "ValueError", "wseq": 1, "writer": story.sink.writer, "schema_v": 1,
    }  # fmt: skip


def test_a_run_from_start_to_end(story: Story) -> None:
    """A run's row follows its events: running, waiting, running, completed, with counts and duration."""
    run = story.execution("e1", task_id="t1")
    story.tell(run, "triggerflow.execution_started", {"initial_value": 1})
    assert status(story, "e1") == "running"
    chunk = story.chunk(run, "ask")
    story.tell(chunk, "chunk.started", attempt=1)
    story.tell(run, "triggerflow.interrupt_raised", {"interrupt": {"id": "i1", "type": "approval"}})
    story.tell(chunk, "chunk.completed", {"status": "waiting", "returned_pause_signal": True}, duration_us=10)
    story.tell(run, "triggerflow.execution_waiting", {"interrupt_ids": ["i1"]})
    assert status(story, "e1") == "waiting"
    story.tell(run, "triggerflow.execution_resumed", {"interrupt_id": "i1", "value": True})
    assert status(story, "e1") == "running"
    story.tell(run, "triggerflow.execution_completed", {"result": {}}, duration_us=2_500_000)
    story.tell(run, "triggerflow.execution_closed", {"reason": "auto"})
    ((*row, started, ended),) = rows(
        story,
        "SELECT execution_id, run_id, root_run_id, parent_run_id, flow_name, status, duration_ms, events, errors, "
        "waits, steps, task_id, epoch, started_at, ended_at FROM runs",
    )
    assert row == ["e1", "run-e1", "run-e1", None, "audit", "completed", 2500.0, 8, 0, 1, 1, "t1", 1]
    assert started < ended


@pytest.mark.parametrize(
    ("last", "expected"),
    [("failed", "failed"), ("cancelled", "cancelled"), ("completed", "completed")],
)
def test_terminal_statuses(story: Story, last: str, expected: str) -> None:
    """Each terminal event leads to its status, and nothing after it changes that within the epoch."""
    run = story.execution("e1")
    story.tell(run, "triggerflow.execution_started")
    story.tell(run, f"triggerflow.execution_{last}", error=ValueError("broken") if last == "failed" else None)
    story.tell(run, "triggerflow.execution_resumed", {"interrupt_id": "late", "value": 1})
    assert status(story, "e1") == expected
    if last == "failed":
        assert rows(story, "SELECT errors, error_type, error_message FROM runs") == [(1, "ValueError", "broken")]


def test_a_failed_run_names_what_ended_it(story: Story) -> None:
    """The run's error is the terminal event's, else the last one; a failure that was retried successfully is none."""
    for name, own in (("own", TimeoutError("gave up")), ("chunks", None), ("healed", None)):
        run = story.execution(name)
        story.tell(story.chunk(run, "a"), "chunk.failed", {"will_retry": True}, error=ValueError("first try"))
        if name != "healed":
            story.tell(story.chunk(run, "a"), "chunk.failed", {"will_retry": False}, error=KeyError("second try"))
        story.tell(run, f"triggerflow.execution_{'completed' if name == 'healed' else 'failed'}", error=own)
    assert rows(story, "SELECT execution_id, error_type, error_message, errors FROM runs ORDER BY 1") == [
        ("chunks", "KeyError", "'second try'", 3),
        ("healed", None, None, 1),
        ("own", "TimeoutError", "gave up", 3),
    ]


def test_a_new_epoch_opens_a_finished_run(story: Story) -> None:
    """A recovered execution is running again: a newer epoch outweighs every event of the older."""
    run = story.execution("e1")
    story.tell(run, "triggerflow.execution_failed", epoch=1, seq=50)
    story.tell(run, "triggerflow.execution_recovered", epoch=2, seq=1)
    assert status(story, "e1") == "running"


def test_statuses_are_the_catalogues(story: Story) -> None:
    """Every transition of the catalogue is honoured, and no other name, however it ends, moves a status."""
    transitions = {
        name: spec.transition
        for name, spec in CATALOGUE.items()
        if spec.run_kind == "workflow_execution" and spec.transition
    }
    assert set(transitions.values()) >= {"running", "waiting", "completed", "failed", "cancelled"}
    for number, name in enumerate(transitions):
        story.tell(story.execution(f"e{number}"), name)
    assert dict(rows(story, "SELECT execution_id, status FROM runs")) == {
        f"e{number}": to for number, to in enumerate(transitions.values())
    }
    run = story.execution("mine")
    story.tell(run, "triggerflow.execution_started")
    for name in ("my.execution_failed", "billing.completed", "workflow.cancelled"):
        story.tell(run, name)
    assert status(story, "mine") == "running"


def test_missing_and_unordered_events(story: Story) -> None:
    """Without its start a run still has a row; written out of order, seq decides, not the place in the file."""
    run = story.execution("no-start")
    story.tell(story.chunk(run, "a"), "chunk.started")
    assert rows(story, "SELECT execution_id, run_id, status, steps FROM runs") == [
        ("no-start", "run-no-start", "running", 1)
    ]
    run = story.execution("mixed")
    story.tell(run, "triggerflow.execution_resumed", {"interrupt_id": "i", "value": 1}, seq=7)
    story.tell(run, "triggerflow.execution_waiting", {"interrupt_ids": ["i"]}, seq=5)
    story.tell(run, "triggerflow.execution_started", seq=1)
    assert status(story, "mixed") == "running"


def test_doubled_events_count_once(story: Story) -> None:
    """The same line twice changes no number."""
    run = story.execution("e1")
    story.tell(run, "triggerflow.execution_started")
    chunk = story.chunk(run, "a")
    story.tell(chunk, "chunk.started")
    story.tell(chunk, "chunk.failed", error=ValueError("x"))
    story.sink.flush(5)
    first = rows(story, "FROM runs"), rows(story, "FROM spans ORDER BY run_id")
    for path in story.sink.layout.journal.glob("w*.jsonl"):
        body = path.read_bytes().split(b"\n", 1)[1]
        path.with_name(path.name.replace("-000001", "-000099")).write_bytes(body)
    second = rows(story, "FROM runs"), rows(story, "FROM spans ORDER BY run_id")
    assert second == first
    assert rows(story, "SELECT count(*), count(DISTINCT event_id) FROM events") == [(6, 3)]


def test_spans_are_attempts(story: Story) -> None:
    """One row per attempt, each with its parent, status, start, duration and error."""
    run = story.execution("e1")
    story.tell(run, "triggerflow.execution_started")
    for attempt, end in ((1, "chunk.failed"), (2, "chunk.completed")):
        chunk = story.chunk(run, "read")
        story.tell(chunk, "chunk.started", scope="read", attempt=attempt)
        story.tell(
            chunk, end, scope="read", attempt=attempt, duration_us=attempt * 1000,
            error=UnicodeError("bad") if attempt == 1 else None,
        )  # fmt: skip
    chunk = story.chunk(run, "write")
    story.tell(chunk, "chunk.started", scope="write", attempt=1)
    assert rows(
        story,
        "SELECT step_name, scope, attempt, status, duration_ms, error_type, parent_run_id, execution_id, events "
        "FROM spans WHERE run_kind = 'chunk_execution' ORDER BY started_at, attempt",
    ) == [
        ("read", "read", 1, "failed", 1.0, "UnicodeError", "run-e1", "e1", 2),
        ("read", "read", 2, "completed", 2.0, None, "run-e1", "e1", 2),
        ("write", "write", 1, "running", None, None, "run-e1", "e1", 1),
    ]
    assert rows(story, "SELECT status, step_name FROM spans WHERE run_kind = 'workflow_execution'") == [
        ("running", None)
    ]


def test_lost_when_the_writer_is_gone(story: Story) -> None:
    """An open run whose writer ended is lost, a finished one is not, and a resumable one is not."""
    for name, last in (("open", None), ("parked", "triggerflow.execution_waiting"), ("done", "completed")):
        run = story.execution(name)
        story.tell(run, "triggerflow.execution_started")
        story.tell(story.chunk(run, "a"), "chunk.started")
        if last:
            story.tell(run, last if "." in last else f"triggerflow.execution_{last}")
    ask = "SELECT execution_id, status FROM runs ORDER BY 1"
    assert rows(story, ask) == [("done", "completed"), ("open", "running"), ("parked", "waiting")]
    story.sink.close()
    assert list(query(story.sink.store, ask)) == [("done", "completed"), ("open", "lost"), ("parked", "lost")]
    assert list(query(story.sink.store, ask, resumable=["parked"]))[2] == ("parked", "waiting")
    spans = query(story.sink.store, "SELECT DISTINCT execution_id, status FROM spans WHERE step_name = 'a' ORDER BY 1")
    assert list(spans) == [("done", "lost"), ("open", "lost"), ("parked", "lost")]


def test_another_writer_takes_over(story: Story) -> None:
    """A run continued by a living process is not lost because its first process ended."""
    first = story.execution("e1")
    story.tell(first, "triggerflow.execution_started")
    story.sink.close()
    second = JournalSink(story.sink.store)
    later = Story(second)
    later.tell(later.execution("e1"), "triggerflow.execution_recovered", epoch=2, seq=1)
    assert status(later, "e1") == "running"
    second.close()


def test_interrupts_have_a_history(story: Story) -> None:
    """Raised, answered by id, answered by emit, expired and cancelled interrupts, one row each."""
    run = story.execution("e1")
    for name in ("asked", "by-id", "by-emit", "expired", "cancelled"):
        record = {
            "id": name, "type": "approval", "payload": {"package": name}, "resume_to": "next",
            "source_flow_name": "audit", "source_operator_id": "op1",
        }  # fmt: skip
        story.tell(run, "triggerflow.interrupt_raised", {"interrupt": record})
    story.tell(run, "triggerflow.interrupt_answered", {"interrupt_id": "by-id", "actor": "ana", "value": {"ok": True}})
    story.tell(run, "triggerflow.execution_resumed", {"interrupt_id": "by-id", "value": {"ok": True}})
    story.tell(
        run, "triggerflow.execution_resumed",
        {"signal": {"event": "Go"}, "interrupts": [{"id": "by-emit", "response": 5}]},
    )  # fmt: skip
    story.tell(run, "triggerflow.interrupt_expired", {"interrupt": {"id": "expired"}, "on_expire": "fail"})
    story.tell(
        run, "triggerflow.pending_interrupts_cancelled", {"reason": "close", "interrupts": [{"id": "cancelled"}]}
    )
    found = rows(
        story,
        "SELECT interrupt_id, status, type, flow_name, execution_id, operator_id, payload ->> '$.package', response, "
        "actor, closed_at IS NULL, wait_ms >= 0 FROM interrupts ORDER BY raised_at",
    )
    common = ("approval", "audit", "e1", "op1")
    assert found == [
        ("asked", "waiting", *common, "asked", None, None, True, None),
        ("by-id", "resumed", *common, "by-id", '{"ok":true}', "ana", False, True),
        ("by-emit", "resumed", *common, "by-emit", "5", None, False, True),
        ("expired", "expired", *common, "expired", None, None, False, True),
        ("cancelled", "cancelled", *common, "cancelled", None, None, False, True),
    ]


def test_errors_are_listed(story: Story) -> None:
    """The errors view has what a person looks for first."""
    run = story.execution("e1")
    story.tell(story.chunk(run, "a"), "chunk.failed", {"will_retry": True}, error=ValueError("no such file"), attempt=1)
    story.tell(run, "triggerflow.execution_started")
    assert rows(story, "SELECT execution_id, step_name, error_type, message, will_retry, attempt FROM errors") == [
        ("e1", "a", "ValueError", "no such file", True, 1)
    ]


HOSTILE: list[dict[str, Any]] = [
    {"timestamp": 2**63},
    {"timestamp": 2**63 - 1},
    {"timestamp": -(2**63)},
    {"timestamp": 253402300799999},
    {"timestamp": 1e300},
    {"timestamp": "yesterday"},
    {"timestamp": None},
    {"timestamp": 5, "meta": {"us": 2**62, "seq": 2**70, "epoch": 2**63 - 1, "duration_us": 2**63 - 1}},
    {"timestamp": 5, "meta": {"seq": -(2**63), "epoch": -5, "us": -1, "scope": {"a": 1}, "cause": "x"}},
    {"timestamp": 5, "meta": [1, 2], "run": "text", "error": "text", "payload": [1]},
    {"timestamp": 5, "meta": 5, "run": {"run_id": 5, "execution_id": ["x"], "meta": "y"}, "error": 5},
    {"timestamp": 5, "error": {"type": {"a": 1}, "message": [1], "retryable": "perhaps"}, "level": "TRACE"},
    {"timestamp": 5, "run": {"run_id": "self", "parent_run_id": "self", "root_run_id": "self", "execution_id": "x"}},
    {"timestamp": 5, "run": {"run_id": "a", "parent_run_id": "b"}},
    {"timestamp": 5, "run": {"run_id": "b", "parent_run_id": "a"}},
    {"event_type": "triggerflow.interrupt_raised", "payload": {"interrupts": {"id": 5}, "interrupt": [1]}},
    {"event_type": "triggerflow.execution_resumed", "payload": {"interrupts": [5, None, "x", {"id": {}}]}},
    {"timestamp": 5, "payload": {"will_retry": "maybe"}, "level": "ERROR"},
    {"timestamp": 5, "message": "\x1b[2J\x00<b>", "event_type": ""},
    {"timestamp": 5, "event_type": "triggerflow.execution_started", "run": {"execution_id": "h1", "run_id": "h1"}},
    {"timestamp": 2**62, "event_type": "triggerflow.execution_failed", "run": {"execution_id": "h1", "run_id": "h1"}},
]  # fmt: skip


def test_hostile_events_fail_no_query(story: Story) -> None:
    """Whatever a line holds, every view answers, the line is counted, and good runs are right."""
    run = story.execution("good")
    story.tell(run, "triggerflow.execution_started")
    for number, fields in enumerate(HOSTILE):
        raw(story.sink, **{"event_type": "hostile", **fields, "event_id": f"h{number}"})
    deep = "[" * 600 + "]" * 600
    for number, text in enumerate((
        f'{{"event_id":"deep1","timestamp":5,"payload":{deep}}}',
        f'{{"event_id":"deep2","timestamp":5,"meta":{deep},"run":{{"meta":{deep}}}}}',
        '{"event_id":"twice","event_id":"twice2","timestamp":5}',
        '{"event_id":"' + "x" * 70_000 + '","timestamp":5}',
    )):  # fmt: skip
        story.sink.accept(Encoded(text.encode()))
        assert number >= 0
    story.tell(run, "triggerflow.execution_completed")
    assert rows(story, "SELECT count(*), count(DISTINCT wseq) FROM events") == [(len(HOSTILE) + 6,) * 2]
    for view in ("events", "runs", "spans", "interrupts", "errors", "damaged_lines"):
        rows(story, f"FROM {view}")
    assert status(story, "good") == "completed"
    assert status(story, "h1") == "failed"
    assert rows(story, "SELECT parent_run_id FROM spans WHERE run_id = 'self'") == [(None,)]
    assert rows(story, "SELECT count(*) FROM events WHERE ts IS NULL AND wseq <= 8") == [(7,)]


def test_damaged_lines_hide_nothing_else(story: Story) -> None:
    """Torn lines, garbage, NUL padding and lone surrogates are skipped and counted; their neighbours are read."""
    run = story.execution("e1")
    story.tell(run, "triggerflow.execution_started")
    journal = story.sink.layout.journal
    good = b'{"wseq":1,"event_id":"g%d","event_type":"x","timestamp":5}\n'
    (journal / "wdamaged-000001.jsonl").write_bytes(
        b'{"flowdeck":"journal","format":1,"writer":"wdamaged"}\n'
        + (good % 1)
        + b'{"wseq":2,"event_id":"torn","pay\n'
        + (good % 2)
        + b"\x00" * 64
        + b"\n"
        + b'{"event_id":"surrogate","message":"\\ud800"}\n'
        + b'{"event_id":"cut utf-8","message":"\xc3\n'
        + b"garbage\n"
        + (good % 3)
        + b'{"wseq":9,"event_id":"last","event_ty'
    )
    assert rows(story, "SELECT event_id FROM events WHERE writer = 'wdamaged' ORDER BY 1") == [
        ("g1",),
        ("g2",),
        ("g3",),
    ]
    assert rows(story, "FROM damaged_lines") == [("wdamaged", "wdamaged-000001.jsonl", 6)]


def test_user_events_and_unknown_kinds_are_kept(story: Story) -> None:
    """Unknown types, sources, payload keys and meta keys of users are in events as they are."""
    run = story.execution("e1")
    story.tell(run, "billing.invoice_sent", {"amount": 12.5}, meta={"region": "eu"}, source="Billing")
    assert rows(story, "SELECT event_type, source, payload ->> '$.amount', meta ->> '$.region' FROM events") == [
        ("billing.invoice_sent", "Billing", "12.5", "eu")
    ]
