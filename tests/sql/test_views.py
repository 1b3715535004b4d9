"""The views over events as the runtime writes them: people, products, errors, models, time."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.sinks.support import Story
from tests.sql.conftest import Ask

from flowdeck_sinks.store import connect
from flowdeck_sinks.store.views import VIEWS


def test_views_have_the_columns_they_document(ask: Ask) -> None:
    """Every view answers on an empty store, with just the columns it says it has, in order."""
    for view in VIEWS:
        assert [row[0] for row in ask(f"DESCRIBE {view.name}")] == list(view.columns), view.name
        assert ask(f"FROM {view.name}") == [], view.name


def test_a_sub_flows_question_appears_once(story: Story, ask: Ask) -> None:
    """The record of a child that can be answered at its parent is hidden; the parent's stays."""
    parent = story.execution("parent")
    child = story.execution("child")
    story.tell(child, "triggerflow.interrupt_raised", {"interrupt": {"id": "c-i1", "projected_as": "p-i1"}})
    story.tell(parent, "triggerflow.interrupt_raised", {"interrupt": {"id": "p-i1", "type": "approval"}})
    assert ask("SELECT interrupt_id, status FROM interrupts") == [("p-i1", "waiting")]
    story.tell(parent, "triggerflow.execution_resumed", {"interrupt_id": "p-i1", "value": 1})
    story.tell(child, "triggerflow.execution_resumed", {"interrupt_id": "c-i1", "value": 1})
    assert ask("SELECT interrupt_id, status FROM interrupts") == [("p-i1", "resumed")]


def test_the_same_interrupt_id_in_two_executions(story: Story, ask: Ask) -> None:
    """An answer in one execution does not close the other's question."""
    for name in ("e1", "e2"):
        story.tell(story.execution(name), "triggerflow.interrupt_raised", {"interrupt": {"id": "i1"}})
    story.tell(story.execution("e2"), "triggerflow.interrupt_answered", {"interrupt_id": "i1", "value": 7})
    assert ask("SELECT execution_id, status, response FROM interrupts ORDER BY 1") == [
        ("e1", "waiting", None),
        ("e2", "resumed", "7"),
    ]


def test_waiting_time_is_counted(story: Story, ask: Ask) -> None:
    """An execution's wait is the time between waiting and what followed; a step's, the time its question was open."""
    run = story.execution("e1")
    chunk = story.chunk(run, "ask")
    story.tell(run, "triggerflow.execution_started")
    story.tell(chunk, "chunk.started")
    story.tell(chunk, "triggerflow.interrupt_raised", {"interrupt": {"id": "i1"}})
    story.tell(chunk, "chunk.completed", {"status": "waiting"}, duration_us=5)
    story.tell(run, "triggerflow.execution_waiting", {"interrupt_ids": ["i1"]})
    assert ask("SELECT status, wait_ms, waiting_since IS NOT NULL FROM runs") == [("waiting", None, True)]
    story.tell(run, "triggerflow.execution_resumed", {"interrupt_id": "i1", "value": 1})
    story.tell(run, "triggerflow.execution_waiting", {"interrupt_ids": ["i2"]})
    story.tell(run, "triggerflow.execution_completed")
    ((wait, since),) = ask("SELECT wait_ms, waiting_since FROM runs")
    ((expected,),) = ask(
        "SELECT sum(CASE WHEN event_type = 'triggerflow.execution_waiting' THEN -1 ELSE 1 END * epoch_us(ts)) / 1000.0 "
        "FROM events WHERE event_type IN ('triggerflow.execution_waiting', 'triggerflow.execution_resumed', "
        "'triggerflow.execution_completed')"
    )
    assert wait == pytest.approx(float(expected))
    assert wait > 0
    assert since is None
    spans = dict(ask("SELECT coalesce(step_name, 'execution'), wait_ms FROM spans"))
    assert spans["execution"] == pytest.approx(wait)
    ((asked,),) = ask("SELECT wait_ms FROM interrupts WHERE interrupt_id = 'i1'")
    assert asked - 1 <= spans["ask"] <= asked + 1


def test_a_resumable_run_is_not_lost(story: Story) -> None:
    """What state.db holds stays waiting and says that it can be resumed; the rest of a dead writer's runs is lost."""
    for name in ("kept", "gone"):
        story.tell(story.execution(name), "triggerflow.execution_waiting", {"interrupt_ids": []})
    story.sink.close()
    with connect(story.sink.store, resumable=["kept"]) as connection:
        for source in ("runs", "recent_runs(1)"):
            rows = connection.execute(f"SELECT execution_id, status, resumable FROM {source} ORDER BY 1").fetchall()
            assert rows == [("gone", "lost", False), ("kept", "waiting", True)]


def test_interventions_have_a_history(story: Story, ask: Ask) -> None:
    """One row per intervention, with its status, times, author and takers, as last reported."""
    run = story.execution("e1")

    def record(name: str, **more: object) -> dict[str, object]:
        return {"intervention": {"id": name, "author": "ana", "target": "risk", "payload": {"text": name}, **more}}

    for name in ("used", "refused", "late", "new"):
        story.tell(run, "triggerflow.intervention_received", record(name, status="pending", version=1))
    inserted = {"mode": "planned", "operator_name": "risk_assessment"}
    story.tell(run, "triggerflow.intervention_inserted", record("used", insertion=inserted))
    taken = {"risk": {"status": "applied"}}
    story.tell(run, "triggerflow.intervention_consumed", record("used", insertion=inserted, consumers=taken))
    story.tell(run, "triggerflow.intervention_rejected", record("refused", reject_reason="too late"))
    story.tell(run, "triggerflow.intervention_expired", record("late"))
    rows = ask(
        "SELECT intervention_id, status, author, target, payload ->> '$.text', inserted_before, mode, reject_reason, "
        "consumers ->> '$.risk.status', consumed_at >= inserted_at FROM interventions ORDER BY 1"
    )
    assert rows == [
        ("late", "expired", "ana", "risk", "late", None, None, None, None, None),
        ("new", "pending", "ana", "risk", "new", None, None, None, None, None),
        ("refused", "rejected", "ana", "risk", "refused", None, None, "too late", None, None),
        ("used", "inserted", "ana", "risk", "used", "risk_assessment", "planned", None, "applied", True),
    ]


def test_stream_items_are_in_order(story: Story, ask: Ask) -> None:
    """Items of one execution are numbered as they left, whatever order they were written in, each once."""
    run = story.execution("e1")
    for seq, item in ((9, {"event_type": "done"}), (3, "first"), (5, [2])):
        story.tell(run, "triggerflow.stream_item_emitted", {"item": item, "item_type": type(item).__name__}, seq=seq)
    assert ask("SELECT position, item, item_type, item_event FROM stream_items ORDER BY position") == [
        (1, '"first"', "str", None),
        (2, "[2]", "list", None),
        (3, '{"event_type":"done"}', "dict", "done"),
    ]


def test_errors_have_one_origin(story: Story, ask: Ask) -> None:
    """What passes through outer runs is marked, and a group counts faults, not reports of them."""
    for number, name in enumerate(("e1", "e2", "e3")):
        run = story.execution(name)
        inner, outer = story.chunk(run, "fetch"), story.chunk(run, "loop")
        error = ValueError(f"order {number} of 'shop-{number}' not found at 0x7f00deadbeef{number}")
        story.tell(inner, "chunk.failed", {"will_retry": False}, error=error)
        story.tell(outer, "chunk.failed", {"propagated_from": inner.run_id}, error=error)
        story.tell(run, "triggerflow.execution_failed", {"origin_run_id": inner.run_id}, error=error)
    story.tell(story.chunk(story.execution("e4"), "fetch"), "chunk.failed", error=TimeoutError("after 3 s"))
    rows = ask(
        "SELECT step_name, propagated, origin_run_id = run_id, fingerprint FROM errors WHERE execution_id = 'e1'"
    )
    assert [row[:3] for row in rows] == [("fetch", False, True), ("loop", True, False), (None, True, False)]
    assert len({row[3] for row in rows}) == 1
    assert ask(
        "SELECT error_type, shape, occurrences, propagations, executions, flows, steps, last_execution_id "
        "FROM error_groups ORDER BY occurrences DESC"
    ) == [
        ("ValueError", "order # of … not found at #", 3, 6, 3, ["audit"], ["fetch"], "e3"),
        ("TimeoutError", "after # s", 1, 0, 1, ["audit"], ["fetch"], "e4"),
    ]


def test_the_twin_of_an_error_is_not_counted(story: Story, ask: Ask) -> None:
    """tool.* events that repeat an action's for old subscribers are no second error."""
    run = story.execution("e1")
    story.tell(run, "action.loop_failed", error=ValueError("x"))
    story.tell(run, "tool.loop_failed", error=ValueError("x"), meta={"compat_event_alias": "action.loop_failed"})
    assert ask("SELECT event_type FROM errors") == [("action.loop_failed",)]


def test_model_usage_is_what_models_said(raw: Callable[..., None], ask: Ask) -> None:
    """Both spellings of token counts are read; a request without usage is counted as such, never guessed."""
    usages = [{"input_tokens": 10, "output_tokens": 2}, {"prompt_tokens": 30, "completion_tokens": 4}, None]
    for number, usage in enumerate(usages):
        run = {"run_id": f"m{number}", "run_kind": "model_request", "agent_name": "writer", "meta": {"flow_name": "f"}}
        for step, (event_type, payload) in enumerate(
            (
                ("model.requesting", {"request": {"data": {"model": "small-1"}}}),
                ("model.meta", {"meta": {"usage": usage}}),
                ("model.completed", {"result": "x"}),
            )
        ):
            raw(
                event_id=f"{number}-{step}", event_type=event_type, payload=payload, run=run, level="INFO",
                timestamp=1_700_000_000_000 + 1000 * number + 10 * step,
            )  # fmt: skip
    assert ask(
        "SELECT run_id, model, status, duration_ms, input_tokens, output_tokens FROM model_calls ORDER BY 1"
    ) == [
        ("m0", "small-1", "completed", 20.0, 10, 2),
        ("m1", "small-1", "completed", 20.0, 30, 4),
        ("m2", "small-1", "completed", 20.0, None, None),
    ]
    assert ask(
        "SELECT day::VARCHAR, model, flow_name, agent_name, requests, failed, without_usage, input_tokens, "
        "output_tokens FROM model_usage"
    ) == [("2023-11-14", "small-1", "f", "writer", 3, 0, 1, 40, 6)]


def test_step_times_are_exact(story: Story, ask: Ask) -> None:
    """Percentiles are those of all attempts, by flow and step; executions are not among them."""
    run = story.execution("e1")
    for number in range(1, 101):
        end = "chunk.failed" if number == 100 else "chunk.completed"
        story.tell(story.chunk(run, "work"), end, duration_us=number * 1000)
    story.tell(run, "triggerflow.execution_completed", duration_us=10**9)
    expected = [("audit", "work", 100, 1, 50.5, 95.05, 99.01, 100.0, 5050.0)]
    for source in ("steps_p95", "recent_steps(1)"):
        rows = ask(f"SELECT * EXCLUDE (last_at) FROM {source}")
        assert [tuple(round(v, 6) if isinstance(v, float) else v for v in row) for row in rows] == expected


def test_evaluations_are_views_too(raw: Callable[..., None], ask: Ask) -> None:
    """Sessions, rounds and checks are read from eval.* events; missing and unknown keys hurt nobody."""
    base = {"source": "evals", "level": "INFO", "timestamp": 1_700_000_000_000}
    checks = [{"check": "exact", "ok": True}, {"name": "tone", "score": 0.5, "detail": {"why": "short"}}, "junk"]
    for number, (event_type, payload) in enumerate(
        (
            ("eval.session_started", {"session_id": "s1", "suite": "refunds", "level": "recorded"}),
            (
                "eval.round_finished",
                {"session_id": "s1", "case": "dup", "round": 1, "state": "passed", "checks": checks},
            ),
            ("eval.round_finished", {"session_id": "s1", "case": {"id": "late"}, "state": "failed", "new_key": 1}),
            ("eval.check", {"session_id": "s1", "case": {"id": "late"}, "check": {"name": "exact", "ok": False}}),
            ("eval.round_finished", {"surprise": [1]}),
            ("eval.session_finished", {"session_id": "s1", "verdict": "fail", "code": 1, "passed": 1, "failed": 1}),
        )
    ):
        raw(event_id=f"e{number}", event_type=event_type, payload=payload, **base)
    assert ask("SELECT session_id, suite, verdict, code, level, passed, failed FROM eval_sessions") == [
        ("s1", "refunds", "fail", 1, "recorded", 1, 1)
    ]
    assert ask("SELECT session_id, case_id, round, state FROM eval_rounds ORDER BY case_id") == [
        ("s1", "dup", 1, "passed"),
        ("s1", "late", 1, "failed"),
    ]
    assert ask("SELECT case_id, check_name, ok, score, detail FROM eval_checks ORDER BY 1, 2") == [
        ("dup", "exact", True, None, None),
        ("dup", "tone", None, 0.5, '{"why":"short"}'),
        ("late", "exact", False, None, None),
    ]
    ((record,),) = ask("SELECT record FROM eval_rounds WHERE case_id = 'late'")
    assert json.loads(record)["new_key"] == 1
