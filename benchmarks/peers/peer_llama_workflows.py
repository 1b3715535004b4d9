"""llama-index-workflows."""

import asyncio
import json
import logging

from _timing import Growth, Timing, main
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

logging.disable(logging.CRITICAL)


class Next(Event):
    n: int


def chain(steps, nap=0):
    class Chain(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Next:
            if nap:
                await asyncio.sleep(nap)

            return Next(n=0)

        @step(num_workers=1)
        async def following(self, ev: Next) -> Next | StopEvent:
            if nap:
                await asyncio.sleep(nap)

            return Next(n=ev.n + 1) if ev.n < steps - 2 else StopEvent(result=ev.n)

    return Chain(timeout=None)


class Item(Event):
    n: int


class Done(Event):
    n: int


class Fan(Workflow):
    @step
    async def spread(self, ctx: Context, ev: StartEvent) -> Item | None:
        for n in range(100):
            ctx.send_event(Item(n=n))

    @step(num_workers=100)
    async def branch(self, ev: Item) -> Done:
        return Done(n=ev.n)

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        found = ctx.collect_events(ev, [Done] * 100)
        return None if found is None else StopEvent(result=len(found))


class Pausing(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="ok?")

    @step
    async def commit(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=ev.response)


async def paused(workflow):
    handler = workflow.run()
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            return handler

    raise AssertionError("it never asked")


async def w1(t: Timing) -> None:
    workflow = chain(20)

    async def run():
        await workflow.run()

    await t.cpu("step, nobody observes", run, 10, 20)

    async def streamed():
        handler = workflow.run()
        async for _ in handler.stream_events(expose_internal=True):
            pass

        await handler

    await t.cpu("step, observed", streamed, 10, 20)


async def w2(t: Timing) -> None:
    workflow = Fan(timeout=None)

    async def run():
        await workflow.run()

    await t.cpu("branch of 100 + join", run, 2, 100)


async def w3(t: Timing) -> None:
    workflow = chain(10, 0.001)

    async def one():
        await workflow.run()

    growth = Growth()
    await t.cpu("1,000 x 10 naps", lambda: asyncio.gather(*[one() for _ in range(1000)]), 1, unit="s")
    t.put("RSS growth", "MB", growth.peak_mb())


async def w4(t: Timing) -> None:
    workflow = Pausing(timeout=None)

    async def once():
        handler = await paused(workflow)
        handler.ctx.send_event(HumanResponseEvent(response="y"))
        await handler

    await t.cpu("pause + resume, whole execution", once, 20)
    handler = await paused(workflow)
    t.put("snapshot", "B", len(json.dumps(handler.ctx.to_dict())))


async def w7(t: Timing) -> None:
    workflow = Pausing(timeout=None)
    held = [await paused(workflow) for _ in range(20)]
    growth = Growth()
    held += [await paused(workflow) for _ in range(1000)]
    t.put("parked execution", "B", growth.bytes() / 1000)


main({"W1": w1, "W2": w2, "W3": w3, "W4": w4, "W7": w7}, "llama-index-workflows")
