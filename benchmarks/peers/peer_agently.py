"""Agently, the reference (4.1.3.1) and the newest. Hooks are off unless a figure says otherwise; executions are closed
by hand, because its auto close polls every 50 ms. The newest keeps every pause in a SQLite file of its own."""

import asyncio
import json

from _timing import Growth, Timing, main
from agently import Agently, TriggerFlow

CENTER = Agently.event_center
CENTER._hooks.clear()


def chain(steps, nap=0):
    flow = TriggerFlow(name="chain")
    at = flow
    for n in range(steps):

        async def step(data):
            if nap:
                await asyncio.sleep(nap)

            return data.value

        at = at.to((f"s{n}", step))

    return flow


async def run(flow, value):
    execution = flow.create_execution(auto_close=False)
    await execution.async_start(value)
    await execution.async_close()
    flow.remove_execution(execution)


def pausing():
    flow = TriggerFlow(name="pause")

    async def ask(data):
        return await data.async_pause_for(type="approval", payload={"q": "ok?"}, resume_to="next")

    async def commit(data):
        return data.value

    flow.to(("ask", ask)).to(("commit", commit))
    return flow


async def w1(t: Timing) -> None:
    flow = chain(20)
    await t.cpu("step, nobody observes", lambda: run(flow, 0), 8, 20)
    CENTER.register_hook(_noop, hook_name="noop")
    await t.cpu("step, observed", lambda: run(flow, 0), 8, 20)


async def _noop(event):
    return None


async def w2(t: Timing) -> None:
    flow = TriggerFlow(name="fan")

    async def branch(data):
        return data.value

    flow.for_each().to(("branch", branch)).end_for_each()
    items = list(range(100))
    await t.cpu("branch of 100 + join", lambda: run(flow, items), 2, 100)


async def w3(t: Timing) -> None:
    flow = chain(10, 0.001)
    growth = Growth()
    await t.cpu("1,000 x 10 naps", lambda: asyncio.gather(*[run(flow, n) for n in range(1000)]), 1, unit="s")
    t.put("RSS growth", "MB", growth.peak_mb())


async def w4(t: Timing) -> None:
    flow = pausing()

    async def once():
        execution = flow.create_execution(auto_close=False)
        await execution.async_start("T-1")
        await execution.async_continue_with(next(iter(execution.get_pending_interrupts())), {"ok": True})
        await execution.async_close()
        flow.remove_execution(execution)

    await t.cpu("pause + resume, whole execution", once, 10)
    execution = flow.create_execution(auto_close=False)
    await execution.async_start("T-1")
    t.put("snapshot", "B", len(json.dumps(execution.save(), separators=(",", ":"))))


async def w7(t: Timing) -> None:
    flow = pausing()
    held = []

    async def make(count):
        for n in range(count):
            execution = flow.create_execution(auto_close=False)
            await execution.async_start(n)
            held.append(execution)

    await make(20)
    growth = Growth()
    await make(1000)
    t.put("parked execution", "B", growth.bytes() / 1000)


main({"W1": w1, "W2": w2, "W3": w3, "W4": w4, "W7": w7}, "agently", "pydantic")
