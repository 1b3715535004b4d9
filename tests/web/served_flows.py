"""Flows the web tests serve, in this process and in servers of their own."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from flowdeck import TriggerFlow, TriggerFlowRuntimeData
from flowdeck.web import FlowService

ANSWER = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}


def make_review() -> TriggerFlow:
    """Draft, ask, publish."""
    flow = TriggerFlow(name="review")

    async def draft(data: TriggerFlowRuntimeData) -> dict[str, Any]:
        event = {"event_type": "draft.ready", "status": "running", "stage": "draft", "title": "Draft"}
        await data.async_put_into_stream(event)
        return {"text": f"draft of {data.input}"}

    async def ask(data: TriggerFlowRuntimeData) -> Any:
        question = {"question": "May we publish?"}
        return await data.async_pause_for(
            type="approval", payload=question, resume_to="next", interrupt_id="approve", schema=ANSWER
        )

    async def publish(data: TriggerFlowRuntimeData) -> None:
        await data.async_put_into_stream({"event_type": "published", "status": "completed", "artifact_ref": "a://1"})
        await data.async_set_state("answer", data.input)

    flow.to(draft).to(ask).intervention_point(name="before_publish", target="publish").to(publish)
    return flow


def make_quick() -> TriggerFlow:
    """One step; ``"boom"`` fails it, ``"hang"`` never ends."""
    flow = TriggerFlow(name="quick")

    async def one(data: TriggerFlowRuntimeData) -> None:
        if data.input == "boom":
            raise RuntimeError("secret details")

        if data.input == "hang":
            await asyncio.Event().wait()

        await data.async_set_state("n", data.input)

    flow.to(one)
    return flow


def make_counter() -> TriggerFlow:
    """Puts ``input`` items on the stream, a step each, pausing now and then so that they come over time."""
    flow = TriggerFlow(name="counter")

    async def count(data: TriggerFlowRuntimeData) -> int:
        await asyncio.sleep(0.01)
        await data.async_put_into_stream({"n": data.input})
        return int(data.input)

    flow.to(lambda data: list(range(data.input))).for_each(concurrency=1).to(count).end_for_each()
    return flow


def make_typed() -> TriggerFlow:
    """Doubles an integer; its contract says so."""
    flow = TriggerFlow(name="typed")

    async def double(data: TriggerFlowRuntimeData) -> None:
        await data.async_set_state("twice", data.input * 2)

    flow.to(double)
    flow.set_contract(initial_input=int)
    return flow


def make_bulk() -> TriggerFlow:
    """Puts ``input`` items of 1 kB on the stream, in one step."""
    flow = TriggerFlow(name="bulk")

    async def put(data: TriggerFlowRuntimeData) -> None:
        for number in range(data.input):
            await data.async_put_into_stream({"n": number, "text": "x" * 1_000})

    flow.to(put)
    return flow


def main() -> None:
    """Serve ``counter`` and ``review`` with the store and on the port of the command line."""
    store, port = sys.argv[1:3]
    FlowService(make_counter(), make_review(), store=store).run(port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
