"""Ours, measured by the same script as everybody else."""

import asyncio
import json
import tempfile

from _timing import Growth, Timing, main

from flowdeck.events import EventCenter
from flowdeck.execution.services import Services
from flowdeck.triggerflow import TriggerFlow

OFF = Services(center=EventCenter())


def chain(steps: int, nap: float = 0) -> TriggerFlow:
    flow = TriggerFlow(name="chain")
    at = flow.process

    async def step(data):
        if nap:
            await asyncio.sleep(nap)

        return data.value

    for n in range(steps):
        at = at.to((f"s{n}", step))

    return flow


def journaled(folder):
    from flowdeck_sinks.journal import JournalSink

    center = EventCenter()
    sink = JournalSink(folder, lossless=True, publish=False)
    center.add_sink(sink)
    return Services(center=center), sink


async def ask(data):
    return await data.async_pause_for(type="approval", payload={"q": "ok?"}, resume_to="next")


async def step(data):
    return data.value


async def w1(t: Timing) -> None:
    flow = chain(20)
    await t.cpu("step, nobody observes", lambda: flow.async_start(0, services=OFF), 200, 20)
    with tempfile.TemporaryDirectory() as folder:
        services, sink = journaled(folder)
        await t.cpu("step, observed", lambda: flow.async_start(0, services=services), 100, 20)
        sink.close(10)


async def w2(t: Timing) -> None:
    flow = TriggerFlow(name="fan")
    flow.for_each().to(("branch", step)).end_for_each()
    items = list(range(100))
    await t.cpu("branch of 100 + join", lambda: flow.async_start(items, services=OFF), 30, 100)


async def w3(t: Timing) -> None:
    flow = chain(10, 0.001)
    growth = Growth()
    await t.cpu(
        "1,000 x 10 naps",
        lambda: asyncio.gather(*[flow.async_start(n, services=OFF) for n in range(1000)]),
        1,
        unit="s",
    )
    t.put("RSS growth", "MB", growth.peak_mb())


async def w4(t: Timing) -> None:
    flow = TriggerFlow(name="pause")
    flow.to(("ask", ask)).to(("commit", step))

    async def once() -> None:
        execution = flow.create_execution(auto_close=False, services=OFF)
        await execution.async_start("T-1")
        await execution.async_continue_with(next(iter(execution.get_pending_interrupts())), {"ok": True})
        await execution.async_close()
        flow.remove_execution(execution)

    await t.cpu("pause + resume, whole execution", once, 200)
    execution = flow.create_execution(auto_close=False, services=OFF)
    await execution.async_start("T-1")
    t.put("snapshot", "B", len(json.dumps(execution.save(), separators=(",", ":"))))


async def w7(t: Timing) -> None:
    flow = TriggerFlow(name="pause")
    flow.to(("ask", ask)).to(("commit", step))
    held = []

    async def make(count: int) -> None:
        for n in range(count):
            execution = flow.create_execution(auto_close=False, services=OFF)
            await execution.async_start(n)
            held.append(execution)

    await make(50)
    growth = Growth()
    await make(2000)
    t.put("parked execution", "B", growth.bytes() / 2000)


main({"W1": w1, "W2": w2, "W3": w3, "W4": w4, "W7": w7}, "flowdeck")
