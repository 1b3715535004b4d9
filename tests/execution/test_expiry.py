"""Interrupts that nobody answers in time, on virtual time, and their races with answers."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from tests.execution.support import Data, World, keep, turns

from flowdeck.errors import InterruptError, InterruptExpired
from flowdeck.execution.control import InboxRow
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio


def asking(**options: Any) -> TriggerFlow:
    flow = TriggerFlow(name="f")
    options = {"interrupt_id": "my", "expires_in": 60, **options}

    async def ask(data: Data) -> Any:
        return await data.async_pause_for(**options)

    flow.to(ask).to(keep("out"))
    return flow


async def test_cancel_ends_the_branch(world: World) -> None:
    """on_expire="cancel", the default: the branch ends, the run completes as if it had not gone there."""
    execution = world.execution(asking())
    await execution.async_start()
    await world.clock.advance(59.9)
    assert execution.get_status() == "waiting"
    await world.clock.advance(0.1)
    record = execution.get_interrupt("my")
    assert record is not None
    assert (record["status"], record["cancel_reason"], record["response"]) == ("expired", "expired", None)
    assert execution.get_pending_interrupts() == {}
    assert await execution.async_close() == {}
    assert execution.get_status() == "completed"
    (expired,) = world.payloads("triggerflow.interrupt_expired")
    assert (expired["interrupt_id"], expired["on_expire"]) == ("my", "cancel")
    items = [i async for i in execution.get_async_runtime_stream(timeout=None)]
    assert [i["action"] for i in items] == ["pause", "expire"]


async def test_a_value_goes_on_as_the_answer(world: World) -> None:
    """on_expire={"value": v} continues like an answer; the following chunk sees it as a resume."""
    execution = world.execution(asking(on_expire={"value": {"ok": False}}))
    await execution.async_start()
    await world.clock.advance(60)
    assert execution.get_status() == "running"
    record = execution.get_interrupt("my")
    assert record is not None and (record["status"], record["actor"]) == ("expired", None)
    assert await execution.async_close() == {"out": {"ok": False}}


async def test_a_value_brings_a_self_resuming_chunk_back(world: World) -> None:
    """With resume_to="self" the chunk runs again with the default as its answer."""
    flow = TriggerFlow(name="f")

    async def ask(data: Data) -> Any:
        if data.is_resume:
            return [data.resume.value, data.resume.interrupt["status"] if data.resume.interrupt else None]

        return await data.async_pause_for(resume_to="self", expires_in=5, on_expire={"value": 0})

    flow.to(ask).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start()
    await world.clock.advance(5)
    assert await execution.async_close() == {"out": [0, "expired"]}


async def test_an_event_takes_over(world: World) -> None:
    """on_expire={"event": E} runs the handlers of E instead of the chain."""
    flow = asking(on_expire={"event": "Late"})
    flow.when("Late").to(("late", lambda d: d.set_state("late", [d.input, d.is_resume])))
    execution = world.execution(flow)
    await execution.async_start()
    await world.clock.advance(60)
    assert await execution.async_close() == {"late": [None, True]}
    record = execution.get_interrupt("my")
    assert record is not None and record["resume_to"] == "next", "the record says what was asked for"


async def test_fail_fails_the_run(world: World) -> None:
    """on_expire="fail" ends the run as failed, with an error that names the interrupt."""
    execution = world.execution(asking(on_expire="fail", type="approval"))
    await execution.async_start()
    await world.clock.advance(60)
    assert execution.get_status() == "failed"
    (failed,) = world.records("triggerflow.execution_failed")
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == (
        "InterruptExpired",
        "interrupt 'my' (approval) expired unanswered",
    )
    assert issubclass(InterruptExpired, TimeoutError)
    assert await execution.async_close() == {}


async def test_the_start_of_an_auto_closing_run_raises_the_expiry(world: World) -> None:
    """Whoever awaits the whole run gets the failure, not a snapshot as if all were well."""
    execution = world.execution(asking(on_expire="fail"), auto_close=True, auto_close_timeout=1.0)
    running = asyncio.create_task(execution.async_start())
    await turns()
    await world.clock.advance(62)
    with pytest.raises(InterruptExpired):
        await running

    assert execution.is_closed()


async def test_an_answer_stops_the_clock(world: World) -> None:
    """After an answer nothing expires, and no timer is left."""
    execution = world.execution(asking(on_expire="fail"))
    await execution.async_start()
    await world.clock.advance(30)
    await execution.async_continue_with("my", 1)
    await world.clock.advance(100)
    assert world.clock.next_due_us is None
    assert await execution.async_close() == {"out": 1}
    assert world.payloads("triggerflow.interrupt_expired") == []


async def test_an_answer_after_the_end_is_told_so(world: World) -> None:
    """A late answer is a ValueError that says it expired; from another process the outcome is "expired"."""
    execution = world.execution(asking())
    await execution.async_start()
    await world.clock.advance(60)
    with pytest.raises(InterruptError, match="is not waiting \\(it is expired\\)"):
        await execution.async_continue_with("my", 1)

    execution.deliver(InboxRow(1, execution.id, "resume", "my", 1, "d", "ana", 0))
    await turns()
    assert [p["outcome"] for p in world.payloads("triggerflow.inbox_applied")] == ["expired"]
    await execution.async_close()


@pytest.mark.parametrize("seed", range(20))
async def test_a_race_has_one_winner(world: World, seed: int) -> None:
    """An answer at the moment of the expiry: either counts, never both, and the branch runs once."""
    rng = random.Random(seed)
    execution = world.execution(asking(on_expire={"value": "expired"}))
    await execution.async_start()
    advance = asyncio.create_task(world.clock.advance(60))
    await turns(rng.randrange(40))
    execution.deliver(InboxRow(1, execution.id, "resume", "my", "answered", "d", "ana", 0))
    await advance
    (outcome,) = [p["outcome"] for p in world.payloads("triggerflow.inbox_applied")]
    out = "answered" if outcome == "applied" else "expired"
    assert outcome in ("applied", "expired")
    assert world.chunks()["keep out"] == 1
    assert await execution.async_close() == {"out": out}


async def test_it_expires_while_the_handler_still_runs(world: World) -> None:
    """A handler that dawdles after pausing finds its branch ended when it returns."""
    gate = asyncio.Event()
    flow = TriggerFlow(name="f")

    async def slow(data: Data) -> Any:
        signal = await data.async_pause_for(expires_in=5)
        await gate.wait()
        return signal

    flow.to(slow).to(keep("out"))
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await turns()
    await world.clock.advance(5)
    gate.set()
    await running
    assert await execution.async_close() == {}
    assert not execution._core.tasks and not execution._core.groups


async def test_an_expired_member_does_not_hold_the_others_up(world: World) -> None:
    """In a for_each, a value on expiry stands for the answer; without one the list lacks the member."""
    for on_expire, expected in (({"value": 0}, {"out": [0, 2]}), ("cancel", {"out": [2]})):
        flow = TriggerFlow(name="f")

        async def ask(data: Data, on_expire: Any = on_expire) -> Any:
            return await data.async_pause_for(expires_in=5 if data.input == 1 else None, on_expire=on_expire)

        flow.for_each().to(ask).end_for_each().to(keep("out"))
        execution = world.execution(flow)
        await execution.async_start([1, 2])
        await world.clock.advance(5)
        await execution.async_continue_with(next(iter(execution.get_pending_interrupts())), 2)
        assert await execution.async_close() == expected


async def test_auto_close_follows_an_expiry(world: World) -> None:
    """A run whose last question has expired is idle, and closes by itself."""
    execution = world.execution(asking(), auto_close=True, auto_close_timeout=1.0)
    running = asyncio.create_task(execution.async_start())
    await turns()
    await world.clock.advance(60.9)
    assert execution.is_open()
    await world.clock.advance(0.2)
    assert await running == {}


async def test_the_clock_goes_on_after_a_load(world: World) -> None:
    """The due time is absolute: a loaded run expires then, or at once when the time has passed meanwhile."""
    flow = asking(on_expire={"value": "expired"})
    execution = world.execution(flow)
    await execution.async_start()
    saved = json.loads(json.dumps(execution.save()))
    await execution.async_close(pending_interrupts="cancel")
    fresh = world.execution(flow).load(saved)
    await fresh.async_recover()
    await world.clock.advance(59)
    assert fresh.get_status() == "waiting"
    await world.clock.advance(1)
    assert await fresh.async_close() == {"out": "expired"}
    late = world.execution(flow).load(saved)
    await late.async_recover()
    await turns()
    assert await late.async_close() == {"out": "expired"}


async def test_a_closed_run_expires_nothing(world: World) -> None:
    """Closing takes the timers along."""
    execution = world.execution(asking(on_expire="fail"))
    await execution.async_start()
    await execution.async_close(pending_interrupts="cancel")
    assert world.clock.next_due_us is None
    await world.clock.advance(100)
    assert execution.get_status() == "cancelled"


async def test_a_pause_made_before_the_loop_gets_its_timer(world: World) -> None:
    """execution.pause_for() in synchronous code starts its clock with the loop."""
    flow = TriggerFlow(name="f")
    flow.when("Go").to(keep("went"))
    execution = world.execution(flow)
    await asyncio.to_thread(
        lambda: execution.pause_for(resume_to={"event": "Go"}, expires_in=5, on_expire={"value": "late"})
    )
    await execution.async_start()
    await world.clock.advance(5)
    assert await execution.async_close() == {"went": "late"}


async def test_a_clock_that_is_set_back(world: World) -> None:
    """A wall clock that jumps back delays the expiry; it is not taken for due."""
    execution = world.execution(asking())
    await execution.async_start()
    await turns()
    world.clock._now_us -= 30_000_000
    world.clock._sleepers = [(due - 30_000_000, n, f) for due, n, f in world.clock._sleepers]
    await world.clock.advance(60)
    assert execution.get_status() == "waiting"
    await world.clock.advance(30)
    assert execution.get_status() == "running"
    await execution.async_close()
