"""What a product shows: by rule, and nothing else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.agents.asking import asking
from tests.workspace.conftest import Collector

from flowdeck import Runtime, TriggerFlow, TriggerFlowRuntimeData
from flowdeck.interaction import EndRule, FieldRule, ProductEvent, ProductMapper, QuestionRule, read_product_event
from flowdeck.product import STATUSES
from flowdeck.testing import ModelReply

pytestmark = pytest.mark.anyio

FIELDS = {
    "sections[*].text": FieldRule("section_ready", stage="writing", title="Section", publish="text", growing=True),
    "verdict": FieldRule("verdict_ready", stage="deciding"),
}
QUESTIONS = {"approval": QuestionRule("waiting_for_approval", "approval", "Please approve", "ask", "approved")}


async def test_fields_become_events(host: Runtime, events: Collector) -> None:
    """Growing, ready, in their position; what has no rule stays inside, and the end is told by its rule."""
    answer = {"sections": [{"text": "One is here", "internal": "x"}, {"text": "Two"}], "verdict": "good", "more": 1}
    mapper = ProductMapper(task_id="t-1", fields=FIELDS, end=EndRule("done", titles={"completed": "Your report"}))
    with asking(host, [ModelReply(answer, piece=8), ModelReply(status=400)]) as (agent, _):
        ask = agent.input("x").output({"sections": [{"text": str}], "verdict": str})
        found = [event async for event in mapper.follow_response(ask.get_response())]
        failed = [event async for event in ProductMapper(fields=FIELDS).follow_response(ask.get_response())]

    ready = [(e.event_type, e.status, getattr(e, "position", None)) for e in found if e.status != "running"]
    assert ready == [
        ("section_ready", "ready", 0), ("section_ready", "ready", 1), ("verdict_ready", "ready", None),
        ("done", "completed", None),
    ]  # fmt: skip
    growing = [e.model_dump()["data"]["text"] for e in found if e.status == "running"]
    assert growing[0] in "One is here" and growing[-1] == "Two"
    assert {e.task_id for e in found} == {"t-1"}
    assert found[-1].title == "Your report"
    assert [(e.event_type, e.status) for e in failed] == [("task_ended", "failed")]
    _nothing_leaks(found + failed)


async def test_a_run_is_followed(host: Runtime, events: Collector) -> None:
    """Product events of chunks pass with task and run filled in, questions by rule, the rest not; the end is told."""
    flow = TriggerFlow(name="secret flow name")

    async def operator_name(data: TriggerFlowRuntimeData) -> Any:
        data.put({"event_type": "stage_started", "status": "running", "stage": "checking", "unknown_key": 1})
        data.put({"internal": "layer_marks", "operator_id": "chunk-17"})
        data.put("plain text of an engineer")
        return await data.async_pause_for(type="approval", payload={"text": "Pay 5?"})

    async def after(data: TriggerFlowRuntimeData) -> None:
        data.put(ProductEvent(event_type="report", status="ready", artifact_ref="workspace://w/a.md").model_dump())
        await data.async_set_state("done", True)

    flow.to(("operator_name", operator_name)).to(("after", after))
    mapper = ProductMapper(questions=QUESTIONS, end=EndRule(publish="result"))
    with host.use():
        execution = flow.create_execution(auto_close=False, task_id="t-9")
        await execution.async_start(1)

        async def answer() -> None:
            await execution.async_continue_with(next(iter(execution.get_pending_interrupts())), {"yes": True})
            await execution.async_close()

        closing = asyncio.create_task(answer())
        found = [event async for event in mapper.follow(execution)]
        await closing

    assert [(e.event_type, e.status) for e in found] == [
        ("stage_started", "running"), ("waiting_for_approval", "waiting"), ("approved", "running"), ("report", "ready"),
        ("task_ended", "completed"),
    ]  # fmt: skip
    assert {(e.task_id, e.execution_id) for e in found} == {("t-9", execution.id)}
    waiting = found[1].model_dump()
    assert waiting["data"] == {"ask": {"text": "Pay 5?"}}
    assert waiting["interrupt_id"]
    assert found[-1].model_dump()["data"] == {"result": {"done": True}}
    _nothing_leaks(found)


def _nothing_leaks(found: list[ProductEvent]) -> None:
    text = json.dumps([event.model_dump() for event in found])
    for inner in ("operator_name", "secret flow name", "sections[", "[*]", "internal", "layer_mark", "chunk", "signal"):
        assert inner not in text, inner

    assert all(event.status in STATUSES for event in found)


def test_clients_ignore_what_they_do_not_know() -> None:
    """Unknown types and keys are read, what is no event is ``None``; a status outside the set is no event."""
    event = read_product_event({"event_type": "brand_new", "status": "ready", "some_key": {"deep": 1}})
    assert event is not None and event.event_type == "brand_new"
    assert read_product_event({"event_type": "x", "status": "sideways"}) is None
    assert read_product_event("text") is None
    assert {"running", "waiting", "ready", "failed"} < set(STATUSES)
