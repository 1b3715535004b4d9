"""What nobody should do: a clear error or a defined result, and a core that stays sound."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.execution.support import Data, World, keep, passes, turns

from flowdeck.errors import EmitDepthExceeded, InterruptError
from flowdeck.execution.core import EMIT_DEPTH_LIMIT
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution

pytestmark = pytest.mark.anyio


def sound(execution: TriggerFlowExecution) -> None:
    """Assert that nothing is left in the core of a run that has ended."""
    core = execution._core
    assert not core.tasks and not core.groups and not core.joins and set(core.blocks) == {0}
    assert core.running == 0 and not core.queue


def recursive() -> TriggerFlow:
    flow = TriggerFlow(name="f")

    async def deeper(data: Data) -> None:
        await data.async_emit("Deeper", data.input + 1)

    flow.to(deeper)
    flow.when("Deeper").to(deeper)
    return flow


async def test_an_endless_recursion_of_emits(world: World) -> None:
    """Awaited emits nest a thousand deep; the next is an error which says what to do, never a stack overflow."""
    execution = world.execution(recursive())
    with pytest.raises(EmitDepthExceeded, match=r"more than 1000 deep in deeper#1000; use emit_nowait") as caught:
        await execution.async_start(0)

    assert isinstance(caught.value, RecursionError)
    assert world.chunks("chunk.started")["deeper"] == EMIT_DEPTH_LIMIT + 1
    assert [p["propagated_from"] is None for p in world.payloads("chunk.failed")].count(True) == 1
    sound(execution)
    await execution.async_close()


async def test_a_recursion_in_sync_handlers(world: World) -> None:
    """data.emit() counts as awaited."""
    flow = TriggerFlow(name="f")
    handler = ("deeper", lambda d: d.emit("Deeper", d.input + 1))
    flow.to(handler)
    flow.when("Deeper").to(handler)
    execution = world.execution(flow)
    with pytest.raises(EmitDepthExceeded):
        await execution.async_start(0)

    sound(execution)
    await execution.async_close()


async def test_cancelling_a_deep_recursion(world: World) -> None:
    """A thousand nested emits can be cancelled and closed without a stack overflow."""
    flow = TriggerFlow(name="f")

    async def deeper(data: Data) -> None:
        if data.input < EMIT_DEPTH_LIMIT - 1:
            await data.async_emit("Deeper", data.input + 1)
        else:
            await asyncio.Event().wait()

    flow.to(deeper)
    flow.when("Deeper").to(deeper)
    execution = world.execution(flow, concurrency=1)
    running = asyncio.create_task(execution.async_start(0))
    await turns(EMIT_DEPTH_LIMIT * 4)
    assert len(execution._core.tasks) == EMIT_DEPTH_LIMIT
    await execution.async_cancel()
    await running
    sound(execution)


async def test_saving_a_deep_recursion(world: World) -> None:
    """It can be saved and loaded, too; the loaded run goes on where the other was."""
    gate = asyncio.Event()
    flow = TriggerFlow(name="f")

    async def deeper(data: Data) -> None:
        if data.input < 500:
            await data.async_emit("Deeper", data.input + 1)
        else:
            await gate.wait()
            await data.async_set_state("bottom", data.input)

    flow.to(deeper)
    flow.when("Deeper").to(deeper)
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start(0))
    await turns(2500)
    fresh = world.execution(flow).load(execution.save())
    gate.set()
    await running
    await fresh.async_recover()
    assert await fresh.async_close() == await execution.async_close() == {"bottom": 500}
    sound(fresh)


async def test_a_long_chain_of_detached_emits(world: World) -> None:
    """emit_nowait may go on for ever: ten thousand links are no depth."""
    flow = TriggerFlow(name="f")

    async def link(data: Data) -> None:
        if data.input < 10_000:
            data.emit_nowait("Next", data.input + 1)
        else:
            await data.async_set_state("end", data.input)

    world.center.remove_sink(world.recorder)
    flow.to(link)
    flow.when("Next").to(link)
    assert await world.run(flow, 0) == {"end": 10_000}


async def test_a_loop_of_ten_thousand_steps(world: World) -> None:
    """A cycle of chunks is a loop, not a recursion."""
    flow = TriggerFlow(name="f")
    world.center.remove_sink(world.recorder)
    flow.to(("count", lambda d: d.input + 1)).if_condition(lambda d: d.input < 10_000).to("count").else_condition().to(
        keep("n")
    ).end_condition()
    execution = world.execution(flow)
    await execution.async_start(0)
    assert await execution.async_close() == {"n": 10_000}
    sound(execution)


async def test_ten_thousand_failing_members(world: World) -> None:
    """One failing member stops the others in linear time."""
    flow = TriggerFlow(name="f")
    world.center.remove_sink(world.recorder)

    async def work(data: Data) -> None:
        await data.async_emit("Inner", data.input)

    async def inner(data: Data) -> None:
        if data.input == 9_999:
            raise LookupError("the last")

        await asyncio.Event().wait()

    flow.for_each().to(work).end_for_each().to(keep("never"))
    flow.when("Inner").to(inner)
    execution = world.execution(flow)
    with pytest.raises(LookupError):
        async with asyncio.timeout(20):
            await execution.async_start(list(range(10_000)))

    await turns()
    assert await execution.async_close() == {}
    sound(execution)


@pytest.mark.parametrize("event", ["", None, 3, b"x"])
async def test_an_event_needs_a_name(world: World, event: Any) -> None:
    """Emitting something that is no name is a TypeError, from inside and outside."""
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> None:
        await data.async_emit(event)

    flow.to(work)
    execution = world.execution(flow)
    with pytest.raises(TypeError, match=r"emit\(\) takes the name of an event"):
        await execution.async_start()

    with pytest.raises(TypeError, match=r"emit\(\) takes the name of an event"):
        await execution.async_emit(event)

    sound(execution)
    await execution.async_close()


async def test_a_handler_of_the_wrong_arity(world: World) -> None:
    """A handler that cannot be called with the data object fails its chunk with Python's own error."""
    flow = TriggerFlow(name="f")
    flow.to(("none", lambda: 1))
    with pytest.raises(TypeError, match="positional argument"):
        await world.execution(flow).async_start()


async def test_an_exception_group_is_raised_as_it_is(world: World) -> None:
    """A handler may use a task group; its group of errors reaches the caller."""
    flow = TriggerFlow(name="f")

    async def fail() -> None:
        raise ValueError("inside")

    async def work(data: Data) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(asyncio.sleep(0))

    flow.to(work)
    with pytest.raises(ExceptionGroup) as caught:
        await world.execution(flow).async_start()

    assert isinstance(caught.value.exceptions[0], ValueError)


async def test_a_handler_that_cancels_itself(world: World) -> None:
    """A CancelledError that nobody asked for is a failure of the chunk, and the loop goes on."""
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> None:
        raise asyncio.CancelledError("self-made")

    flow.to(work)
    execution = world.execution(flow)
    with pytest.raises(asyncio.CancelledError):
        await execution.async_start()

    assert execution.get_status() == "failed"
    sound(execution)
    await execution.async_close()


async def test_emits_gathered_by_the_handler(world: World) -> None:
    """A handler may await several emits at once."""
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> None:
        await asyncio.gather(*(data.async_emit("E", n) for n in range(20)))
        await data.async_set_state("seen", sorted(data.get_state("log")))

    flow.to(work)
    flow.when("E").to(("log", lambda d: d.append_state("log", d.input)))
    assert (await world.run(flow, concurrency=3))["seen"] == list(range(20))


async def test_an_emit_left_running_by_its_handler(world: World) -> None:
    """A handler that starts an awaited emit in a task and returns leaves it to the execution, which waits for it."""
    gate = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> str:
        tasks.append(asyncio.create_task(data.async_emit("E", 1)))
        await turns(3)
        return "left"

    async def slow(data: Data) -> None:
        await gate.wait()
        await data.async_set_state("e", data.input)

    flow.to(work).to(keep("out"))
    flow.when("E").to(slow)
    execution = world.execution(flow)
    await execution.async_start()
    assert not execution.is_idle()
    gate.set()
    assert await execution.async_close() == {"out": "left", "e": 1}
    await asyncio.gather(*tasks)
    sound(execution)


@pytest.mark.parametrize("where", ["first", "later", "emitted", "condition", "member"])
async def test_a_handler_that_lets_a_stop_iteration_out(world: World, where: str) -> None:
    """``next()`` without a default fails its chunk like any error; no future takes a StopIteration."""

    def out_of_items(data: Data) -> Any:
        return next(iter([]))

    async def emits(data: Data) -> None:
        await data.async_emit("E")

    flow = TriggerFlow(name="f")
    if where == "condition":
        flow.match().case(out_of_items).to(passes("hit")).end_match()
    elif where == "emitted":
        flow.to(emits)
        flow.when("E").to(("bad", out_of_items))
    elif where == "member":
        flow.to(passes("items", lambda value: [1, 2])).for_each().to(("bad", out_of_items)).end_for_each()
    else:
        flow.to(passes("one")).to(("bad", out_of_items)) if where == "later" else flow.to(("bad", out_of_items))
        flow.to(passes("beside"))

    execution = world.execution(flow)
    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match=r"raised StopIteration: give next\(\) a default") as caught:
            await execution.async_start()

    assert isinstance(caught.value.__cause__, StopIteration)
    assert execution.get_status() == "failed"
    await execution.async_close()


async def test_an_interrupt_id_that_is_no_text(world: World) -> None:
    """A lone surrogate could be written nowhere."""
    flow = TriggerFlow(name="f")
    flow.to(("ask", lambda data: data.pause_for(interrupt_id="\ud83d")))
    with pytest.raises(InterruptError, match="interrupt_id=.*expected a text"):
        await world.execution(flow).async_start()
