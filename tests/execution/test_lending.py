"""A handler that waits for work it has caused from outside lends its place, so that the work can run."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from tests.execution.support import Data, World, keep, left_behind, turns, until

from flowdeck.definition.retry import Retry
from flowdeck.errors import InterruptError, PendingInterruptsError
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio

Wait = Callable[[Data], Awaitable[Any]]


async def emit_through_the_handle(data: Data) -> None:
    await data.execution.async_emit("Work", data.input)


async def emit_within_a_time(data: Data) -> None:
    await asyncio.wait_for(data.execution.async_emit("Work", data.input), 60)


async def set_state_through_the_handle(data: Data) -> None:
    await data.execution.async_set_state("key", data.input)


async def set_flow_data(data: Data) -> None:
    await data.async_set_flow_data("shared", data.input, no_warning=True)


async def from_a_thread(data: Data) -> None:
    await asyncio.to_thread(data.execution.emit, "Work", data.input)


WAITS = (emit_through_the_handle, emit_within_a_time, set_state_through_the_handle, set_flow_data, from_a_thread)


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.__name__)
async def test_what_a_handler_waits_for_gets_its_place(world: World, wait: Wait) -> None:
    """With one place, a signal sent through the execution's handle runs while its sender waits, and never beside it."""
    running: list[str] = []
    story: list[str] = []

    async def sender(data: Data) -> Any:
        story.append("asks")
        await wait(data)
        running.append("sender")
        await asyncio.sleep(0)
        assert running == ["sender"], "it goes on with a place of its own"
        running.remove("sender")
        story.append("goes on")
        return data.input

    async def work(data: Data) -> None:
        running.append("work")
        await asyncio.sleep(0)
        assert running == ["work"]
        running.remove("work")
        story.append("works")

    flow = TriggerFlow(name="lending")
    flow.to(("sender", sender)).to(keep("out"))
    flow.when({"event": "Work", "runtime_data": "key", "flow_data": "shared"}, mode="simple_or").to(("work", work))
    assert (await world.run(flow, 7, concurrency=1))["out"] == 7
    assert story == ["asks", "works", "goes on"]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("places", [{"concurrency": 1}, {}])
async def test_a_handler_answers_a_branch_that_needs_its_place(
    world: World, places: dict[str, int], together: bool
) -> None:
    """Answering other branches ends, with one place for the run or one for the members of their for_each."""
    active: list[Any] = []

    async def member(data: Data) -> Any:
        if data.input != "boss":
            return await data.async_pause_for(interrupt_id=data.input)

        await until(lambda: len(data.get_pending_interrupts()) == 2)
        if together:
            await asyncio.gather(*[data.async_continue_with(name, name.upper()) for name in ("a", "b")])
        else:
            for name in ("a", "b"):
                await data.async_continue_with(name, name.upper())

        active.append("boss")
        await asyncio.sleep(0)
        assert active == ["boss"]
        active.remove("boss")
        return "done"

    async def after(data: Data) -> Any:
        active.append(data.input)
        await asyncio.sleep(0)
        assert active == [data.input]
        active.remove(data.input)
        return data.input

    flow = TriggerFlow(name="boss")
    flow.for_each(concurrency=None if places else 1).to(("member", member)).to(("after", after)).end_for_each().to(
        keep("out")
    )
    assert (await world.run(flow, ["a", "b", "boss"], **places))["out"] == ["A", "B", "done"]


async def test_a_save_while_places_are_lent(world: World) -> None:
    """Whoever waits lends its place, is saved, and after a load runs again, finds the answer it gave, and goes on."""
    opened = asyncio.Event()
    answers: list[int] = []

    async def boss(data: Data) -> Any:
        await until(lambda: bool(data.get_pending_interrupts()) or bool(answers))
        answers.append(data.attempt)
        await data.async_continue_with("q", "yes")
        return "boss"

    async def slow(data: Data) -> Any:
        await opened.wait()
        return data.input

    flow = TriggerFlow(name="saved")
    flow.for_each(concurrency=2).to(
        ("either", lambda d: d.pause_for(interrupt_id="q") if d.input == "asked" else boss(d))
    ).to(("slow", slow)).end_for_each().to(keep("out"))
    first = world.execution(flow, concurrency=1)
    starting = asyncio.create_task(first.async_start(["asked", "boss"]))
    await turns()
    saved = json.loads(json.dumps(first.save()))
    assert saved["core"]["guests"], "a place is lent"
    for _ in range(2):  # a state that was loaded and not used says the same
        again = world.execution(flow)
        again.load(saved)
        assert again.save()["core"] == saved["core"]

    opened.set()
    await again.async_recover()
    assert await again.async_close() == {"out": ["yes", "boss"]}
    assert answers == [1, 2], "the handler ran again, and did not answer twice"
    await starting
    assert again._core.running == 0 and not again._core.guests and not again._core.blocks[0].active


async def test_a_wait_given_up(world: World) -> None:
    """A handler that gives up waiting, fails or is retried leaves no place behind it, whatever the order of events."""
    for seed in (*range(60), 749):
        rng = random.Random(seed)

        async def sender(data: Data, rng: random.Random = rng) -> Any:
            waits = [data.execution.async_emit("Work", i) for i in range(rng.choice((1, 2)))]
            together = asyncio.gather(*waits, data.async_emit("Own"))
            await turns(rng.choice((0, 1, 5)))
            what = rng.choice(("wait", "give up", "leave", "raise"))
            if what == "wait":
                await together
            elif what == "give up":
                together.cancel()
            elif what == "raise" and data.attempt == 1:
                raise ValueError("once")

            return data.input

        async def work(data: Data, rng: random.Random = rng) -> None:
            await turns(rng.choice((0, 2, 20)))

        flow = TriggerFlow(name="lent")
        flow.for_each(concurrency=rng.choice((None, 1, 2))).to(
            ("sender", sender), retry=Retry(attempts=2)
        ).end_for_each().to(keep("out"))
        flow.when({"event": ["Work", "Own"]}, mode="simple_or").to(("work", work))
        execution = world.execution(flow, concurrency=rng.choice((None, 1, 2)))
        await execution.async_start([1, 2, 3])
        assert await execution.async_close() == {"out": [1, 2, 3]}, f"seed {seed}"
        core = execution._core
        assert core.running == 0 and not core.guests and not core.groups and list(core.blocks) == [0], f"seed {seed}"


async def test_what_a_handler_leaves_running(world: World) -> None:
    """Effects of a task that outlives its chunk come from outside: none is lost, none counts as another chunk's."""
    left: list[asyncio.Task[None]] = []

    async def late(data: Data) -> None:
        await turns(3)
        data.set_state("key", "late")
        data.put_into_stream("late")
        await data.async_append_state("list", "late")
        await data.async_emit("Work", "late")
        data.emit("Work", "later")
        data.emit_nowait("Work", "last")
        assert await data.step("once", lambda: "late") == "late"
        with pytest.raises(InterruptError, match="'first' has ended"):
            data.pause_for()

    async def first(data: Data) -> None:
        left.append(asyncio.create_task(late(data)))

    async def second(data: Data) -> None:
        await left[-1]
        assert await data.step("once", lambda: "second") == "second"
        await data.async_append_state("list", "second")
        data.put_into_stream("second")
        await data.async_set_state("key", "second")

    async def work(data: Data) -> None:
        await data.async_append_state("work", data.input)

    flow = TriggerFlow(name="left")
    flow.for_each(concurrency=1).to(("first", first)).to(("second", second)).end_for_each()
    flow.when("Work").to(("work", work))
    execution = world.execution(flow)
    await asyncio.wait_for(execution.async_start([1]), 10)
    state = await execution.async_close()
    assert state == {"key": "second", "list": ["late", "second"], "work": ["late", "later", "last"]}
    assert [item async for item in execution.get_async_runtime_stream()] == ["late", "second"]
    assert execution._core.running == 0 and not execution._core.groups


@pytest.mark.parametrize("places", [{"concurrency": 1}, {}])
async def test_a_close_from_inside_waits_for_what_waits_for_its_place(world: World, places: dict[str, int]) -> None:
    """A handler that closes its execution while others are queued behind it loses none of them."""

    async def work(data: Data) -> None:
        await data.async_append_state("done", data.input)
        if data.input == 0:
            assert (await data.execution.async_close())["done"] == [0, 1, 2]

    flow = TriggerFlow(name="closing")
    flow.for_each(concurrency=None if places else 1).to(("work", work)).end_for_each()
    execution = world.execution(flow, **places)
    await execution.async_start([0, 1, 2])
    assert execution.is_closed() and execution._core.running == 0 and not execution._core.guests


async def test_an_exception_that_is_no_error_is_told_once(world: World) -> None:
    """A BaseException of the user's goes to whoever awaits the branch, and is not reported as unretrieved as well."""

    class Stop(BaseException):
        pass

    async def stop(data: Data) -> None:
        await turns(1)
        raise Stop

    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    flow = TriggerFlow(name="stop")
    flow.to(("stop", stop))
    execution = world.execution(flow)
    with pytest.raises(Stop):
        await execution.async_start()

    await execution.async_close()
    await turns(3)
    gc.collect()
    assert execution.get_status() == "failed" and not told


async def test_who_awaits_a_handler_that_waits_lends_its_place_as_well(world: World) -> None:
    """In a join with one place a member emits, and the emit's handler answers a member which needs that place."""

    async def member(data: Data) -> Any:
        if data.input == "asks":
            return data.pause_for(interrupt_id="question")

        await data.async_emit("Give", data.input)
        return data.input

    async def give(data: Data) -> None:
        await data.async_continue_with("question", "answer")
        assert data.execution._core.blocks[data._task.lane].active, "it goes on with a place"

    flow = TriggerFlow(name="lending")
    flow.for_each(concurrency=1).to(("member", member)).to(("after", lambda data: data.input)).end_for_each().to(
        keep("out")
    )
    flow.when("Give").to(("give", give))
    assert (await asyncio.wait_for(world.run(flow, ["asks", "gives"]), 5))["out"] == ["answer", "gives"]


async def test_a_handler_that_was_told_to_stop_and_goes_on_lends_its_place(world: World) -> None:
    """What it waits for afterwards may need its place like before: a stubborn handler must not lock the run up."""
    worked = asyncio.Event()
    story: list[str] = []

    async def asks(data: Data) -> None:
        with pytest.raises(ValueError, match="no"):
            await data.async_emit("Pair")

    async def fails(data: Data) -> None:
        await until(lambda: "stubborn" in story)
        raise ValueError("no")

    async def stubborn(data: Data) -> None:
        story.append("stubborn")
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

        data.execution.emit_nowait("Hold")
        await until(lambda: "holds" in story)
        await data.execution.async_emit("Work")
        story.append("goes on")

    async def holds(data: Data) -> None:
        story.append("holds")
        await worked.wait()

    async def work(data: Data) -> None:
        story.append("works")
        worked.set()

    flow = TriggerFlow(name="stubborn")
    flow.to(("asks", asks))
    flow.when("Pair").to(("fails", fails))
    flow.when("Pair").to(("stubborn", stubborn))
    flow.when("Hold").to(("holds", holds))
    flow.when("Work").to(("work", work))
    await asyncio.wait_for(world.run(flow, 7, concurrency=2), 20)
    assert story == ["stubborn", "holds", "works", "goes on"]


async def test_a_handler_that_was_left_behind_answers_without_a_place(world: World) -> None:
    """Its task is over, so it has none to lend: the answer counts, what follows runs, and no place is lost."""
    go_on, ask = asyncio.Event(), asyncio.Event()
    story: list[str] = []

    async def answers(data: Data) -> None:
        await data.async_continue_with("one", 5)
        story.append("goes on")

    flow = left_behind(go_on, ask, answers, lambda data: story.append(f"after {data.input}"))
    execution = world.execution(flow, auto_close=False, concurrency=2)
    started = asyncio.create_task(execution.async_start())
    await turns()
    try:
        with pytest.raises(PendingInterruptsError), pytest.warns(RuntimeWarning):
            closing = asyncio.create_task(execution.async_close(timeout=0.05))
            await turns()
            ask.set()
            await world.clock.advance(0.05)
            await world.clock.advance(1.0)
            await closing
    finally:
        go_on.set()

    await asyncio.wait_for(until(lambda: len(story) == 2), 20)
    assert story == ["after 5", "goes on"]
    assert (execution._core.running, execution._core.guests) == (0, None)
    await started
