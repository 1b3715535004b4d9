"""People asked from inside a sub flow: projection into the parent, answers on the way down, save and load."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.execution.support import Data, World, keep, passes, turns

from flowdeck.errors import InterruptError, InterruptNotFound, MissingResource, PendingInterruptsError
from flowdeck.execution.control import InboxRow
from flowdeck.execution.execution import TriggerFlowExecution
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio


def ask(name: str = "ask", **options: Any) -> tuple[str, Any]:
    async def pause(data: Data) -> Any:
        return await data.async_pause_for(**{"type": "approval", "payload": {"q": data.input}, **options})

    return (name, pause)


def asking_child(**options: Any) -> TriggerFlow:
    child = TriggerFlow(name="child")
    child.to(ask(**options)).to(("commit", lambda d: d.set_state("decision", d.input)))
    return child


def asking_flow(child: TriggerFlow | None = None, **options: Any) -> TriggerFlow:
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child or asking_child(), name="step", **options).to(keep("result"))
    return flow


def only(execution: TriggerFlowExecution) -> str:
    (interrupt_id,) = execution.get_pending_interrupts()
    return interrupt_id


async def reloaded(world: World, flow: TriggerFlow, execution: TriggerFlowExecution, **options: Any) -> Any:
    """Take the execution through JSON into a new one."""
    fresh = world.execution(flow, **options)
    return fresh.load(json.loads(json.dumps(execution.save())))


async def test_a_childs_interrupt_is_projected_into_the_parent(world: World) -> None:
    """The parent waits under an id of its own; the record is the child's plus where it belongs."""
    execution = world.execution(asking_flow())
    await execution.async_start("T")
    assert execution.get_status() == "waiting"
    (record,) = execution.get_pending_interrupts().values()
    (frame_id,) = execution.get_sub_flow_frames()
    assert frame_id == f"{execution.id}:{record['sub_flow_frame_id'].split(':')[1]}:1"
    assert record["id"] == f"{frame_id}:{record['local_interrupt_id']}"
    assert record["local_interrupt_id"] == f"{execution.id}.1-i1"
    assert record["source_execution_id"] == f"{execution.id}.1"
    assert record["source_flow_name"] == "child"
    assert record["payload"] == {"q": "T"}
    assert record["child_interrupt"]["id"] == record["local_interrupt_id"]
    assert record["continuation_event"].startswith("Chunk[ask]-")
    assert record["scope"] == "step"


async def test_the_frame_says_all_about_the_wait(world: World) -> None:
    """get_sub_flow_frames() carries the compatible fields; after the end it keeps the result."""
    flow = asking_flow(capture={"resources": {"db": "resources.main"}})
    execution = world.execution(flow, runtime_resources={"main": object()})
    await execution.async_start("T")
    (frame,) = execution.get_sub_flow_frames().values()
    root = only(execution)
    assert frame["status"] == "waiting"
    assert frame["parent_execution_id"] == execution.id
    assert frame["child_execution_id"] == f"{execution.id}.1"
    assert frame["child_flow_name"] == "child"
    assert frame["parent_value"] == "T"
    assert frame["parent_signal"]["trigger_event"] == "START"
    assert frame["projected_root_interrupt_ids"] == [root]
    assert frame["projected_interrupts"] == {root: f"{execution.id}.1-i1"}
    assert frame["resource_bindings"] == {"db": "main"}
    assert frame["resource_keys"] == ["db"]
    assert frame["child_saved_state"]["execution_id"] == f"{execution.id}.1"
    await execution.async_continue_with(root, "yes")
    (frame,) = execution.get_sub_flow_frames().values()
    assert (frame["status"], frame["result"]) == ("completed", {"decision": "yes"})
    json.dumps(execution.save())


async def test_every_level_says_where_the_question_is_answered(world: World) -> None:
    """The events of a nested question are one question to whoever reads ``projected_as``."""
    middle = TriggerFlow(name="middle")
    middle.to_sub_flow(asking_child())
    execution = world.execution(asking_flow(middle))
    await execution.async_start("T")
    records = [p["interrupt"] for p in world.payloads("triggerflow.interrupt_raised")]
    root = only(execution)
    assert [r["id"] == root for r in records] == [False, False, True]
    assert [r.get("projected_as") for r in records] == [root, root, None]
    await execution.async_close(pending_interrupts="cancel")


async def test_an_answer_completes_the_operator(world: World) -> None:
    """continue_with(root id) continues the child, and returns when the chain behind the operator has finished."""
    execution = world.execution(asking_flow())
    await execution.async_start("T")
    root = only(execution)
    record = await execution.async_continue_with(root, {"ok": True}, actor="ana")
    assert record is not None and record["status"] == "resumed" and record["response"] == {"ok": True}
    assert await execution.async_close() == {"result": {"decision": {"ok": True}}}
    assert execution.get_status() == "completed"
    answered = world.payloads("triggerflow.interrupt_answered")
    assert {(p["interrupt_id"], p["actor"]) for p in answered} == {(root, "ana"), (f"{execution.id}.1-i1", "ana")}
    assert world.chunks("chunk.started")["step"] == 2, "one run until it parks, one after the answer"


async def test_the_stream_tells_both_levels(world: World) -> None:
    """The parent's stream has the child's pause item and the projection."""
    execution = world.execution(asking_flow())
    await execution.async_start("T")
    root = only(execution)
    await execution.async_continue_with(root, "yes")
    await execution.async_close()
    items = [item async for item in execution.get_async_runtime_stream(timeout=None)]
    assert [(i["action"], i["interrupt"]["id"] == root) for i in items] == [
        ("pause", False),
        ("project", True),
        ("resume", True),
        ("resume", False),
    ]
    assert items[1]["execution_id"] == execution.id
    assert items[1]["value"] == {"q": "T"}


async def test_the_local_id_is_not_the_parents(world: World) -> None:
    """Only the projected id is known to the parent, and it is answered once."""
    execution = world.execution(asking_flow())
    await execution.async_start("T")
    root = only(execution)
    with pytest.raises(InterruptNotFound):
        await execution.async_continue_with(f"{execution.id}.1-i1", 1)

    await execution.async_continue_with(root, 1)
    with pytest.raises(InterruptError, match="is not waiting"):
        await execution.async_continue_with(root, 2)


async def test_an_answer_of_the_wrong_shape_changes_nothing(world: World) -> None:
    """The child's schema is checked before anything is marked as answered."""
    execution = world.execution(asking_flow(asking_child(schema={"type": "boolean"})))
    await execution.async_start("T")
    with pytest.raises(InterruptError, match="does not fit its schema: answer.*boolean"):
        await execution.async_continue_with(only(execution), "maybe")

    await execution.async_continue_with(only(execution), True)
    assert await execution.async_close() == {"result": {"decision": True}}


async def test_several_interrupts_in_one_child(world: World) -> None:
    """Two branches of a child ask; each is answered on its own, the operator completes with the last."""
    child = TriggerFlow(name="child")
    child.to(ask("a")).to(keep("a"))
    child.to(ask("b")).to(keep("b"))
    execution = world.execution(asking_flow(child))
    await execution.async_start("T")
    first, second = execution.get_pending_interrupts()
    await execution.async_continue_with(second, 2)
    assert execution.get_status() == "waiting"
    assert list(execution.get_pending_interrupts()) == [first]
    assert execution.get_state("result") is None
    await execution.async_continue_with(first, 1)
    assert await execution.async_close() == {"result": {"a": 1, "b": 2}}


async def test_answers_at_the_same_time(world: World) -> None:
    """Two answers given together are both applied, whatever their order."""
    child = TriggerFlow(name="child")
    child.to(ask("a")).to(keep("a"))
    child.to(ask("b")).to(keep("b"))
    execution = world.execution(asking_flow(child))
    await execution.async_start("T")
    first, second = execution.get_pending_interrupts()
    await asyncio.gather(execution.async_continue_with(first, 1), execution.async_continue_with(second, 2))
    assert await execution.async_close() == {"result": {"a": 1, "b": 2}}


async def test_a_question_is_there_at_once(world: World) -> None:
    """A child that asks while another branch of it works can be answered without waiting for that branch."""
    gate = asyncio.Event()
    child = TriggerFlow(name="child")
    child.to(ask("a")).to(keep("a"))
    child.to(("slow", lambda d: gate.wait())).to(("b", lambda d: d.set_state("b", True)))
    execution = world.execution(asking_flow(child))
    running = asyncio.create_task(execution.async_start("T"))
    await turns()
    assert execution.get_status() == "running"
    (frame,) = execution._frames.values()
    await execution.async_continue_with(only(execution), "yes")
    assert frame.child.get_state() == {"a": "yes"}
    assert not running.done()
    gate.set()
    await running
    assert await execution.async_close() == {"result": {"a": "yes", "b": True}}


async def test_a_branch_that_fails_while_another_works(world: World) -> None:
    """What the answered branch raises reaches the answerer, and fails the operator for whoever started it."""
    gate = asyncio.Event()
    child = TriggerFlow(name="child")
    child.to(ask("a")).to(("bad", lambda d: 1 / 0))
    child.to(("slow", lambda d: gate.wait()))
    execution = world.execution(asking_flow(child))
    running = asyncio.create_task(execution.async_start("T"))
    await turns()
    with pytest.raises(ZeroDivisionError):
        await execution.async_continue_with(only(execution), "yes")

    gate.set()
    with pytest.raises(ZeroDivisionError):
        await running

    await execution.async_close()


async def test_a_child_handler_that_swallows_its_cancellation(world: World) -> None:
    """close(timeout) of the parent ends even then."""
    stubborn = asyncio.Event()
    child = TriggerFlow(name="child")

    async def swallow(data: Data) -> None:
        while not stubborn.is_set():
            try:
                await stubborn.wait()
            except asyncio.CancelledError:
                pass

    child.to(swallow)
    execution = world.execution(asking_flow(child))
    running = asyncio.create_task(execution.async_start("T"))
    await turns()
    with pytest.warns(RuntimeWarning, match="left behind"), pytest.warns(RuntimeWarning, match="still running"):
        closing = asyncio.create_task(execution.async_close(timeout=0.1))
        await world.clock.advance(5)
        assert await closing == {}
        await running
        stubborn.set()
        await turns()


async def test_a_child_may_ask_again(world: World) -> None:
    """An answer after which the child pauses again brings a new projection."""
    child = TriggerFlow(name="child")
    child.to(ask("one")).to(ask("two")).to(keep("answers"))
    execution = world.execution(asking_flow(child))
    await execution.async_start("T")
    first = only(execution)
    await execution.async_continue_with(first, "again")
    assert execution.get_status() == "waiting"
    second = only(execution)
    assert second != first
    assert execution.get_pending_interrupts()[second]["payload"] == {"q": "again"}
    await execution.async_continue_with(second, "done")
    assert await execution.async_close() == {"result": {"answers": "done"}}


async def test_resume_self_runs_the_childs_chunk_again(world: World) -> None:
    """resume_to="self" in the child is the child's own affair."""
    child = TriggerFlow(name="child")

    async def work(data: Data) -> Any:
        if not data.is_resume:
            return await data.async_pause_for(resume_to="self")

        return [data.input, data.resume.value]

    child.to(work).to(keep("seen"))
    execution = world.execution(asking_flow(child))
    await execution.async_start("T")
    await execution.async_continue_with(only(execution), "A")
    assert await execution.async_close() == {"result": {"seen": ["T", "A"]}}


async def test_sub_flows_in_sub_flows(world: World) -> None:
    """A grandchild's interrupt climbs to the root, and the answer goes all the way down."""
    middle = TriggerFlow(name="middle")
    middle.to_sub_flow(asking_child(), name="inner").to(keep("inner"))
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(middle, name="outer").to(keep("result"))
    execution = world.execution(flow)
    await execution.async_start("T")
    fresh = await reloaded(world, flow, execution)
    for each in (execution, fresh):
        assert only(each).startswith(f"{each.id}:")
        await each.async_continue_with(only(each), "yes")
        assert await each.async_close() == {"result": {"inner": {"decision": "yes"}}}


async def test_a_loaded_parent_continues_its_child(world: World) -> None:
    """The child's state lies in the parent's; lambdas in it work, as its definition is the flow object's (16)."""
    child = TriggerFlow(name="child")
    child.to(lambda d: d.pause_for(payload=d.input)).to(lambda d: d.set_state("decision", d.input))
    flow = asking_flow(child)
    execution = world.execution(flow)
    await execution.async_start("T")
    fresh = await reloaded(world, flow, execution)
    assert fresh.get_status() == "waiting"
    assert list(fresh.get_pending_interrupts()) == list(execution.get_pending_interrupts())
    before = len(world.records("triggerflow.execution_started"))
    await fresh.async_continue_with(only(fresh), "yes")
    snapshot = await fresh.async_close()
    assert snapshot == {"result": {"decision": "yes"}}, "no $interventions in it either"
    assert len(world.records("triggerflow.execution_started")) == before
    child_runs = {
        r.run.run_id
        for r in world.records("triggerflow.execution_closed") + world.records("triggerflow.execution_started")
        if r.run is not None and r.run.execution_id == f"{execution.id}.1"
    }
    assert len(child_runs) == 1, "the child keeps its run over the load"


async def test_a_loaded_child_gets_its_resources_by_binding(world: World) -> None:
    """Live objects come from the parent again after a load; one that is missing is named."""
    child = TriggerFlow(name="child")
    child.to(ask()).to(("use", lambda d: d.set_state("used", d.require_resource("db")())))
    flow = asking_flow(child, capture={"resources": {"db": "resources.main"}})
    execution = world.execution(flow, runtime_resources={"main": lambda: "old"})
    await execution.async_start("T")
    saved = execution.save()
    with pytest.raises(MissingResource, match="'main'"):
        world.execution(flow).load(saved)

    fresh = world.execution(flow).load(saved, runtime_resources={"main": lambda: "new"})
    await fresh.async_continue_with(only(fresh), "yes")
    assert await fresh.async_close() == {"result": {"used": "new"}}


async def test_the_childs_flow_data_comes_back_with_it(world: World) -> None:
    """A child's flow data is its own, so a load restores it without touching the flow object's."""
    child = TriggerFlow(name="child")
    child.to(("set", lambda d: d.set_flow_data("k", d.input, no_warning=True) or d.input)).to(ask()).to(
        ("read", lambda d: d.set_state("k", d.get_flow_data("k")))
    )
    flow = asking_flow(child)
    execution = world.execution(flow)
    await execution.async_start("T")
    fresh = await reloaded(world, flow, execution)
    await fresh.async_continue_with(only(fresh), "yes")
    assert await fresh.async_close() == {"result": {"k": "T"}}
    assert child.get_flow_data() == {}


async def test_a_child_saved_while_it_runs_goes_on_after_the_load(world: World) -> None:
    """What ran in the child when the state was saved runs again, with its committed effects skipped."""
    gate = asyncio.Event()
    child = TriggerFlow(name="child")

    async def work(data: Data) -> Any:
        await data.async_append_state("log", "once")
        await gate.wait()
        return data.input

    child.to(work).to(keep("value"))
    flow = asking_flow(child)
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start("T"))
    await turns()
    saved = json.loads(json.dumps(execution.save()))
    gate.set()
    await running
    fresh = world.execution(flow).load(saved)
    await fresh.async_recover()
    assert await fresh.async_close() == {"result": {"log": ["once"], "value": "T"}}


async def test_closing_while_the_child_waits(world: World) -> None:
    """close() refuses; with the cancel policy the child closes as cancelled before the parent."""
    execution = world.execution(asking_flow())
    await execution.async_start("T")
    root = only(execution)
    with pytest.raises(PendingInterruptsError, match=root):
        await execution.async_close()

    assert await execution.async_close(pending_interrupts="cancel") == {}
    record = execution.get_interrupt(root)
    assert record is not None and record["status"] == "cancelled"
    closed = [(p["status"], p["reason"]) for p in world.payloads("triggerflow.execution_closed")]
    assert closed == [("cancelled", "manual"), ("cancelled", "manual")]


async def test_a_failure_after_the_answer_reaches_the_answerer(world: World) -> None:
    """What the resumed branch of the child raises, continue_with raises; nobody is asked any more."""
    child = TriggerFlow(name="child")
    child.to(ask("a")).to(("bad", lambda d: 1 / 0))
    child.to(ask("b"))
    execution = world.execution(asking_flow(child))
    await execution.async_start("T")
    first, second = execution.get_pending_interrupts()
    with pytest.raises(ZeroDivisionError):
        await execution.async_continue_with(first, 1)

    assert execution.get_status() == "failed"
    assert execution.get_pending_interrupts() == {}
    record = execution.get_interrupt(second)
    assert record is not None and record["cancel_reason"] == "the sub flow failed"
    await execution.async_close()


async def test_an_expiry_in_the_child_wakes_the_operator(world: World) -> None:
    """The child's timer runs while the parent waits; the projection expires with its origin."""
    flow = asking_flow(asking_child(expires_in=60, on_expire={"value": "default"}))
    execution = world.execution(flow)
    await execution.async_start("T")
    root = only(execution)
    await world.clock.advance(60)
    record = execution.get_interrupt(root)
    assert record is not None and record["status"] == "expired"
    assert {p["interrupt_id"] for p in world.payloads("triggerflow.interrupt_expired")} == {
        root,
        record["local_interrupt_id"],
    }
    assert await execution.async_close() == {"result": {"decision": "default"}}


async def test_an_expiry_that_fails_fails_the_operator(world: World) -> None:
    """on_expire="fail" in the child is the parent's failure."""
    execution = world.execution(asking_flow(asking_child(expires_in=60, on_expire="fail")))
    await execution.async_start("T")
    await world.clock.advance(60)
    assert execution.get_status() == "failed"
    await execution.async_close()


async def test_expiry_goes_on_after_a_load(world: World) -> None:
    """A loaded parent keeps its child's time from the moment it is used."""
    flow = asking_flow(asking_child(expires_in=60, on_expire={"value": "default"}))
    execution = world.execution(flow)
    await execution.async_start("T")
    fresh = await reloaded(world, flow, execution)
    await fresh.async_recover()
    await world.clock.advance(61)
    assert await fresh.async_close() == {"result": {"decision": "default"}}
    await execution.async_close()


async def test_an_answer_that_comes_early_is_kept(world: World) -> None:
    """A row for a projected interrupt that does not exist yet answers it when it is raised."""
    gate = asyncio.Event()
    child = TriggerFlow(name="child")

    async def wait(data: Data) -> Any:
        await gate.wait()
        return data.input

    child.to(wait).to(ask()).to(keep("decision"))
    execution = world.execution(asking_flow(child))
    running = asyncio.create_task(execution.async_start("T"))
    await turns()
    (frame,) = execution._frames.values()
    row = InboxRow(1, execution.id, "resume", f"{frame.id}:{frame.child.id}-i1", "early", "d", "ana", 0)
    execution.deliver(row)
    await turns()
    gate.set()
    await running
    assert await execution.async_close() == {"result": {"decision": "early"}}
    assert [p["outcome"] for p in world.payloads("triggerflow.inbox_applied")] == ["early", "applied"]


async def test_a_waiting_sub_flow_gives_its_place_back(world: World) -> None:
    """for_each(concurrency=1) goes on while a member's child waits; the answers come back in order of the input."""
    flow = TriggerFlow(name="parent")
    flow.for_each(concurrency=1).to(asking_child()).end_for_each().to(keep("all"))
    execution = world.execution(flow, concurrency=1)
    await execution.async_start([1, 2, 3])
    pending = execution.get_pending_interrupts()
    assert [r["payload"]["q"] for r in pending.values()] == [1, 2, 3]
    await asyncio.gather(*(execution.async_continue_with(i, f"a{r['payload']['q']}") for i, r in pending.items()))
    assert await execution.async_close() == {"all": [{"decision": f"a{n}"} for n in (1, 2, 3)]}


async def test_a_parent_event_does_not_answer_the_childs_interrupt(world: World) -> None:
    """An interrupt of the child that waits for an event waits for the child's events."""
    child = TriggerFlow(name="child")
    child.to(ask(resume_to={"event": "Go"}))
    child.when("Go").to(keep("went"))
    flow = asking_flow(child)
    flow.when("Go").to(passes("elsewhere"))
    execution = world.execution(flow)
    await execution.async_start("T")
    await execution.async_emit("Go", 1)
    assert execution.get_status() == "waiting"
    await execution.async_continue_with(only(execution), 2)
    assert await execution.async_close() == {"result": {"went": 2}}


async def test_an_emit_inside_the_child_answers_for_both(world: World) -> None:
    """When another branch of the child emits the event, the projection is answered too."""
    child = TriggerFlow(name="child")
    child.to(ask("first", resume_to={"event": "Go"}))
    child.to(ask("second")).to(("go", lambda d: d.emit_nowait("Go", d.input)))
    child.when("Go").to(keep("went"))
    execution = world.execution(asking_flow(child))
    await execution.async_start("T")
    first, second = execution.get_pending_interrupts()
    await execution.async_continue_with(second, "x")
    record = execution.get_interrupt(first)
    assert record is not None and record["status"] == "resumed" and record["response"] == "x"
    assert await execution.async_close() == {"result": {"went": "x"}}
