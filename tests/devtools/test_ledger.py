"""The ledger: one entry per act, whoever told about it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.devtools.deck import make_app, press, running, screen_text, until
from tests.devtools.scene import START_US, Scene

from flowdeck.durable import InboxEntry
from flowdeck_devtools.core.ledger import merged, of_inbox, of_rows
from flowdeck_devtools.tui.screens.ledger import LedgerScreen


def request(kind: str, *, actor: str = "ana", target: str | None = None, **more: Any) -> InboxEntry:
    given: dict[str, Any] = {"payload": None, "outcome": None, "detail": None, "created_us": START_US, **more}
    return InboxEntry(
        id=given.pop("id", 1), execution_id="x1", kind=kind, target=target, dedup_key="k", actor=actor, acked_us=None,
        **given,
    )  # fmt: skip


def event(event_type: str, at: int = 0, **payload: Any) -> tuple[Any, ...]:
    return (START_US + at, event_type, "x1", "refund", json.dumps(payload))


def test_a_request_and_the_events_of_its_application_are_one_act() -> None:
    """The inbox says what was sent, the events what it came to and in which flow."""
    inbox = of_inbox([request("resume", target="i1", payload={"decision": "approve", "note": "ok"})])
    told = of_rows(
        [
            event("triggerflow.inbox_applied", 5, kind="resume", target="i1", actor="ana", outcome="applied"),
            event("triggerflow.interrupt_answered", 4, interrupt_id="i1", actor="ana", value={"decision": "approve"}),
        ]
    )
    (entry,) = merged(told, inbox)
    assert (entry.actor, entry.action, entry.outcome, entry.flow) == ("ana", "answer", "applied", "refund")
    assert entry.reason == "ok"


def test_events_alone_are_enough_and_keep_their_order() -> None:
    """State that was pruned long ago takes nothing from the history."""
    told = of_rows(
        [
            event("triggerflow.inbox_applied", 9, kind="cancel", target=None, actor="bo", outcome="applied"),
            event("triggerflow.interrupt_answered", 4, interrupt_id="i1", actor="ana", value=1),
            event("triggerflow.inbox_applied", 5, kind="resume", target="i1", actor="ana", outcome="applied"),
            event("devtools.action", 7, action="fork", target="x9", actor="cy", outcome="applied", detail="into x10"),
        ]
    )
    entries = merged(told, [])
    assert [(one.action, one.actor) for one in entries] == [("cancel", "bo"), ("fork", "cy"), ("answer", "ana")]
    assert entries[1].execution_id == "x9"


def test_a_refused_and_a_pending_request_say_so() -> None:
    """What was not applied is an act, too."""
    inbox = of_inbox([request("cancel", id=1), request("intervene", id=2, outcome="rejected", detail="disabled")])
    entries = merged([], inbox)
    assert {entry.effect for entry in entries} == {"pending", "rejected: disabled"}


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"', '{"actor": 5, "kind": []}'])
def test_odd_payloads_never_break_the_ledger(text: str) -> None:
    """Another version may have written them."""
    rows = [(START_US, kind, None, None, text) for kind in ("triggerflow.inbox_applied", "devtools.action", "odd")]
    assert isinstance(merged(of_rows(rows), []), list)


@pytest.mark.anyio
async def test_acts_of_others_appear_with_name_reason_and_effect(scene: Scene) -> None:
    """Applied ones from the history, those that wait from the control store."""
    run = scene.execution("refund", at=1.0)
    applied = {"kind": "cancel", "target": None, "actor": "bo", "outcome": "applied", "detail": None}
    scene.emit("triggerflow.inbox_applied", at=2.0, run=run.run, payload=applied)
    asked = scene.execution("audit", at=3.0)
    scene.ask(asked, "i1", "May we?", at=4.0)
    from flowdeck.durable import ControlClient

    with ControlClient(scene.store) as client:
        client.put_inbox("cancel", asked.execution_id, None, {"reason": "a duplicate"}, "ana")
    app = make_app(scene.store)
    async with running(app) as pilot:
        await press(pilot, "4")
        screen = app.screen
        assert isinstance(screen, LedgerScreen)
        await until(pilot, lambda: len(screen.table.rows) == 2, "both acts")
        text = screen_text(app)
        for expected in ("bo", "applied", "a duplicate", "pending", "1 not applied yet"):
            assert expected in text
        await press(pilot, "slash", *"actor:bo", "enter")
        await until(pilot, lambda: len(screen.table.rows) == 1, "the filter")
        await press(pilot, "o")
        await until(pilot, lambda: app.current_place == "execution", "its run")
