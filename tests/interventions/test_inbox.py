"""Interventions from another process: rows of kind ``intervene`` in the inbox."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.execution.support import World, turns

from flowdeck import Runtime
from flowdeck.durable import ControlClient
from flowdeck.execution.control import InboxRow
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution

pytestmark = pytest.mark.anyio


class Control:
    """A control plane that keeps what it is told."""

    def __init__(self) -> None:
        self.acks: list[tuple[int, str, str | None]] = []

    def ack(self, row_id: int, outcome: str, detail: str | None) -> None:
        self.acks.append((row_id, outcome, detail))

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: None


def gated(seen: list[Any]) -> TriggerFlow:
    """A flow that waits, so that there is time to intervene."""
    flow = TriggerFlow(name="gated")
    flow.to(("ask", lambda data: data.pause_for(resume_to="next"))).intervention_point(name="p", target="t").to(
        ("look", lambda data: seen.append([i["payload"] for i in data.interventions]))
    )
    return flow


async def answer(execution: TriggerFlowExecution) -> None:
    await execution.async_continue_with(next(iter(execution.get_pending_interrupts())), "go")


@pytest.fixture
def control(world: World) -> Control:
    made = Control()
    world.services.control = made  # type: ignore[assignment]
    return made


def row(number: int, payload: Any, *, target: str | None = "t", actor: str | None = "ann", key: str = "") -> InboxRow:
    return InboxRow(number, "x", "intervene", target, payload, key or f"k{number}", actor, 0)


async def apply(control: Control, execution: TriggerFlowExecution, *rows: InboxRow) -> list[tuple[str, str | None]]:
    for each in rows:
        execution.deliver(each)

    await turns(5)
    return [(outcome, detail) for _, outcome, detail in control.acks[-len(rows) :]]


async def test_a_row_records_an_intervention(world: World, control: Control) -> None:
    """Target and actor are the row's, note and metadata the payload's; the detail is the new id."""
    seen: list[Any] = []
    execution = world.execution(gated(seen))
    await execution.async_start()
    done = await apply(
        control, execution, row(1, {"payload": {"text": "use table A"}, "note": "n", "metadata": {"via": "cli"}})
    )
    (item,) = execution.get_interventions()
    assert done == [("applied", item["id"])]
    assert (item["target"], item["author"], item["note"], item["metadata"]) == ("t", "ann", "n", {"via": "cli"})
    await answer(execution)
    assert seen == [[{"text": "use table A"}]]
    (payload,) = world.payloads("triggerflow.inbox_applied")
    assert (payload["kind"], payload["target"], payload["outcome"]) == ("intervene", "t", "applied")
    await execution.async_close()


async def test_a_row_delivered_twice_is_recorded_once(world: World, control: Control) -> None:
    """Also when the execution was saved and loaded in between."""
    seen: list[Any] = []
    flow = gated(seen)
    execution = world.execution(flow)
    await execution.async_start()
    await apply(control, execution, row(1, {"payload": 1}))
    restored = world.execution(flow)
    restored.load(execution.save())
    restored._bind()
    (item,) = restored.get_interventions()
    assert await apply(control, restored, row(1, {"payload": 1})) == [("duplicate", item["id"])]
    await answer(restored)
    await restored.async_close()
    assert seen == [[1]]


async def test_a_target_nothing_has_is_said_in_the_detail(world: World, control: Control) -> None:
    """It is recorded, and whoever sent it can see that it will expire."""
    execution = world.execution(gated([]))
    await execution.async_start()
    ((outcome, detail),) = await apply(control, execution, row(1, {"payload": 1}, target="zzz"))
    assert outcome == "applied"
    assert detail is not None and "no intervention point has the target 'zzz'" in detail
    await execution.async_close(pending_interrupts="cancel")


async def test_a_row_can_reject(world: World, control: Control) -> None:
    """The target is the intervention's id; an inserted or unknown one is refused with its reason."""
    execution = world.execution(gated([]))
    await execution.async_start()
    item = await execution.async_intervene("x", target="t")
    refuse = {"action": "reject", "reason": "wrong"}
    done = await apply(
        control,
        execution,
        row(1, refuse, target=item["id"], actor="bob"),
        row(2, refuse, target=item["id"]),
        row(3, refuse, target="nobody"),
    )
    assert done[0] == ("applied", item["id"])
    assert [outcome for outcome, _ in done[1:]] == ["rejected", "rejected"]
    assert "InterventionSettled" in str(done[1][1]) and "InterventionNotFound" in str(done[2][1])
    record = execution.get_interventions()[0]
    assert (record["status"], record["reject_reason"], record["rejected_by"]) == ("rejected", "wrong", "bob")
    await execution.async_close(pending_interrupts="cancel")


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ("text", "the payload must be"),
        ({}, 'there is no "payload"'),
        ({"payload": 1, "targt": "x"}, "unknown: targt"),
        ({"action": "drop"}, "'drop'"),
        ({"action": ["reject"]}, "expected"),
        ({"payload": 1, "metadata": [1]}, "metadata"),
        ({"payload": 1, "note": 7}, "note"),
    ],
)
async def test_a_malformed_row_is_refused_with_its_reason(
    world: World, control: Control, payload: Any, why: str
) -> None:
    """Nothing is recorded."""
    execution = world.execution(gated([]))
    await execution.async_start()
    ((outcome, detail),) = await apply(control, execution, row(1, payload))
    assert outcome == "rejected" and why in str(detail)
    assert execution.get_interventions() == []
    await execution.async_close(pending_interrupts="cancel")


async def test_an_execution_without_interventions_says_so(world: World, control: Control) -> None:
    """And so does a closed one."""
    execution = world.execution(gated([]), intervention_mode=None)
    await execution.async_start()
    ((outcome, detail),) = await apply(control, execution, row(1, {"payload": 1}))
    assert outcome == "rejected" and "disabled" in str(detail)
    await execution.async_close(pending_interrupts="cancel")
    ((outcome, detail),) = await apply(control, execution, row(2, {"payload": 1}))
    assert (outcome, detail) == ("rejected", "the execution is closed")


async def test_through_a_real_store(tmp_path: Path) -> None:
    """A client of the store's ``state.db`` intervenes in a live run and learns what became of it."""
    seen: list[Any] = []
    host = Runtime()
    observation = host.observe(store=tmp_path / "store")
    try:
        with host.use():
            execution = gated(seen).create_execution(auto_close=False)

        await execution.async_start()
        await asyncio.to_thread(observation.flush, 10)
        with ControlClient(tmp_path / "store") as client:
            asked = await asyncio.to_thread(
                client.put_inbox, "intervene", execution.id, "t", {"payload": {"text": "hi"}}, "ann"
            )
            assert asked.row_id is not None, asked
            done = await asyncio.to_thread(client.wait_outcome, asked.row_id, 20)

        (item,) = execution.get_interventions()
        assert (done.outcome, done.detail) == ("applied", item["id"])
        await answer(execution)
        await execution.async_close()
        assert seen == [[{"text": "hi"}]]
    finally:
        await asyncio.to_thread(host.close)
