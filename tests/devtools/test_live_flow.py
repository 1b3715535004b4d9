"""DevTools beside a flow that really runs: real events, real journal, real answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.devtools.deck import make_app, press, running, screen_text, until
from tests.devtools.terminal import wait_until

from flowdeck import Retry, TriggerFlow, TriggerFlowRuntimeData, runtime
from flowdeck.durable import ControlClient
from flowdeck_devtools.core import live as live_module
from flowdeck_devtools.core.clock import SystemClock
from flowdeck_devtools.core.history import History
from flowdeck_devtools.core.live import LiveStore
from flowdeck_devtools.core.opened import OpenedRun
from flowdeck_devtools.core.wire import head
from flowdeck_devtools.tui.screens.execution import ExecutionScreen
from flowdeck_devtools.tui.screens.inbox import InboxScreen

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {
        "decision": {"type": "string", "enum": ["approve", "reject"], "title": "Ship it?"},
        "note": {"type": "string", "title": "Why"},
        "copies": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["decision", "copies"],
}


def approval_flow() -> TriggerFlow:
    """Three items; one fails at first; each asks a person."""
    flow = TriggerFlow(name="approval")

    async def items(data: TriggerFlowRuntimeData) -> Any:
        return [{"name": name} for name in ("alpha", "beta", "gamma")]

    async def work(data: TriggerFlowRuntimeData) -> Any:
        if data.attempt == 1 and data.input["name"] == "beta":
            raise ValueError("the first attempt fails")
        return data.input

    async def ask(data: TriggerFlowRuntimeData) -> Any:
        question = f"May we ship {data.input['name']}?"
        return await data.async_pause_for(type="review", payload={"question": question}, schema=SCHEMA)

    async def record(data: TriggerFlowRuntimeData) -> Any:
        return data.input

    (
        flow.to(items)
        .for_each(concurrency=3)
        .to(work, retry=Retry(attempts=2))
        .to(("ask", ask))
        .to(("record", record))
        .end_for_each()
        .to(("report", record))
    )
    return flow


@asynccontextmanager
async def flowing(store: Path) -> AsyncIterator[Any]:
    """An execution that runs, observed by the store, until the block ends."""
    with runtime.observe(store=store):
        execution = approval_flow().create_execution(auto_close=False)
        task = asyncio.create_task(execution.async_start({"order": 1}))
        try:
            yield execution
        finally:
            await execution.async_close(pending_interrupts="cancel")
            await task


async def test_a_person_answers_in_the_inbox_and_the_run_goes_on(store: Path) -> None:
    """Choose, fill in, be told what is missing, review, send: the flow gets exactly that answer."""
    async with flowing(store) as execution:
        app = make_app(store, clock=SystemClock())
        async with running(app) as pilot:
            await until(pilot, lambda: app.session.inbox.waiting == 3, "three questions")
            await press(pilot, "3")
            screen = app.screen
            assert isinstance(screen, InboxScreen)
            await until(pilot, lambda: screen.form.has_fields, "the form")
            await until(pilot, lambda: "! 3 waiting" in screen_text(app), "the badge")
            await press(pilot, "enter", "down", "enter")
            await until(pilot, lambda: screen.form.typed().get("decision") == "reject", "the choice")
            await pilot.pause(0.5)  # the guard against answering what just appeared
            await press(pilot, "ctrl+s")
            await until(pilot, lambda: "needs a value" in screen_text(app), "the complaint")
            await press(pilot, *"3", "ctrl+s")
            await until(pilot, lambda: "Send this answer?" in screen_text(app), "the review")
            assert '{"decision":"reject","copies":3}' in screen_text(app).replace("\n", "")
            assert len(execution.get_pending_interrupts()) == 3  # nothing was sent yet
            await press(pilot, "enter")
            await until(pilot, lambda: len(execution.get_pending_interrupts()) == 2, "the answer to arrive")
            await until(pilot, lambda: app.session.inbox.waiting == 2, "the inbox to show it")
            answered = [row for row in app.session.inbox.rows if row.status == "resumed"]
            assert (answered[0].response, answered[0].actor) == ({"decision": "reject", "copies": 3}, "ana")
            assert screen.table.current is not None and screen.table.current.is_open
            await press(pilot, "o")
            run = app.screen
            assert isinstance(run, ExecutionScreen)
            await until(
                pilot, lambda: "for_each" in screen_text(app) and "record" in screen_text(app), "the step after"
            )


async def test_marked_questions_are_answered_together(store: Path) -> None:
    """One form, one review that names how many, one answer each."""
    async with flowing(store) as execution:
        app = make_app(store, clock=SystemClock())
        async with running(app) as pilot:
            await until(pilot, lambda: app.session.inbox.waiting == 3, "three questions")
            await press(pilot, "3")
            screen = app.screen
            assert isinstance(screen, InboxScreen)
            await until(pilot, lambda: screen.form.has_fields, "the form")
            await press(pilot, "space", "space", "space", "g", "enter")
            await until(pilot, lambda: screen.form.has_fields, "the form")
            await pilot.pause(0.5)  # the guard against answering what just appeared
            await press(pilot, "ctrl+e")
            await until(pilot, lambda: "" in screen.form.typed(), "the JSON form")
            await press(pilot, *'{"decision":"approve","copies":2}', "ctrl+s")
            await until(pilot, lambda: "to 3 questions?" in screen_text(app), "the review")
            await press(pilot, "enter")
            await until(pilot, lambda: app.session.inbox.waiting == 0, "all to be answered")
            assert not execution.get_pending_interrupts()


async def test_the_first_answer_wins_and_the_form_says_who_gave_it(store: Path) -> None:
    """Answered elsewhere while one types: the form closes, nothing is sent twice, the draft of another stays."""
    async with flowing(store):
        app = make_app(store, clock=SystemClock())
        async with running(app) as pilot:
            await until(pilot, lambda: app.session.inbox.waiting == 3, "three questions")
            await press(pilot, "3")
            screen = app.screen
            assert isinstance(screen, InboxScreen)
            await until(pilot, lambda: screen.form.has_fields, "the form")
            await press(pilot, "enter", "tab", *"draft")
            row = screen.table.current
            assert row is not None
            answer = {"decision": "approve", "copies": 1}
            result = await asyncio.to_thread(ControlClient(store).answer, row.key, answer, "bo")
            assert result.accepted
            await until(pilot, lambda: not screen.form.has_fields, "the form to close")
            await until(pilot, lambda: "bo answered" in screen_text(app), "who answered")
            report = await asyncio.to_thread(app.session.inbox.answer, row, answer, "ana")
            assert not report.applied
            assert "too late: bo answered" in report.headline


async def test_a_draft_survives_leaving_and_can_be_written_as_json(store: Path) -> None:
    """Moving to another question and back, or to another screen, loses nothing."""
    async with flowing(store):
        app = make_app(store, clock=SystemClock())
        async with running(app) as pilot:
            await until(pilot, lambda: app.session.inbox.waiting == 3, "three questions")
            await press(pilot, "3")
            screen = app.screen
            assert isinstance(screen, InboxScreen)
            await until(pilot, lambda: screen.form.has_fields, "the form")
            await press(pilot, "enter", "enter", "tab", *"fine", "escape", "j")
            await until(pilot, lambda: screen.form.typed().get("note") == "", "the next form")
            await press(pilot, "k", "5", "3")
            await until(pilot, lambda: screen.form.typed().get("note") == "fine", "the draft")
            await press(pilot, "ctrl+e")
            await until(pilot, lambda: '"note": "fine"' in str(screen.form.typed().get("")), "the draft as JSON")


async def test_a_real_run_has_the_tree_its_flow_has(store: Path) -> None:
    """Scopes, attempts and waits as the runtime really writes them."""
    async with flowing(store) as execution:
        await asyncio.to_thread(wait_until, lambda: len(execution.get_pending_interrupts()) == 3, 5.0, "three pauses")
        live = LiveStore(store)

        def seen() -> bool:
            live.poll_once()
            return any(row.status == "waiting" and len(row.waits) == 3 for row in live.index)

        await asyncio.to_thread(wait_until, seen, 5.0, "the run to wait")
        (row,) = live.index.newest()
        assert (row.name, row.errors, row.retries, row.partial) == ("approval", 0, 1, False)
        run = OpenedRun(row.run_id, live, History(store))
        assert await asyncio.to_thread(run.wait, 5.0)
        run.advance()
        items, group = run.trace.root.children
        assert (items.name, group.name, group.status) == ("items", "for_each", "waiting")
        assert sorted(item.subject for item in group.children) == ["alpha", "beta", "gamma"]
        beta = next(item for item in group.children if item.subject == "beta")
        work, ask = beta.children
        assert (work.name, work.attempt_count, work.status) == ("work", 2, "completed")
        assert (ask.name, ask.status) == ("ask", "waiting")


async def test_a_large_journal_is_not_read_whole(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before is asked by SQL, what comes is followed; opening an old run shows all of it."""
    monkeypatch.setattr(live_module, "EAGER_BYTES", 0)
    async with flowing(store) as execution:
        await asyncio.to_thread(wait_until, lambda: len(execution.get_pending_interrupts()) == 3, 5.0, "three pauses")
        app = make_app(store, clock=SystemClock())
        async with running(app) as pilot:
            await until(pilot, lambda: "approval" in screen_text(app), "the run from history", timeout=20.0)
            assert len(app.session.live.ring) == 0
            await press(pilot, "enter")
            await until(pilot, lambda: "for_each 0/3" in screen_text(app), "its tree", timeout=20.0)
            interrupt = next(iter(execution.get_pending_interrupts()))
            await execution.async_continue_with(interrupt, {"decision": "approve", "copies": 1})
            await until(pilot, lambda: "for_each 1/3" in screen_text(app), "the live events on top")


async def test_history_gives_the_same_tree_as_the_live_journal(store: Path) -> None:
    """A run that began before the window was opened is read by SQL, and no line counts twice."""
    async with flowing(store) as execution:
        await asyncio.to_thread(wait_until, lambda: len(execution.get_pending_interrupts()) == 3, 5.0, "three pauses")
        live = LiveStore(store)

        def seen() -> bool:
            live.poll_once()
            return any(row.status == "waiting" for row in live.index)

        await asyncio.to_thread(wait_until, seen, 5.0, "the run to wait")
        (row,) = live.index.newest()
        history = History(store)
        lines, problem = await asyncio.to_thread(history.run_lines, row.run_id)
        assert problem is None
        assert len(lines) == row.events
        from_ring = OpenedRun(row.run_id, live, history)
        late = LiveStore(store)  # opened now: it has seen nothing of the run
        from_history = OpenedRun(row.run_id, late, history)
        trees = []
        for run in (from_ring, from_history):
            assert await asyncio.to_thread(run.wait, 20.0)
            while run.loading:
                run.advance()
            run.trace.extend((writer, line, head(line)) for writer, line in lines)  # once more: must not count
            nodes = run.trace.nodes.values()
            trees.append((run.trace.events, {node.key: (node.name, node.status, node.started_us) for node in nodes}))
        different = {
            key: (trees[0][1][key], trees[1][1].get(key))
            for key in trees[0][1]
            if trees[0][1][key] != trees[1][1].get(key)
        }
        assert (trees[0][0], different) == (trees[1][0], {})
        history.want_runs()
        await asyncio.to_thread(wait_until, lambda: not history.busy, 20.0, "runs")
        page = history.take_runs()
        assert page is not None
        assert page.last
        assert [(one.run_id, one.name, one.status, one.events) for one in page.rows] == [
            (row.run_id, "approval", "waiting", row.events)
        ]
