"""A failure that somebody catches stays where it was caught, whatever else stops, waits or runs late around it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.execution.support import Data, World, keep, turns, until

from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio


async def fail(data: Data) -> None:
    raise ValueError("no")


@pytest.mark.parametrize("concurrency", [None, 1])
async def test_a_member_that_caught_an_error_may_leave(world: World, concurrency: int | None) -> None:
    """A member whose emit failed, which it caught, and whom nobody answers, does not hold the others up."""

    async def member(data: Data) -> Any:
        with pytest.raises(ValueError, match="no"):
            await data.async_emit("Broken", data.input)

        return data.input if data.input else await data.async_pause_for(expires_in=5)

    flow = TriggerFlow(name="f")
    flow.for_each(concurrency=concurrency).to(member).end_for_each().to(keep("out"))
    flow.when("Broken").to(fail).side_branch(("slow", lambda d: asyncio.sleep(1)))
    execution = world.execution(flow)
    await execution.async_start([0, 1, 2])
    await world.clock.advance(5)
    await turns()
    assert await execution.async_close() == {"out": [1, 2]}


async def test_work_of_a_stopped_handler_ends_after_it(world: World) -> None:
    """A handler stopped by its sibling's failure leaves a failing subtree behind; the run has not failed."""
    stopped, go = asyncio.Event(), asyncio.Event()

    async def first(data: Data) -> str:
        with pytest.raises(ValueError, match="no"):
            await data.async_emit("Outer")

        return "caught"

    async def late(data: Data) -> None:
        await go.wait()
        raise ValueError("no")

    async def inner(data: Data) -> None:
        await data.async_emit("Inner")

    async def stubborn(data: Data) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
            await turns(50)

    async def broken(data: Data) -> None:
        go.set()
        raise ValueError("no")

    flow = TriggerFlow(name="f")
    flow.to(first).to(keep("out"))
    flow.when("Outer").to(late)
    flow.when("Outer").to(inner)
    flow.when("Inner").to(stubborn)
    flow.when("Inner").to(("broken", broken))
    execution = world.execution(flow)
    await execution.async_start()
    assert stopped.is_set() and execution.get_status() == "running"
    assert await execution.async_close() == {"out": "caught"}
    assert execution.get_status() == "completed" and not execution._core.groups


async def test_overlapping_emits_give_every_place_back(world: World) -> None:
    """A handler that gathers emits and emits again in between counts once under the execution's concurrency."""
    for seed in range(60):
        rng = random.Random(seed)
        running: set[Data] = set()
        most = 0

        async def both(data: Data, rng: random.Random = rng) -> None:
            async def often(name: str) -> None:
                for _ in range(4):
                    await turns(rng.randrange(6))
                    await data.async_emit(name)

            await asyncio.gather(often("A"), often("B"))

        async def work(data: Data, rng: random.Random = rng, running: set[Data] = running) -> None:
            nonlocal most
            running.add(data)
            most = max(most, len(running))
            await turns(rng.randrange(4))
            running.discard(data)

        flow = TriggerFlow(name="f")
        flow.for_each().to(both).end_for_each().to(keep("out"))
        flow.when("A").to(("a", work)).side_branch(("a2", work))
        flow.when("B").to(("b", work))
        concurrency = rng.choice((1, 2))
        execution = world.execution(flow, concurrency=concurrency)
        async with asyncio.timeout(20):
            await execution.async_start(list(range(rng.choice((1, 2, 3)))))

        assert execution._core.running == 0 and most <= concurrency, f"seed {seed}"
        await execution.async_close()


async def test_an_empty_end_leaves_nothing_behind(world: World) -> None:
    """A block that ends with its last member's expiry, and has nothing behind it, leaves no await-group."""

    async def ask(data: Data) -> Any:
        return await data.async_pause_for(expires_in=1)

    flow = TriggerFlow(name="f")
    flow.for_each().to(ask).end_for_each()
    execution = world.execution(flow)
    await execution.async_start([1])
    await world.clock.advance(1)
    await until(lambda: not execution.get_pending_interrupts())
    assert not execution._core.groups and not execution._core.joins
    await execution.async_close()
