"""Events no honest writer sends: each is kept out of harm's way, and the runs beside it are right.

The rows are those that broke a peer's server for good (devtools_peer §5); there one such event ended every query.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.sinks.support import Encoded, Story
from tests.sql.conftest import Ask

from flowdeck.layout import Layout
from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.store import connect
from flowdeck_sinks.store.views import VIEWS

RUN = {"run_id": "h", "root_run_id": "h", "execution_id": "h", "run_kind": "workflow_execution"}
DEEP = "[" * 600 + "]" * 600

EVENTS: dict[str, dict[str, Any] | str] = {
    "broken JSON": '{"event_id":"x","event_type":',
    "no event_type": {"timestamp": 5},
    "a timestamp of text": {"event_type": "x", "timestamp": "2026-01-01"},
    "an unknown level": {"event_type": "x", "level": "TRACE", "timestamp": 5},
    "a lower-case level": {"event_type": "x", "level": "error", "timestamp": 5},
    "NaN and Infinity": '{"event_id":"x","event_type":"x","timestamp":5,"payload":{"a":NaN,"b":Infinity}}',
    "unknown fields": {"event_type": "x", "timestamp": 5, "trace_id": "t", "new": {"a": 1}},
    "seconds for milliseconds": {"event_type": "x", "timestamp": 1_700_000_000},
    "a negative timestamp": {"event_type": "x", "timestamp": -5},
    "the year 9999": {"event_type": "x", "timestamp": 253402300799000},
    "a timestamp of 2^63": {"event_type": "x", "timestamp": 2**63},
    "a timestamp of 2^63 - 1": {"event_type": "x", "timestamp": 2**63 - 1},
    "a lone surrogate": '{"event_id":"x","event_type":"x","timestamp":5,"message":"\\ud800"}',
    "its own parent": {"event_type": "chunk.started", "timestamp": 5, "run": {**RUN, "parent_run_id": "h"}},
    "a payload 600 deep": f'{{"event_id":"x","event_type":"x","timestamp":5,"payload":{DEEP}}}',
    "meta 600 deep": f'{{"event_id":"x","event_type":"x","timestamp":5,"meta":{DEEP},"run":{{"meta":{DEEP}}}}}',
    "a payload of 5 MB": {"event_type": "x", "timestamp": 5, "payload": {"text": "y" * 5_000_000}},
    "an empty event_type": {"event_type": "", "timestamp": 5},
    "control characters": {
        "event_type": "x\x1b[31m", "timestamp": 5, "message": "\x1b[2J\x00\x07<b>", "level": "ERROR",
    },
    "seq and epoch at the limit": {
        "event_type": "triggerflow.execution_failed", "timestamp": 5, "run": RUN,
        "meta": {"seq": 2**63 - 1, "epoch": 2**63 - 1, "duration_us": 2**63 - 1, "us": 2**63 - 1},
    },
    "numbers beyond every type": {
        "event_type": "model.meta", "timestamp": 10**300, "run": {**RUN, "run_kind": "model_request"},
        "meta": {"seq": 2**200, "epoch": -(2**63), "cause": 1e400, "attempt": "many"},
        "payload": {"meta": {"usage": {"input_tokens": 2**63 - 1, "output_tokens": -(2**63)}}},
    },
    "types all wrong": {
        "event_type": ["x"], "timestamp": {}, "level": 5, "run": "no", "meta": 7, "payload": "p", "error": [1],
    },
    "an interrupt of nonsense": {
        "event_type": "triggerflow.interrupt_raised", "timestamp": 5, "run": RUN,
        "payload": {"interrupt": {"id": {"a": 1}, "expires_at": 1e300, "type": ["t"]}},
    },
    "interrupts of nonsense": {
        "event_type": "triggerflow.execution_resumed", "timestamp": 5, "run": RUN,
        "payload": {"interrupts": [5, None, "x", {"id": []}, {}]},
    },
    "an intervention of nonsense": {
        "event_type": "triggerflow.intervention_received", "timestamp": 5, "run": RUN,
        "payload": {"intervention": {"id": 5, "version": "first", "consumers": 7}},
    },
    "an error of nonsense": {
        "event_type": "chunk.failed", "timestamp": 5, "run": RUN, "level": "ERROR",
        "error": {"type": {"a": 1}, "message": [1], "module": 5, "retryable": "perhaps"},
        "payload": {"will_retry": "maybe", "propagated_from": {"x": 1}},
    },
    "a stream item of nonsense": {
        "event_type": "triggerflow.stream_item_emitted", "timestamp": 5, "run": RUN, "payload": [1, 2],
    },
    "an evaluation of nonsense": {
        "event_type": "eval.round_finished", "timestamp": 5, "payload": {"session_id": 7, "round": "x", "checks": [1]},
    },
    "an error message of quotes": {
        "event_type": "x", "timestamp": 5, "level": "ERROR", "message": "'" * 300 + '"' * 301 + "\n" * 9,
    },
}  # fmt: skip


def line(number: int, event: dict[str, Any] | str) -> bytes:
    """Return an event as a line body, with an id of its own."""
    if isinstance(event, str):
        return event.encode().replace(b'"event_id":"x"', f'"event_id":"h{number}"'.encode(), 1)

    return json.dumps({"event_id": f"h{number}", **event}).encode()


def good(story: Story) -> None:
    """Tell of a run that must be right whatever stands beside it."""
    run = story.execution("good")
    story.tell(run, "triggerflow.execution_started")
    step = story.chunk(run, "step")
    story.tell(step, "chunk.started", scope="step", attempt=1)
    story.tell(step, "chunk.completed", {"output": 1}, scope="step", attempt=1, duration_us=1000)
    story.tell(run, "triggerflow.execution_completed", duration_us=2000)


def everything(store: Path) -> list[str]:
    """Read every column of every view and macro; return the good run's own row as text."""
    with connect(store) as connection:
        for view in VIEWS:
            connection.execute(f"SELECT count(COLUMNS(*)) FROM {view.name}").fetchall()
            if view.name != "damaged_lines":
                connection.execute(f"FROM {view.name}").fetchall()
        for call in (
            "run_events('h')", "run_tree('h')", "recent_runs(1000000)", "recent_errors(1000000)", "slowest(50)",
            "recent_steps(1000000)", "diff_runs('h', 'good')", "why('h0')", "run_tree('good')",
        ):  # fmt: skip
            connection.execute(f"FROM {call}").fetchall()
        row = connection.execute(
            "SELECT status, events, errors, steps, duration_ms FROM runs WHERE execution_id = 'good'"
        ).fetchone()
        return [str(value) for value in row]


GOOD = ["completed", "4", "0", "1", "2.0"]


@pytest.mark.slow
@pytest.mark.parametrize("name", EVENTS)
def test_one_hostile_event_harms_nothing(tmp_path: Path, name: str) -> None:
    """Every view and macro answers, and the run beside it is right."""
    with_it = JournalSink(tmp_path / "store")
    story = Story(with_it)
    good(story)
    with_it.accept(Encoded(line(0, EVENTS[name])))
    with_it.close()
    assert everything(with_it.store) == GOOD


def test_all_hostile_events_at_once(tmp_path: Path) -> None:
    """Together with each other they harm nothing either, and each is an event or a damaged line: none is lost."""
    sink = JournalSink(tmp_path / "store")
    for number, event in enumerate(EVENTS.values()):
        sink.accept(Encoded(line(number, event)))
    good(Story(sink))
    sink.close()
    assert everything(sink.store) == GOOD
    with connect(sink.store) as connection:
        ((read,),) = connection.execute("SELECT count(*) FROM events").fetchall()
        damaged = connection.execute("SELECT sum(lines) FROM damaged_lines").fetchone()[0]
    assert read + damaged == len(EVENTS) + 4
    assert damaged <= 3  # broken JSON, a lone surrogate, perhaps NaN: JSON has none of them


def test_hostile_values_are_shown_as_they_are(raw: Callable[..., None], ask: Ask) -> None:
    """Bounds are kept column by column: what does not fit is NULL, and the rest of the event is there."""
    raw(event_type="x", timestamp=2**63, message="a\x1b[2Jb\x00c", meta={"seq": 2**63, "attempt": 3})
    assert ask("SELECT ts, message, seq, attempt, event_type FROM events") == [(None, "a\x1b[2Jb\x00c", None, 3, "x")]


def views_of(store: Path) -> list[list[tuple[Any, ...]]]:
    """Return what the store says, leaving out who wrote it where."""
    with connect(store) as connection:
        return [
            connection.execute(f"SELECT {columns} FROM {source} ORDER BY ALL").fetchall()
            for source, columns in (
                ("runs", "* EXCLUDE (writer)"),
                ("spans", "* EXCLUDE (writer)"),
                ("interrupts", "*"),
                ("error_groups", "* EXCLUDE (last_message, last_execution_id, last_event_id)"),
                ("stream_items", "execution_id, position, item"),
                ("run_events('e1')", "event_id"),
                ("run_tree('e1')", "name, status"),
            )
        ]


@pytest.mark.parametrize("seed", range(4))
def test_order_and_repetition_change_nothing(tmp_path: Path, seed: int) -> None:
    """Lines in any order, over any number of files, some of them twice: every view says the same."""
    sink = JournalSink(tmp_path / "store")
    story = Story(sink)
    for name in ("e1", "e2"):
        run = story.execution(name, task_id="t")
        story.tell(run, "triggerflow.execution_started")
        step = story.chunk(run, "ask")
        story.tell(step, "chunk.started", scope="ask", attempt=1)
        story.tell(step, "triggerflow.interrupt_raised", {"interrupt": {"id": f"{name}-i", "type": "t"}}, scope="ask")
        story.tell(step, "chunk.completed", {"status": "waiting"}, scope="ask", attempt=1, duration_us=100)
        story.tell(run, "triggerflow.execution_waiting", {"interrupt_ids": [f"{name}-i"]})
        story.tell(run, "triggerflow.execution_resumed", {"interrupt_id": f"{name}-i", "value": 1})
        story.tell(run, "triggerflow.stream_item_emitted", {"item": name})
        step = story.chunk(run, "work")
        error = ValueError("order 5")
        story.tell(step, "chunk.failed", {"will_retry": False}, scope="work", attempt=1, duration_us=50, error=error)
        story.tell(run, "triggerflow.execution_failed", {"origin_run_id": step.run_id}, error=error, duration_us=900)
    sink.close()
    expected = views_of(sink.store)

    (segment,) = (path for path in sink.layout.journal.glob("w*.jsonl"))
    header, *lines = segment.read_bytes().splitlines(keepends=True)
    dice = random.Random(seed)
    shuffled = Layout.create(tmp_path / "shuffled")
    lines += dice.sample(lines, 8)
    dice.shuffle(lines)
    third = len(lines) // 3
    for number, chunk in enumerate((lines[:third], lines[third : 2 * third], lines[2 * third :]), 1):
        (shuffled.journal / f"wother-{number:06d}.jsonl").write_bytes(header + b"".join(chunk))
    assert views_of(shuffled.root) == expected
