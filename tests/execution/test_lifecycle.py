"""From created to closed: statuses, sealing, closing, auto close, failure and cancellation."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tests.execution.support import Data, World, keep, passes, turns, until

from flowdeck.errors import PendingInterruptsError
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio


def waiting_flow(gate: asyncio.Event) -> TriggerFlow:
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> Any:
        await gate.wait()
        return data.input

    flow.to(work).to(keep("out"))
    return flow


async def test_a_run_belongs_to_its_parent_run(world: World) -> None:
    """parent_run_context, and a chunk that starts another flow, make the run a child run, also for the stream."""
    from flowdeck.events.lineage import RunContext

    inner = TriggerFlow(name="inner")
    inner.to(("put", lambda d: d.put_into_stream(1)))
    outer = TriggerFlow(name="outer")

    async def starts(data: Data) -> None:
        await inner.async_start(services=world.services)

    outer.to(starts)
    parent = RunContext.create(run_kind="request", session_id="s1")
    await outer.async_start(services=world.services, parent_run_context=parent)
    async for _ in inner.get_async_runtime_stream(services=world.services, parent_run_context=parent):
        pass

    first, second, third = (r.run for r in world.records("triggerflow.execution_started"))
    chunk = world.records("chunk.started")[0].run
    assert first is not None and second is not None and third is not None and chunk is not None
    assert first.parent_run_id == third.parent_run_id == parent.run_id
    assert second.parent_run_id == chunk.run_id
    assert {r.root_run_id for r in (first, second, third)} == {parent.run_id}
    assert {r.session_id for r in (first, second, third)} == {"s1"}


async def test_both_state_machines(world: World) -> None:
    """created, running, completed; open, sealed, closed; each with its flags."""
    gate = asyncio.Event()
    execution = world.execution(waiting_flow(gate))
    assert (execution.get_status(), execution.is_open(), execution.is_idle()) == ("created", True, True)
    running = asyncio.create_task(execution.async_start(1))
    await turns()
    assert (execution.get_status(), execution.is_idle()) == ("running", False)
    assert execution.seal() is execution
    assert (execution.is_sealed(), execution.is_open()) == (True, False)
    execution.unseal()
    gate.set()
    await running
    assert execution.get_status() == "running"
    await execution.async_close()
    assert (execution.get_status(), execution.get_lifecycle_state(), execution.is_closed()) == (
        "completed",
        "closed",
        True,
    )


async def test_meta_has_exactly_its_keys(world: World) -> None:
    """get_meta() times are seconds since the epoch."""
    execution = world.execution(TriggerFlow(name="f"))
    assert execution.result.get_meta() == {
        "execution_id": execution.id,
        "flow_name": "f",
        "status": "created",
        "lifecycle_state": "open",
        "created_at": world.clock.time_us() / 1e6,
        "started_at": None,
        "closed_at": None,
        "close_reason": None,
        "state_version": 0,
    }


async def test_starting_again_changes_nothing(world: World) -> None:
    """A second start returns the same thing without a second run; after close it is refused."""
    flow = TriggerFlow(name="f")
    flow.to(("count", lambda d: d.append_state("n", d.input)))
    execution = world.execution(flow)
    assert await execution.async_start(1) is await execution.async_start(2) is execution
    assert await execution.async_close() == {"n": [1]}
    with pytest.warns(RuntimeWarning, match="'START' refused, it is closed"):
        assert await execution.async_start(3) is execution

    assert [p["lifecycle_state"] for p in world.payloads("triggerflow.event_rejected")] == ["closed"]


async def test_state_of_a_closed_run_stands(world: World) -> None:
    """Writing state after the close is refused with a warning, from outside and from what a handler left running."""
    late: list[asyncio.Task[None]] = []
    closed = asyncio.Event()

    async def leaves_work(data: Data) -> None:
        async def later() -> None:
            await closed.wait()
            data.set_state("a", 2)

        late.append(asyncio.create_task(later()))

    flow = TriggerFlow(name="f")
    flow.to(("leaves_work", leaves_work)).to(("a", lambda data: data.set_state("a", 1)))
    execution = world.execution(flow)
    await execution.async_start(1)
    assert await execution.async_close() == {"a": 1}
    closed.set()
    with pytest.warns(RuntimeWarning, match="state 'a' refused, it is closed"):
        await late[0]

    for write in (execution.async_set_state("b", 1), execution.async_append_state("b", 1)):
        with pytest.warns(RuntimeWarning, match="state 'b' refused, it is closed"):
            await write

    with pytest.warns(RuntimeWarning, match="state 'a' refused, it is closed"):
        await execution.async_del_state("a")

    assert execution.get_state() == execution.result.get_state() == {"a": 1}


def test_a_run_from_synchronous_code() -> None:
    """flow.start() runs everything and returns the snapshot at once; a handle start needs auto_close (A10)."""
    world = World()
    flow = TriggerFlow(name="f")
    flow.to(passes("add", lambda v: v + 1)).to(keep("out"))
    assert flow.start(1, services=world.services) == {"out": 2}
    assert flow._executions == {}
    with pytest.raises(ValueError, match="hides the handle"):
        flow.start(1, auto_close=False)

    with pytest.raises(ValueError, match="use await async_start"):
        flow.create_execution(auto_close=False).start(1)


async def test_a_synchronous_start_inside_a_loop(world: World) -> None:
    """flow.start() may be called where a loop runs already; it takes a thread of its own."""
    flow = TriggerFlow(name="f")
    flow.to(("thread", lambda d: d.set_state("other", threading.get_ident() != here)))
    here = threading.get_ident()
    assert flow.start(services=world.services) == {"other": True}


async def test_a_synchronous_call_on_the_executions_own_loop(world: World) -> None:
    """It would wait for itself, so it is refused with the mend."""
    execution = world.execution(TriggerFlow(name="f"))
    await execution.async_start()
    with pytest.raises(RuntimeError, match="await the async_ method"):
        execution.close()

    await execution.async_close()


async def test_a_failing_handler(world: World) -> None:
    """The caller gets the exception, the run stays open as failed, siblings are stopped (A11)."""
    stopped: list[bool] = []
    flow = TriggerFlow(name="f")

    async def bad(data: Data) -> None:
        await data.async_set_state("k", 1)
        await turns(3)
        raise ValueError("no")

    async def sibling(data: Data) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append(True)
            raise

    flow.to(bad).to(keep("never"))
    flow.to(sibling)
    execution = world.execution(flow)
    with pytest.raises(ValueError, match="no"):
        await execution.async_start()

    await turns()
    assert stopped == [True]
    assert (execution.get_status(), execution.get_lifecycle_state()) == ("failed", "open")
    assert await execution.async_close() == {"k": 1}
    assert execution.get_status() == "failed"
    assert "triggerflow.execution_completed" not in world.types()
    (failed,) = world.payloads("triggerflow.execution_failed")
    assert failed["last_signal"]["trigger_event"] == "START"
    statuses = {p["chunk_name"]: p["status"] for p in world.payloads("chunk.failed")}
    assert statuses == {"bad": "failed", "sibling": "cancelled"}


async def test_skipped_exceptions(world: World) -> None:
    """With skip_exceptions a failed chunk is told, and nothing else changes (A11)."""
    flow = TriggerFlow(name="f", skip_exceptions=True)
    flow.to(("bad", lambda d: 1 / 0)).to(keep("never"))
    flow.to(keep("beside"))
    execution = world.execution(flow)
    assert await execution.async_start(1) is execution
    assert execution.get_status() == "running"
    assert await execution.async_close() == {"beside": 1}
    assert execution.get_status() == "completed"
    assert [p["chunk_name"] for p in world.payloads("chunk.failed")] == ["bad"]


async def test_a_failed_emit_reaches_its_emitter(world: World) -> None:
    """An awaited emit raises what its handlers raised; the emitter may catch it, and then nothing has failed."""
    flow = TriggerFlow(name="f")

    async def careful(data: Data) -> str:
        try:
            await data.async_emit("E")
        except ZeroDivisionError:
            return "caught"

        return "missed"

    flow.to(careful).to(keep("out"))
    flow.when("E").to(("bad", lambda d: 1 / 0))
    execution = world.execution(flow)
    await execution.async_start()
    assert await execution.async_close() == {"out": "caught"}
    assert execution.get_status() == "completed"


async def test_a_failed_branch_nobody_awaits(world: World) -> None:
    """It fails the run; whoever waits for the whole run hears of it (deviation: nothing is swallowed)."""
    flow = TriggerFlow(name="f")
    flow.to(("go", lambda d: d.emit_nowait("E")))
    flow.when("E").to(("bad", lambda d: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        await flow.async_start(services=world.services)

    execution = world.execution(flow)
    await execution.async_start()
    await execution.async_close()
    assert execution.get_status() == "failed"


async def test_close_waits_for_detached_work(world: World) -> None:
    """emit_nowait lets async_start return first; close waits for the handler and what it emits (A12)."""
    gate = asyncio.Event()
    flow = TriggerFlow(name="f")
    flow.to(("go", lambda d: d.emit_nowait("E", 1)))

    async def slow(data: Data) -> None:
        await gate.wait()
        await data.async_append_state("seen", data.input)
        if data.input < 3:
            data.emit_nowait("E", data.input + 1)

    flow.when("E").to(slow)
    execution = world.execution(flow)
    await execution.async_start()
    assert not execution.is_idle()
    closing = asyncio.create_task(execution.async_close())
    await turns()
    assert not closing.done()
    gate.set()
    assert await closing == {"seen": [1, 2, 3]}


async def test_close_with_a_timeout(world: World) -> None:
    """After the timeout running work is cancelled and counted; the run is completed all the same (A12)."""
    execution = world.execution(waiting_flow(asyncio.Event()))
    starting = asyncio.create_task(execution.async_start())
    await turns()
    with pytest.warns(RuntimeWarning, match="cancels 1 piece"):
        closing = asyncio.create_task(execution.async_close(timeout=0.05))
        await world.clock.advance(0.05)
        assert await closing == {}

    assert await starting is execution
    assert execution.get_status() == "completed"
    assert world.payloads("triggerflow.pending_tasks_cancelled") == [{"pending_task_count": 1, "timeout": 0.05}]
    assert [p["status"] for p in world.payloads("chunk.failed")] == ["cancelled"]


async def test_a_handler_that_swallows_its_cancellation(world: World) -> None:
    """close(timeout) ends: after a second the handler is left behind, with a warning; what it does then is lost."""
    stubborn = asyncio.Event()
    flow = TriggerFlow(name="f")

    async def swallow(data: Data) -> str:
        while not stubborn.is_set():
            try:
                await stubborn.wait()
            except asyncio.CancelledError:
                pass

        await data.async_set_state("late", True)
        return "late"

    flow.to(swallow).to(keep("never"))
    execution = world.execution(flow)
    starting = asyncio.create_task(execution.async_start())
    await turns()
    with pytest.warns(RuntimeWarning) as warned:
        closing = asyncio.create_task(execution.async_close(timeout=0.1))
        await world.clock.advance(0.1)
        assert not closing.done()
        await world.clock.advance(1.0)
        assert await closing == {}

    assert "1 handler(s) swallowed their cancellation" in str(warned[-1].message)
    assert await starting is execution
    with pytest.warns(RuntimeWarning, match="state 'late' refused, it is closed"):
        stubborn.set()
        await turns()

    assert execution.result.get_state() == {}
    assert world.chunks("chunk.started") == {"swallow": 1}


async def test_cancel_stops_everything(world: World) -> None:
    """async_cancel stops handlers, gives up interrupts and closes as cancelled."""
    flow = waiting_flow(asyncio.Event())
    flow.to(("ask", lambda d: d.pause_for(interrupt_id="my")))
    execution = world.execution(flow)
    starting = asyncio.create_task(execution.async_start())
    await turns()
    assert await execution.async_cancel(reason="enough") == {}
    await starting
    assert (execution.get_status(), execution.result.get_meta()["close_reason"]) == ("cancelled", "enough")
    record = execution.get_interrupt("my")
    assert record is not None and record["status"] == "cancelled"
    assert world.payloads("triggerflow.execution_cancelled") == [{"reason": "enough"}]
    assert await execution.async_cancel() == {}, "again changes nothing"


async def test_cancelling_the_starter_cancels_the_handlers(world: World) -> None:
    """Cancelling whoever awaits async_start stops what the start led to; the run stays open."""
    execution = world.execution(waiting_flow(asyncio.Event()))
    starting = asyncio.create_task(execution.async_start())
    await turns()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    await turns()
    assert execution.is_idle() and execution.is_open()
    await execution.async_close()


async def test_close_from_inside_a_chunk(world: World) -> None:
    """close() does not wait for the chunk that calls it, nor for chunks that await that one."""
    flow = TriggerFlow(name="f")

    async def outer(data: Data) -> None:
        await data.async_emit("E")

    async def closes(data: Data) -> None:
        await data.async_set_state("k", 1)
        await data.execution.async_close(reason="from inside")

    flow.to(outer)
    flow.when("E").to(closes).to(keep("never"))
    execution = world.execution(flow)
    await execution.async_start()
    assert execution.result.get_state() == {"k": 1}
    assert execution.result.get_meta()["close_reason"] == "from inside"


async def test_close_with_a_timeout_from_inside_a_chunk(world: World) -> None:
    """It cancels the others, not itself."""
    flow = waiting_flow(asyncio.Event())

    async def closes(data: Data) -> None:
        await turns(3)
        await data.execution.async_close(timeout=0)

    flow.to(closes)
    execution = world.execution(flow)
    with pytest.warns(RuntimeWarning, match="cancels 1 piece"):
        await execution.async_start()

    assert execution.get_status() == "completed"


async def test_two_closers_get_one_snapshot(world: World) -> None:
    """A second close waits for the first; when the first is cancelled, it closes itself."""
    gate = asyncio.Event()
    execution = world.execution(waiting_flow(gate))
    starting = asyncio.create_task(execution.async_start(1))
    await turns()
    first = asyncio.create_task(execution.async_close(reason="first"))
    await turns()
    second = asyncio.create_task(execution.async_close(reason="second"))
    await turns()
    first.cancel()
    await turns()
    gate.set()
    assert await second == {"out": 1}
    assert execution.result.get_meta()["close_reason"] == "second"
    await starting


async def test_a_close_that_fails_is_rolled_back(world: World) -> None:
    """A chunk that pauses while close drains it makes the close fail; the run is open again."""
    gate = asyncio.Event()
    flow = TriggerFlow(name="f")

    async def ask(data: Data) -> Any:
        await gate.wait()
        return await data.async_pause_for(interrupt_id="my")

    flow.to(ask).to(keep("out"))
    execution = world.execution(flow)
    starting = asyncio.create_task(execution.async_start())
    await turns()
    closing = asyncio.create_task(execution.async_close())
    await turns()
    gate.set()
    with pytest.raises(PendingInterruptsError):
        await closing

    await starting
    assert execution.is_open()
    assert execution.result.get_meta()["close_reason"] is None
    assert [p["reason"] for p in world.payloads("triggerflow.execution_unsealed")] == ["close_failed"]
    await execution.async_continue_with("my", 1)
    assert await execution.async_close() == {"out": 1}


async def test_a_sealed_run_takes_nothing_new(world: World) -> None:
    """Sealed and closed refuse signals with a warning and an event; unseal opens again, not after close (A13)."""
    flow = TriggerFlow(name="f")
    flow.when("E").to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start()
    execution.seal("lunch")
    with pytest.warns(RuntimeWarning, match="'E' refused, it is sealed"):
        await execution.async_emit("E", 1)

    execution.unseal()
    await execution.async_emit("E", 2)
    assert await execution.async_close() == {"out": 2}
    with pytest.warns(RuntimeWarning, match="unseal"):
        execution.unseal()

    with pytest.warns(RuntimeWarning, match="stream item refused"):
        await execution.async_put_into_stream(1)

    rejected = [t for t in world.types() if t.endswith("rejected")]
    assert rejected == [
        "triggerflow.event_rejected",
        "triggerflow.unseal_rejected",
        "triggerflow.stream_item_rejected",
    ]
    assert [p["reason"] for p in world.payloads("triggerflow.execution_sealed")] == ["lunch", "manual"]


async def test_sealing_lets_work_finish(world: World) -> None:
    """What is under way goes on after seal(), and may emit."""
    gate = asyncio.Event()
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> None:
        await gate.wait()
        await data.async_emit("E", 1)

    flow.to(work)
    flow.when("E").to(keep("out"))
    execution = world.execution(flow)
    starting = asyncio.create_task(execution.async_start())
    await turns()
    execution.seal()
    gate.set()
    await starting
    assert await execution.async_close() == {"out": 1}


async def test_auto_close_after_idleness(world: World) -> None:
    """The run closes once nothing has happened for the timeout; every activity starts it anew."""
    flow = TriggerFlow(name="f")
    flow.to(keep("out"))
    flow.when("E").to(keep("e"))
    execution = world.execution(flow, auto_close=True, auto_close_timeout=10.0)
    running = asyncio.create_task(execution.async_start(1))
    await world.clock.advance(9)
    await execution.async_put_into_stream("item")
    await world.clock.advance(9)
    await execution.async_emit("E", 2)
    await world.clock.advance(9)
    await execution.async_emit("Nobody")
    await world.clock.advance(9)
    assert execution.is_open()
    await world.clock.advance(1)
    assert await running == {"out": 1, "e": 2}
    assert execution.result.get_meta()["close_reason"] == "auto_close_idle_timeout"


async def test_long_work_is_not_idleness(world: World) -> None:
    """The idle clock stands still while a handler runs."""
    gate = asyncio.Event()
    execution = world.execution(waiting_flow(gate), auto_close=True, auto_close_timeout=1.0)
    running = asyncio.create_task(execution.async_start(1))
    await world.clock.advance(100)
    assert execution.is_open()
    gate.set()
    await turns()
    await world.clock.advance(0.9)
    assert execution.is_open()
    await world.clock.advance(0.1)
    assert await running == {"out": 1}


async def test_no_timeout_never_closes(world: World) -> None:
    """auto_close_timeout=None waits for somebody to close, whatever auto_close says (A9)."""
    execution = world.execution(TriggerFlow(name="f"), auto_close=True, auto_close_timeout=None)
    running = asyncio.create_task(execution.async_start())
    await world.clock.advance(1e6)
    assert execution.is_open()
    await execution.async_close()
    assert await running == {}


async def test_start_execution_returns_the_handle(world: World) -> None:
    """async_start_execution returns once the start has settled, and the run closes later by itself."""
    flow = TriggerFlow(name="f")
    flow.to(keep("out"))
    execution = await flow.async_start_execution(3, timeout=5.0, services=world.services)
    assert execution.get_state() == {"out": 3}
    assert execution.is_open()
    await world.clock.advance(5)
    assert execution.is_closed()
    assert flow._executions == {execution.id: execution}
    flow.remove_execution(execution)
    assert flow._executions == {}


async def test_the_result_is_live_then_frozen(world: World) -> None:
    """The result object shows the live state, and the snapshot after the close."""
    flow = TriggerFlow(name="f")
    flow.when("E").to(keep("a.b"))
    execution = world.execution(flow)
    await execution.async_emit("E", 1)
    assert execution.result.get_state("a.b") == 1
    snapshot = await execution.async_close()
    snapshot["a"]["b"] = 2
    assert execution.result.get_state() == {"a": {"b": 1}}
    assert execution.result.get_state("missing", 5) == 5
    assert await execution.result.async_get_final_result() == {"a": {"b": 1}}


async def test_the_final_result_goes_before_the_snapshot(world: World) -> None:
    """``$final_result`` can be had before the close; without one the result waits, with a timeout."""
    flow = TriggerFlow(name="f")
    with pytest.warns(DeprecationWarning, match="end"):
        flow.to(passes("x")).end()

    execution = world.execution(flow)
    waiting = asyncio.create_task(execution.result.async_get_final_result(timeout=5))
    await turns()
    with pytest.warns(UserWarning, match="no result within 5"):
        await world.clock.advance(5)
        assert await waiting is None

    await execution.async_start("final")
    assert await execution.result.async_get_final_result() == "final"
    assert await execution.async_close() == {"$final_result": "final"}


async def test_a_worker_thread_uses_the_data_object(world: World) -> None:
    """Sync methods called from a thread wait for the loop the execution lives on."""
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> None:
        def inside() -> None:
            data.set_state("k", 1)
            data.append_state("l", 2)
            data.emit("E", 3)
            data.set_flow_data("n", 4, no_warning=True)
            data.put_into_stream("item")
            data.emit_nowait("F", 5)

        await asyncio.to_thread(inside)

    flow.to(work)
    flow.when("E").to(keep("e"))
    flow.when("F").to(keep("f"))
    execution = world.execution(flow)
    await execution.async_start()
    assert await execution.async_close() == {"k": 1, "l": [2], "e": 3, "f": 5}
    assert [i async for i in execution.get_async_runtime_stream(timeout=None)] == ["item"]


async def test_a_hundred_executions_side_by_side(world: World) -> None:
    """Executions of one flow share nothing but the definition."""
    flow = TriggerFlow(name="f")
    flow.for_each().to(passes("inc", lambda v: v + 1)).end_for_each().to(keep("out"))
    results = await asyncio.gather(*(world.run(flow, [n, n]) for n in range(100)))
    assert results == [{"out": [n + 1, n + 1]} for n in range(100)]
    await until(lambda: True)
