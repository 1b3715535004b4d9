"""Durable executions as a user sees them: what is committed when, what runs again, and what is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.durable.crashing import Process, finish
from tests.execution.support import Data, World, turns

from flowdeck.definition.retry import Retry
from flowdeck.durable.memory import MemoryStore, Shelf
from flowdeck.durable.recovery import BlockedVersion, rename_operators, restore
from flowdeck.durable.store import Commit, Done
from flowdeck.errors import ExecutionFenced, MissingResource, SnapshotError, UnencodableValue
from flowdeck.execution.replica import replay
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio


class SlowStore(MemoryStore):
    """Commits when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[Commit, Done]] = []

    def submit(self, commit: Commit, done: Done) -> None:
        self.waiting.append((commit, done))

    def commit_next(self) -> None:
        super().submit(*self.waiting.pop(0))


async def commit_all(store: SlowStore) -> None:
    for _ in range(50):
        await turns(3)
        while store.waiting:
            store.commit_next()


def ok(payload: Any) -> Any:
    return {"ok": True}


# -- visible at once, durable in order -------------------------------------------------------------------------------


async def test_no_handler_starts_before_what_led_to_it_is_committed(world: World) -> None:
    """The first step waits for the commit of the start, the second for that of the first."""
    ran: list[str] = []
    store = world.services.store = SlowStore()
    flow = TriggerFlow(name="ordered")
    flow.to(("a", lambda data: ran.append("a"))).to(("b", lambda data: ran.append("b")))
    execution = world.execution(flow)
    work = asyncio.create_task(execution.async_start())
    await turns(10)
    assert ran == []
    store.commit_next()
    await turns(10)
    assert ran == ["a"]
    store.commit_next()
    await turns(10)
    assert ran == ["a", "b"]
    assert not work.done(), "the caller is told before the end is committed"
    await commit_all(store)
    await work


async def test_no_stream_item_leaves_before_it_is_committed(world: World) -> None:
    """A reader sees an item when nothing can take it back."""
    store = world.services.store = SlowStore()
    hold = asyncio.Event()

    async def tell(data: Data) -> None:
        data.put("one")
        await hold.wait()

    flow = TriggerFlow(name="stream")
    flow.to(tell)
    execution = world.execution(flow)
    seen: list[Any] = []

    async def read() -> None:
        async for item in execution.get_async_runtime_stream(timeout=None):
            seen.append(item)

    reader = asyncio.create_task(read())
    await turns(10)
    store.commit_next()  # the start
    await turns(10)
    assert seen == [] and len(store.waiting) == 1
    store.commit_next()
    await turns(10)
    assert seen == ["one"]
    hold.set()
    closing = asyncio.create_task(execution.async_close())
    await commit_all(store)
    await closing
    await reader


async def test_state_is_visible_at_once(world: World) -> None:
    """A handler reads what it wrote, committed or not."""
    store = world.services.store = SlowStore()
    read: list[Any] = []

    async def write(data: Data) -> None:
        await data.async_set_state("x", 1)
        read.append(data.get_state("x"))

    flow = TriggerFlow(name="visible")
    flow.to(write)
    work = asyncio.create_task(world.execution(flow).async_start())
    await turns(5)
    store.commit_next()
    await turns(5)
    assert read == [1]
    await commit_all(store)
    await work


async def test_a_recovered_stream_begins_with_what_was_put(world: World) -> None:
    """A late reader of a recovered run sees every item once, in order."""
    flow = TriggerFlow(name="items")

    async def tell(data: Data) -> Any:
        for number in range(3):
            data.put(number)

        return await data.async_pause_for(type="ok")

    flow.to(tell).to(("more", lambda data: data.put("after")))
    shelf = Shelf()
    first = Process(world, shelf, "first")
    execution = first.start(flow, 1)
    await asyncio.gather(*first.work)
    await first.kill()
    again = Process(world, shelf, "second")
    taken = again.take_up(flow, execution.id)
    await finish(again, ok)
    items = [item async for item in taken.get_async_runtime_stream(timeout=None)]
    plain = [item for item in items if not isinstance(item, dict)]
    actions = [item["action"] for item in items if isinstance(item, dict)]
    assert (plain, actions) == ([0, 1, 2, "after"], ["pause", "resume"])


async def test_a_value_that_cannot_be_stored_fails_its_step(world: World) -> None:
    """The error names the operator; nobody is left waiting."""
    world.services.store = MemoryStore()
    flow = TriggerFlow(name="live objects")
    flow.to(("make", lambda data: object())).to(("use", lambda data: None))
    with pytest.raises(UnencodableValue, match="make"):
        await world.execution(flow).async_start()


async def test_a_value_that_goes_nowhere_may_be_anything(world: World) -> None:
    """What the last step of a branch returns is not stored, so it is not checked."""
    world.services.store = MemoryStore()
    flow = TriggerFlow(name="last")
    flow.to(("last", lambda data: object()))
    execution = world.execution(flow)
    await execution.async_start()
    await execution.async_close()
    assert execution.get_status() == "completed"


async def test_a_start_value_that_cannot_be_stored_is_refused(world: World) -> None:
    """It is refused before there is a run."""
    store = world.services.store = MemoryStore()
    flow = TriggerFlow(name="start")
    flow.to(("a", lambda data: 1))
    with pytest.raises(UnencodableValue, match="initial_value"):
        await world.execution(flow).async_start(object())

    assert store.list_executions() == []


# -- another owner ---------------------------------------------------------------------------------------------------


async def test_a_fenced_run_stops_quietly(world: World) -> None:
    """Who has lost a run gets ExecutionFenced, handlers are stopped, and no failure is reported for it."""
    shelf = Shelf()
    first = Process(world, shelf, "first")
    began = asyncio.Event()
    stopped: list[str] = []

    async def long(data: Data) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append("stopped")
            raise

    flow = TriggerFlow(name="fenced")
    flow.to(long)
    execution = first.start(flow, 1)
    await began.wait()
    Process(world, shelf, "second").store.claim(execution.id, force=True)
    execution._core.set_state("x", 1)
    execution._log.flush()  # type: ignore[union-attr]
    with pytest.raises(ExecutionFenced):
        await asyncio.gather(*first.work)

    await turns(5)
    assert stopped == ["stopped"]
    assert world.types("triggerflow.execution_superseded") == ["triggerflow.execution_superseded"]
    assert not world.records("triggerflow.execution_failed") and not world.records("chunk.failed")
    assert shelf.held[execution.id].status == "running"


async def test_stopping_the_loop_leaves_the_run_to_be_taken_up(world: World) -> None:
    """Ending a process in good order is no failure of its runs: a cancelled branch is not recorded as failed."""
    shelf = Shelf()
    first = Process(world, shelf, "first")
    began = asyncio.Event()
    go_on = False

    async def long(data: Data) -> str:
        began.set()
        if not go_on:
            await asyncio.Event().wait()

        return "done"

    flow = TriggerFlow(name="stopped")
    flow.to(long).to(("keep", lambda data: data.set_state("out", data.input)))
    execution = first.start(flow, 1)
    await began.wait()
    for task in [*first.work, *execution._driver._by_record.values()]:
        task.cancel()

    await asyncio.gather(*first.work, return_exceptions=True)
    await turns(3)
    shelf.dead.add("first")
    go_on = True
    again = Process(world, shelf, "second")
    again.take_up(flow, execution.id)
    assert await finish(again, ok) == {"out": "done"}


# -- re-runs ---------------------------------------------------------------------------------------------------------


def unsafe_flow(calls: list[tuple[str, int]], crash: asyncio.Event) -> TriggerFlow:
    flow = TriggerFlow(name="payments")

    async def charge(data: Data) -> str:
        calls.append((data.idempotency_key, data.attempt))
        if len(calls) == 1:
            crash.set()
            await asyncio.Event().wait()

        return "charged"

    flow.to(("charge", charge), replay_safe=False).to(("keep", lambda data: data.set_state("out", data.input)))
    return flow


async def crashed_in_charge(world: World, flow: TriggerFlow, crash: asyncio.Event) -> tuple[Process, Any]:
    shelf = Shelf()
    first = Process(world, shelf, "first")
    execution = first.start(flow, 1)
    await crash.wait()
    await first.kill()
    again = Process(world, shelf, "second")
    taken = again.take_up(flow, execution.id)
    await asyncio.gather(*again.work)
    again.work.clear()
    (record,) = taken.get_pending_interrupts().values()
    assert record["type"] == "replay_unsafe"
    assert record["payload"]["chunk"] == "charge" and record["payload"]["attempt"] == 2
    assert record["payload"]["idempotency_key"] == f"{execution.id}:t1"
    return again, taken


async def test_a_step_that_must_not_run_twice_asks(world: World) -> None:
    """After a crash in it nobody runs it again unasked; retry runs it with the same key and the next attempt."""
    calls: list[tuple[str, int]] = []
    crash = asyncio.Event()
    process, taken = await crashed_in_charge(world, unsafe_flow(calls, crash), crash)
    assert len(calls) == 1
    assert await finish(process, lambda payload: {"action": "retry"}) == {"out": "charged"}
    assert calls == [(f"{taken.id}:t1", 1), (f"{taken.id}:t1", 2)]


async def test_skipping_takes_the_given_value(world: World) -> None:
    """Skip with a value: the step does not run, the chain goes on with what the person knows."""
    calls: list[tuple[str, int]] = []
    crash = asyncio.Event()
    process, _ = await crashed_in_charge(world, unsafe_flow(calls, crash), crash)
    assert await finish(process, lambda p: {"action": "skip", "value": "it was charged"}) == {"out": "it was charged"}
    assert len(calls) == 1


async def test_failing_fails_the_run(world: World) -> None:
    """Fail: the run fails with what the person said."""
    calls: list[tuple[str, int]] = []
    crash = asyncio.Event()
    _, taken = await crashed_in_charge(world, unsafe_flow(calls, crash), crash)
    (interrupt_id,) = taken.get_pending_interrupts()
    with pytest.raises(RuntimeError, match="charged twice already"):
        await taken.async_continue_with(interrupt_id, {"action": "fail", "reason": "charged twice already"})

    assert taken.get_status() == "failed" and len(calls) == 1
    await taken.async_close()


async def test_an_answer_of_another_shape_is_refused(world: World) -> None:
    """The question has a schema like any other."""
    calls: list[tuple[str, int]] = []
    crash = asyncio.Event()
    _, taken = await crashed_in_charge(world, unsafe_flow(calls, crash), crash)
    (interrupt_id,) = taken.get_pending_interrupts()
    with pytest.raises(ValueError, match="does not fit"):
        await taken.async_continue_with(interrupt_id, "retry")

    await taken.async_cancel()


async def test_an_unsafe_step_that_had_not_begun_just_runs(world: World) -> None:
    """Nobody is asked about a step whose handler never started."""
    calls: list[tuple[str, int]] = []
    flow = unsafe_flow(calls, asyncio.Event())
    calls.append(("none", 0))
    shelf = Shelf()
    first = Process(world, shelf, "first", 2)  # the commit that notes the beginning never comes back
    execution = first.start(flow, 1)
    await first.store.died.wait()
    await first.kill()
    again = Process(world, shelf, "second")
    again.take_up(flow, execution.id)
    assert await finish(again, ok) == {"out": "charged"}
    assert calls[1:] == [(f"{execution.id}:t1", 2)]


async def test_an_effect_with_another_value_is_told_and_the_committed_one_wins(world: World) -> None:
    """A re-run that emits something else under the same name: the event says so, the run goes on as committed."""
    values = iter(["first", "second"])
    got: list[str] = []
    crash = asyncio.Event()
    flow = TriggerFlow(name="diverging")

    async def emitter(data: Data) -> None:
        await data.async_emit("E", next(values))
        if not crash.is_set():
            crash.set()
            await asyncio.Event().wait()

    flow.to(emitter)
    flow.when("E").to(("take", lambda data: got.append(data.input)))
    shelf = Shelf()
    first = Process(world, shelf, "first")
    execution = first.start(flow, 1)
    await crash.wait()
    await first.kill()
    again = Process(world, shelf, "second")
    again.take_up(flow, execution.id)
    await finish(again, ok)
    assert got == ["first"]
    (told,) = world.records("triggerflow.handler_diverged")
    assert told.payload["effect"] == "e:E:0" and told.payload["chunk_name"] == "emitter"


async def test_a_re_run_that_does_not_repeat_its_emits_fails(world: World) -> None:
    """Another sequence of emits cannot be reconciled: the run fails with HandlerDiverged."""
    crash = asyncio.Event()
    flow = TriggerFlow(name="shorter")

    async def emitter(data: Data) -> None:
        if crash.is_set():
            return

        await data.async_emit("E", 1)
        crash.set()
        await asyncio.Event().wait()

    flow.to(emitter)
    flow.when("E").to(("take", lambda data: None))
    shelf = Shelf()
    first = Process(world, shelf, "first")
    execution = first.start(flow, 1)
    await crash.wait()
    await first.kill()
    again = Process(world, shelf, "second")
    taken = again.take_up(flow, execution.id)
    with pytest.raises(RuntimeError, match="did not repeat"):
        await asyncio.gather(*again.work)

    assert taken.get_status() == "failed"


async def test_a_memoised_step_is_committed_before_what_follows(world: World) -> None:
    """data.step returns the same value in the re-run, because it was committed before the handler went on."""
    draws: list[int] = []
    crash = asyncio.Event()
    flow = TriggerFlow(name="memo")

    async def draw(data: Data) -> int:
        number = await data.step("draw", lambda: draws.append(1) or len(draws))
        if not crash.is_set():
            crash.set()
            await asyncio.Event().wait()

        return number

    flow.to(draw).to(("keep", lambda data: data.set_state("n", data.input)))
    shelf = Shelf()
    first = Process(world, shelf, "first")
    execution = first.start(flow, 1)
    await crash.wait()
    await first.kill()
    again = Process(world, shelf, "second")
    again.take_up(flow, execution.id)
    assert await finish(again, ok) == {"n": 1}
    assert draws == [1]


async def test_a_backoff_goes_on_after_a_crash(world: World) -> None:
    """A retry that was due in ten seconds is due in ten seconds, whatever happened to the process meanwhile."""
    tries: list[int] = []
    flow = TriggerFlow(name="backoff")

    def flaky(data: Data) -> str:
        tries.append(world.clock.time_us())
        if len(tries) == 1:
            raise ConnectionError("not yet")

        return "ok"

    flow.to(("flaky", flaky), retry=Retry(attempts=3, backoff=10.0)).to(
        ("keep", lambda data: data.set_state("out", data.input))
    )
    shelf = Shelf()
    first = Process(world, shelf, "first")
    execution = first.start(flow, 1)
    await turns(20)
    await world.clock.advance(4.0)
    await first.kill()
    again = Process(world, shelf, "second")
    taken = again.take_up(flow, execution.id)
    await turns(20)
    assert len(tries) == 1
    await world.clock.advance(5.0)
    assert len(tries) == 1
    await world.clock.advance(1.1)
    assert len(tries) == 2
    assert tries[1] - tries[0] >= 10_000_000
    await asyncio.gather(*again.work)
    assert await taken.async_close() == {"out": "ok"}


async def test_an_expiry_that_was_due_meanwhile_happens_at_once(world: World) -> None:
    """A timer that was due while nobody ran the execution fires when it is taken up."""
    flow = TriggerFlow(name="expiry")
    flow.to(("ask", lambda d: d.pause_for(type="ok", expires_in=60, on_expire={"value": "late"}))).to(
        ("keep", lambda data: data.set_state("out", data.input))
    )
    shelf = Shelf()
    first = Process(world, shelf, "first")
    execution = first.start(flow, 1)
    await asyncio.gather(*first.work)
    assert shelf.held[execution.id].wake_us == world.clock.time_us() + 60_000_000
    await first.kill()
    await world.clock.advance(3_600)
    again = Process(world, shelf, "second")
    taken = again.take_up(flow, execution.id)
    await turns(20)
    assert taken.get_state() == {"out": "late"}
    await taken.async_close()


async def test_a_deadline_ends_the_run(world: World) -> None:
    """A run that has not ended by its deadline is cancelled, and says why; also one that was taken up."""
    flow = TriggerFlow(name="deadline")
    flow.to(("ask", lambda data: data.pause_for(type="ok")))
    shelf = Shelf()
    first = Process(world, shelf, "first")
    execution = first.start(flow, 1, deadline=60)
    await asyncio.gather(*first.work)
    await first.kill()
    again = Process(world, shelf, "second")
    taken = again.take_up(flow, execution.id)
    await asyncio.gather(*again.work)
    await world.clock.advance(61)
    assert (taken.get_status(), taken._close_reason) == ("cancelled", "deadline exceeded")
    assert shelf.held[execution.id].status == "cancelled"


# -- the inbox -------------------------------------------------------------------------------------------------------


async def test_a_request_is_applied_once_over_a_crash(world: World) -> None:
    """A row whose effect is committed but not its acknowledgement is acknowledged, not applied again."""
    shelf = Shelf()
    got: list[Any] = []
    flow = TriggerFlow(name="inbox")
    flow.to(("ask", lambda data: data.pause_for(type="ok")))
    flow.when("Go").to(("go", lambda data: got.append(data.input)))
    first = Process(world, shelf, "first")
    execution = first.start(flow, 1)
    await asyncio.gather(*first.work)
    sent = first.store.put_inbox("emit", execution.id, "Go", 7, "ann")
    await turns(20)
    assert got == [7]
    shelf.settle(shelf.inbox[1], None, None)  # as if the acknowledgement had been lost
    await first.kill()
    again = Process(world, shelf, "second")
    taken = again.take_up(flow, execution.id)
    await turns(20)
    assert got == [7]
    assert shelf.inbox[1]["outcome"] == "applied" and sent.row_id == 1
    await taken.async_cancel()


async def test_a_clock_outside_can_say_that_the_time_has_come(world: World) -> None:
    """A ``timer`` row expires the interrupt it names, by its own rule, once, also when nobody runs the execution."""
    shelf = Shelf()
    flow = TriggerFlow(name="clock")
    flow.to(("ask", lambda data: data.pause_for(type="ok", expires_in=3600.0, on_expire={"value": "late"}))).to(
        ("keep", lambda data: data.set_state("out", data.input))
    )
    first = Process(world, shelf, "first")
    execution = first.start(flow, 1)
    await asyncio.gather(*first.work)
    (interrupt_id,) = execution.get_pending_interrupts()
    await first.kill()
    again = Process(world, shelf, "second")
    assert again.store.put_inbox("timer", execution.id, interrupt_id, None, "cron").accepted
    assert again.store.put_inbox("timer", execution.id, "i-nobody", None, "cron").accepted
    taken = again.take_up(flow, execution.id)
    await turns(20)
    assert taken.get_state() == {"out": "late"} and not taken.get_pending_interrupts()
    again.store.put_inbox("timer", execution.id, interrupt_id, None, "cron")
    again.store.put_inbox("start", "other", "clock", None, "cron")
    await turns(20)
    outcomes = [(row["kind"], row["outcome"]) for row in shelf.inbox.values()]
    assert outcomes == [("timer", "applied"), ("timer", "rejected"), ("timer", "expired"), ("start", None)]
    assert world.payloads("triggerflow.inbox_applied")[0]["actor"] == "cron"
    assert len(world.records("triggerflow.interrupt_expired")) == 1
    await taken.async_close()


async def test_an_action_names_its_actor_in_the_log_and_the_events(world: World) -> None:
    """Who answered is part of the committed input and of what observers see."""
    store = world.services.store = MemoryStore()
    flow = TriggerFlow(name="actors")
    flow.to(("ask", lambda data: data.pause_for(type="ok"))).to(("end", lambda data: None))
    execution = world.execution(flow)
    await execution.async_start()
    (interrupt_id,) = execution.get_pending_interrupts()
    store.put_inbox("resume", execution.id, interrupt_id, {"ok": True, "password": "hunter2"}, "ann")
    await turns(20)
    records = [record for _, records in store.load(execution.id).batches for record in records]
    assert [record[6] for record in records if record[0] == "A"] == ["ann"]
    assert [record[6] for record in records if record[0] == "w"] == ["ann"]
    applied = world.payloads("triggerflow.inbox_applied")[-1]
    assert (applied["actor"], applied["payload"]) == ("ann", {"ok": True, "password": "hunter2"})
    wire = world.records("triggerflow.inbox_applied")[-1].encoded
    assert b'"ok":true' in wire and b"hunter2" not in wire, "what was answered is told, secrets are not"
    assert world.payloads("triggerflow.interrupt_answered")[-1]["actor"] == "ann"
    await execution.async_close()


async def test_a_cancellation_outlives_a_crash(world: World) -> None:
    """A run that was being cancelled when its process ended is cancelled by whoever takes it up."""
    shelf = Shelf()
    began = asyncio.Event()

    async def stubborn(data: Data) -> None:
        began.set()
        await asyncio.Event().wait()

    flow = TriggerFlow(name="cancelling")
    flow.to(stubborn)
    first = Process(world, shelf, "first")
    execution = first.start(flow, 1)
    await began.wait()
    first.store.put_inbox("cancel", execution.id, None, None, "ann")
    await turns(2)
    await first.kill()
    again = Process(world, shelf, "second")
    taken = again.take_up(flow, execution.id)
    log = taken._log
    assert log is not None
    assert log.take_intent() == ["cancel", "cancelled by ann"]
    await taken.async_cancel(reason="cancelled by ann")
    assert shelf.held[execution.id].status == "cancelled"


async def test_an_early_answer_is_found_after_a_crash(world: World) -> None:
    """An answer that came before its question, and before the crash, is there when the question comes."""
    shelf = Shelf()
    first = Process(world, shelf, "first")
    go = asyncio.Event()

    async def ask(data: Data) -> Any:
        await go.wait()
        return await data.async_pause_for(type="ok", interrupt_id="mine")

    flow = TriggerFlow(name="early")
    flow.to(ask).to(("keep", lambda data: data.set_state("out", data.input)))
    execution = first.start(flow, 1)
    await turns(10)
    first.store.put_inbox("resume", execution.id, "mine", "yes", "ann")
    await turns(10)
    assert shelf.inbox[1]["outcome"] == "early"
    await first.kill()
    again = Process(world, shelf, "second")
    again.take_up(flow, execution.id)
    go.set()
    assert await finish(again, ok) == {"out": "yes"}
    assert shelf.inbox[1]["outcome"] == "applied"


# -- changed definitions ---------------------------------------------------------------------------------------------


async def paused(world: World, flow: TriggerFlow, **options: Any) -> tuple[Shelf, str]:
    shelf = Shelf()
    first = Process(world, shelf, "first")
    execution = first.start(flow, 1, **options)
    await asyncio.gather(*first.work)
    await first.kill()
    return shelf, execution.id


def asking(*steps: str, ask: str = "ask") -> TriggerFlow:
    flow = TriggerFlow(name="versions")
    at: Any = flow
    for name in steps:
        if name == ask:
            at = at.to((name, lambda data: data.pause_for(type="ok")))
        else:
            at = at.to((name, (lambda step: lambda data: data.append_state("ran", step))(name)))

    return flow


async def test_a_compatible_definition_goes_on(world: World) -> None:
    """Steps may be added, removed and changed around where the run stands; also in the middle of a log."""
    shelf, execution_id = await paused(world, asking("a", "ask", "b"))
    again = Process(world, shelf, "second")
    again.take_up(asking("zero", "ask", "between", "b"), execution_id)
    assert await finish(again, ok) == {"ran": ["a", "between", "b"]}


async def test_a_run_goes_on_under_the_definition_it_was_taken_up_with(world: World) -> None:
    """Inputs after the change belong to the new definition: a second crash is recovered under it."""
    shelf, execution_id = await paused(world, asking("a", "ask", "b"))
    second = Process(world, shelf, "second")
    taken = second.take_up(asking("a", "ask", "more", "b"), execution_id)
    await asyncio.gather(*second.work)
    await taken._log.settled()  # type: ignore[union-attr]
    await second.kill()
    third = Process(world, shelf, "third")
    third.take_up(asking("a", "ask", "more", "b"), execution_id)
    assert await finish(third, ok) == {"ran": ["a", "more", "b"]}
    assert len(shelf.plans) == 2


async def test_a_definition_that_lost_the_step_blocks_the_run(world: World) -> None:
    """The error names what is missing; the run is as it was, for a definition that has it."""
    shelf, execution_id = await paused(world, asking("a", "ask", "b"))
    again = Process(world, shelf, "second")
    with pytest.raises(BlockedVersion, match="operator 'ask'") as caught:
        again.take_up(asking("a", "b"), execution_id)

    assert caught.value.missing == ["operator 'ask'"]
    third = Process(world, shelf, "third")
    third.store.shelf.dead.add("second")
    third.take_up(asking("a", "ask", "b"), execution_id)
    assert await finish(third, ok) == {"ran": ["a", "b"]}


async def test_a_migration_mends_a_renamed_step(world: World) -> None:
    """@flow.migrate gets the saved state and returns one that fits."""
    shelf, execution_id = await paused(world, asking("a", "ask", "b"))
    flow = asking("a", "question", "b", ask="question")

    @flow.migrate
    def renamed(state: dict[str, Any]) -> dict[str, Any]:
        return rename_operators(state, {"ask": "question"})

    again = Process(world, shelf, "second")
    again.take_up(flow, execution_id)
    assert await finish(again, ok) == {"ran": ["a", "b"]}


async def test_an_event_nobody_listens_to_any_more_blocks_the_run(world: World) -> None:
    """An interrupt that resumes to an event needs its listener."""

    def make(listens: bool) -> TriggerFlow:
        flow = TriggerFlow(name="events")
        flow.to(("ask", lambda data: data.pause_for(type="ok", resume_to={"event": "Answered"})))
        if listens:
            flow.when("Answered").to(("take", lambda data: data.set_state("out", data.input)))

        return flow

    shelf, execution_id = await paused(world, make(True))
    with pytest.raises(BlockedVersion, match="a listener for event 'Answered'"):
        Process(world, shelf, "second").take_up(make(False), execution_id)


async def test_a_missing_resource_is_named_before_anything_runs(world: World) -> None:
    """Whoever takes a run up without what it needs is told so, and the run is untouched."""
    flow = asking("a", "ask", "b")
    shelf, execution_id = await paused(world, flow, runtime_resources={"db": object()})
    assert shelf.held[execution_id].resource_keys == ["db"]
    again = Process(world, shelf, "second")
    with pytest.raises(MissingResource, match="'db'"):
        again.take_up(flow, execution_id)

    third = Process(world, shelf, "third")
    shelf.dead.add("second")
    third.take_up(flow, execution_id, db=object())
    assert await finish(third, ok) == {"ran": ["a", "b"]}


async def test_a_damaged_log_is_a_named_error(world: World) -> None:
    """An input nobody understands stops the recovery with what it is; nothing is guessed."""
    flow = asking("a", "ask", "b")
    shelf, execution_id = await paused(world, flow)
    first, count, _ = shelf.held[execution_id].commits[-1]
    import msgspec

    shelf.held[execution_id].commits[-1] = (first, count, msgspec.msgpack.encode([1, [["?", 0, 1]]]))
    process = Process(world, shelf, "second")
    with pytest.raises(SnapshotError, match="does not understand"):
        process.take_up(flow, execution_id)


# -- forks -----------------------------------------------------------------------------------------------------------


async def test_a_fork_goes_its_own_way(world: World) -> None:
    """From the pause on, origin and fork are answered differently; each knows where it came from."""
    flow = asking("a", "ask", "b")
    store = MemoryStore()
    world.services.store = store
    execution = world.execution(flow)
    await execution.async_start({"order": 7})
    new = store.fork(execution.id, actor="bob")
    claim = store.claim(new)
    forked = restore(flow, claim, world.services, {})
    await forked.async_recover()
    (interrupt_id,) = forked.get_pending_interrupts()
    await forked.async_continue_with(interrupt_id, "fork")
    assert await forked.async_close() == {"ran": ["a", "b"]}
    assert execution.is_waiting() and execution.id != forked.id
    assert forked.run_context.meta["forked_from"] == execution.id
    recovered = world.records("triggerflow.execution_recovered")[-1]
    assert recovered.payload["forked_from"] == execution.id
    (started,) = [r for r in world.records("triggerflow.execution_started") if r.run.execution_id == new]
    assert {key: started.payload[key] for key in ("initial_value", "forked_from", "forked_at", "actor")} == {
        "initial_value": {"order": 7},
        "forked_from": execution.id,
        "forked_at": claim.forked_at,
        "actor": "bob",
    }
    assert store.history(new), "a fork's own inputs are its history"
    again = restore(flow, store.claim(store.fork(new, actor=None)), world.services, {})
    assert again._origin["initial_value"] == {"order": 7}, "a fork of a fork knows the first beginning"
    await execution.async_cancel()


async def test_a_fork_begins_once(world: World) -> None:
    """Taken up a second time it is recovered like any other: it does not say again that it has begun."""
    flow = asking("ask")
    store = world.services.store = MemoryStore()
    execution = world.execution(flow)
    await execution.async_start(1)
    new = store.fork(execution.id, actor="bob")
    for _ in range(2):
        forked = restore(flow, store.claim(new), world.services, {})
        await forked.async_recover()
        await forked.async_set_state("seen", 1)
        await turns(5)
        forked._log._lost(RuntimeError("gone"))  # type: ignore[union-attr]

    started = [r for r in world.records("triggerflow.execution_started") if r.run.execution_id == new]
    assert len(started) == 1 and len(world.records("triggerflow.execution_recovered")) == 2
    await execution.async_cancel()


async def test_a_fork_runs_a_step_again_from_before_it(world: World) -> None:
    """Forking before a failed step tries it again."""
    fails = True

    def shaky(data: Data) -> str:
        if fails:
            raise ValueError("broken")

        return "fine"

    flow = TriggerFlow(name="shaky")
    flow.to(("a", lambda data: data.set_state("a", 1) or 1)).to(("shaky", shaky)).to(
        ("keep", lambda data: data.set_state("out", data.input))
    )
    store = MemoryStore()
    world.services.store = store
    execution = world.execution(flow)
    with pytest.raises(ValueError, match="broken"):
        await execution.async_start()

    await execution.async_close()
    before = next(p.seq for p in store.history(execution.id) if "D" in p.codes)
    fails = False
    new = store.fork(execution.id, before, actor=None)
    forked = restore(flow, store.claim(new), world.services, {})
    await forked.async_recover()
    assert await forked.async_close() == {"a": 1, "out": "fine"}
    assert store.get_execution(execution.id).status == "failed"  # type: ignore[union-attr]


# -- snapshots -------------------------------------------------------------------------------------------------------


async def test_a_long_run_is_taken_up_from_a_snapshot(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between snapshots the log is the truth; a recovery replays what came after the last one."""
    from flowdeck.execution import input_log

    monkeypatch.setattr(input_log, "SNAPSHOT_INPUTS", 10)
    flow = TriggerFlow(name="long")

    async def many(data: Data) -> Any:
        for number in range(30):
            await data.async_set_state(f"k{number}", number)
            await asyncio.sleep(0)

        return list(range(20))

    flow.to(many).for_each(concurrency=2).to(
        ("each", lambda data: data.append_state("seen", data.input))
    ).end_for_each().to(("ask", lambda data: data.pause_for(type="ok"))).to(
        ("end", lambda data: data.set_state("end", True))
    )
    shelf, execution_id = await paused(world, flow)
    held = shelf.held[execution_id]
    assert len(held.snapshots) == 1 and max(held.snapshots) > 50
    stored = MemoryStore(shelf, "reader").load(execution_id)
    assert len(stored.batches) < len(held.commits) / 2
    full = replay(stored.header, stored.plans, stored.definition, stored.snapshot, stored.batches)
    assert len(full.root.core.data["seen"]) == 20
    again = Process(world, shelf, "second")
    again.take_up(flow, execution_id)
    state = await finish(again, ok)
    assert state is not None and state["end"] is True and len(state["seen"]) == 20


async def test_a_state_set_from_outside_stands_once_the_caller_is_told(world: World) -> None:
    """`async_set_state` of an execution returns after the commit, not before."""
    store = world.services.store = SlowStore()
    execution = world.execution(TriggerFlow(name="outside"), auto_close=False)
    started = asyncio.create_task(execution.async_start())
    await commit_all(store)
    await started
    told = asyncio.create_task(execution.async_set_state("x", 1))
    await turns(10)
    assert not told.done() and store.waiting
    await commit_all(store)
    await told
