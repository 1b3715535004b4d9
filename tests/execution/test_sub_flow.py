"""A flow as a step of another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.execution.support import Data, World, keep, passes, turns, until

from flowdeck.errors import BindingError, ExecutionError, HiddenHandleError, UnencodableValue
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio


def child_flow(name: str = "child") -> TriggerFlow:
    flow = TriggerFlow(name=name)

    async def work(data: Data) -> Any:
        await data.async_set_state("out", {"got": data.input})

    flow.to(work)
    return flow


async def test_the_childs_close_snapshot_becomes_the_value(world: World) -> None:
    """Without write_back the child's state is what the chain goes on with."""
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child_flow()).to(keep("result"))
    assert await world.run(flow, 7) == {"result": {"out": {"got": 7}}}


async def test_to_takes_a_flow(world: World) -> None:
    """``to(flow)`` and ``to((name, flow))`` are to_sub_flow."""
    flow = TriggerFlow(name="parent")
    flow.to(passes("add", lambda v: v + 1)).to(child_flow()).to(("again", child_flow("other"))).to(keep("result"))
    assert await world.run(flow, 1) == {"result": {"out": {"got": {"out": {"got": 2}}}}}
    assert world.chunks()["again"] == 1


async def test_bindings_hand_over_what_they_name(world: World) -> None:
    """capture fills input, state, flow data and resources; write_back fills value, state and flow data (A20)."""
    child = TriggerFlow(name="child")

    async def work(data: Data) -> None:
        out = [data.input["x"], data.get_state("rt"), data.get_flow_data("fd"), data.require_resource("res")()]
        await data.async_set_state("out", out)

    child.to(work)
    flow = TriggerFlow(name="parent")
    flow.set_flow_data("limit", 3, no_warning=True)
    flow.to(("prepare", lambda d: d.set_state("a.b", 2) or {"v": 1})).to_sub_flow(
        child,
        capture={
            "input": {"x": "value.v"},
            "runtime_data": {"rt": "runtime_data.a.b"},
            "flow_data": {"fd": "flow_data.limit"},
            "resources": {"res": "resources.R"},
        },
        write_back={
            "value": {"z": "result.out"},
            "runtime_data": {"m.n": "result.out"},
            "flow_data": {"last": "result.out"},
        },
    ).to(keep("value"))
    out = [1, 2, 3, "live"]
    snapshot = await world.run(flow, None, runtime_resources={"R": lambda: "live"})
    assert snapshot == {"a": {"b": 2}, "m": {"n": out}, "value": {"v": 1, "z": out}}
    assert flow.get_flow_data("last") == out


async def test_a_side_branch_leaves_the_value_alone(world: World) -> None:
    """The chain goes on beside a sub flow that is a side branch."""
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child_flow(), side_branch=True).to(keep("value"))
    assert await world.run(flow, 5) == {"value": 5}
    assert world.chunks("chunk.completed")["child"] == 1


async def test_the_final_result_goes_before_the_snapshot(world: World) -> None:
    """``$final_result`` of the child is its result, and ``result.x`` looks there first."""
    child = TriggerFlow(name="child")

    async def work(data: Data) -> None:
        await data.async_set_state("x", "state")
        await data.async_set_state("y", "state")
        await data.async_set_state("$final_result", {"x": "final"})

    child.to(work)
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child, name="whole").to(keep("whole"))
    flow.to_sub_flow(child, name="parts", write_back={"value": {"x": "result.x", "y": "result.y"}}).to(keep("parts"))
    assert await world.run(flow) == {"whole": {"x": "final"}, "parts": {"x": "final", "y": "state"}}


async def test_a_child_shares_nothing_with_its_parent(world: World) -> None:
    """State, flow data and events of the child are its own; so are those of its flow object."""
    child = TriggerFlow(name="child")
    child.set_flow_data("n", 1, no_warning=True)

    async def work(data: Data) -> None:
        assert data.get_state() == {}
        await data.async_append_flow_data("seen", data.input, no_warning=True)
        await data.async_emit("Shout", 1)

    child.to(work)
    flow = TriggerFlow(name="parent")
    flow.when("Shout").to(keep("heard"))
    flow.to(passes("first")).to_sub_flow(child).to(keep("done"))
    assert await world.run(flow, 1) == {"done": {}}
    assert child.get_flow_data() == {"n": 1}
    assert child._executions == {}


async def test_lineage_runs_through_the_operators_chunk_run(world: World) -> None:
    """The child execution is a child run of the operator, which starts and completes like a chunk."""
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child_flow(), name="step")
    execution = world.execution(flow, task_id="T-1")
    await execution.async_start(1)
    await execution.async_close()
    started = world.records("chunk.started")
    operator, inner = started[0], started[1]
    assert operator.payload["operator_kind"] == "sub_flow"
    child_run = world.records("triggerflow.execution_started")[1].run
    assert child_run is not None and operator.run is not None and inner.run is not None
    assert child_run.parent_run_id == operator.run.run_id
    assert operator.run.parent_run_id == execution.run_context.run_id
    assert inner.run.parent_run_id == child_run.run_id
    assert child_run.root_run_id == execution.run_context.run_id
    assert child_run.execution_id == f"{execution.id}.1"
    assert child_run.meta["parent_execution_id"] == execution.id
    assert child_run.meta["task_id"] == "T-1"
    assert world.chunks("chunk.started") == world.chunks("chunk.completed") == {"step": 1, "work": 1}


async def test_the_childs_stream_is_the_parents_live(world: World) -> None:
    """An item the child puts out can be read from the parent while the child still runs."""
    go = asyncio.Event()
    child = TriggerFlow(name="child")

    async def work(data: Data) -> None:
        await data.async_put_into_stream("first")
        await go.wait()
        await data.async_put_into_stream("second")

    child.to(work)
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child)
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    stream = execution.get_async_runtime_stream(timeout=None)
    assert await anext(stream) == "first"
    go.set()
    assert await anext(stream) == "second"
    await running
    await execution.async_close()
    assert [item async for item in stream] == []


async def test_a_failure_is_one_failure(world: World) -> None:
    """The child's error reaches the caller as it is; only the innermost chunk has it as its own."""
    child = TriggerFlow(name="child")

    async def work(data: Data) -> None:
        raise LookupError("inner")

    child.to(work)
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child).to(keep("never"))
    execution = world.execution(flow)
    with pytest.raises(LookupError, match="inner"):
        await execution.async_start()

    assert await execution.async_close() == {}
    assert execution.get_status() == "failed"
    failed = world.records("chunk.failed")
    inner = failed[0].run
    assert inner is not None
    assert [r.payload["propagated_from"] for r in failed] == [None, inner.run_id]
    assert [p["origin_run_id"] for p in world.payloads("triggerflow.execution_failed")] == [inner.run_id] * 2
    assert world.types("triggerflow.execution_closed") == ["triggerflow.execution_closed"] * 2


async def test_a_failing_detached_branch_fails_the_sub_flow(world: World) -> None:
    """Work the child started with emit_nowait belongs to it: the operator waits for it and fails with it."""
    child = TriggerFlow(name="child")

    async def late(data: Data) -> None:
        await asyncio.sleep(0)
        raise LookupError("late")

    child.to(("start", lambda d: d.emit_nowait("Later")))
    child.when("Later").to(late)
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child)
    with pytest.raises(LookupError, match="late"):
        await world.execution(flow).async_start()


async def test_skipped_exceptions_skip_a_sub_flow(world: World) -> None:
    """With skip_exceptions a failed sub flow ends its branch and nothing else."""
    child = TriggerFlow(name="child")
    child.to(("bad", lambda d: 1 / 0))
    flow = TriggerFlow(name="parent", skip_exceptions=True)
    flow.to_sub_flow(child).to(keep("never"))
    flow.to(keep("beside"))
    assert await world.run(flow, 1) == {"beside": 1}


async def test_cancelling_the_parent_cancels_the_child(world: World) -> None:
    """A handler in the child gets its CancelledError, and the child closes as cancelled before the parent does."""
    seen: list[str] = []
    child = TriggerFlow(name="child")

    async def work(data: Data) -> None:
        seen.append("started")
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("stopped")

    child.to(work)
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child)
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await until(lambda: "started" in seen)
    await execution.async_cancel(reason="enough")
    await running
    assert seen == ["started", "stopped"]
    assert execution.get_status() == "cancelled"
    closed = [p["status"] for p in world.payloads("triggerflow.execution_closed")]
    assert closed == ["cancelled", "cancelled"]
    assert execution.get_sub_flow_frames() == {}


async def test_a_failing_sibling_cancels_the_child(world: World) -> None:
    """When a branch fails, a sub flow beside it is stopped like any handler."""
    child = TriggerFlow(name="child")
    started = asyncio.Event()

    async def work(data: Data) -> None:
        started.set()
        await asyncio.Event().wait()

    async def fail(data: Data) -> None:
        await started.wait()
        raise LookupError("sibling")

    child.to(work)
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child)
    flow.to(fail)
    with pytest.raises(LookupError):
        await world.execution(flow).async_start()

    await turns()
    assert [p["status"] for p in world.payloads("triggerflow.execution_closed")] == ["cancelled"]


async def test_close_with_a_timeout_reaches_the_child(world: World) -> None:
    """close(timeout) cancels work inside a sub flow."""
    child = TriggerFlow(name="child")
    child.to(("wait", lambda d: asyncio.Event().wait()))
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child)
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await until(lambda: world.chunks("chunk.started")["wait"] == 1)
    with pytest.warns(RuntimeWarning, match="still running"):
        closing = asyncio.create_task(execution.async_close(timeout=1.0))
        await turns()
        await world.clock.advance(1.0)
        assert await closing == {}

    await running
    assert [p["status"] for p in world.payloads("triggerflow.execution_closed")] == ["cancelled", "completed"]


async def test_cancelling_the_child_alone_fails_the_operator(world: World) -> None:
    """A child that somebody cancels is an error of the operator, not a result."""
    child = TriggerFlow(name="child")
    child.to(("wait", lambda d: asyncio.Event().wait()))
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child, name="step")
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await until(lambda: world.chunks("chunk.started")["wait"] == 1)
    (frame,) = execution._frames.values()
    await frame.child.async_cancel(reason="by hand")
    with pytest.raises(ExecutionError, match=r"sub flow 'step'.*cancelled: by hand"):
        await running


async def test_a_missing_source_names_the_operator_and_the_path(world: World) -> None:
    """A capture that leads nowhere is a KeyError which says what was wanted."""
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child_flow(), name="step", capture={"input": "value.order.id"})
    with pytest.raises(BindingError, match=r"sub flow 'step': capture: input <- value.order.id") as caught:
        await world.execution(flow).async_start({"order": {}})

    assert isinstance(caught.value, KeyError)


async def test_a_missing_result_lists_what_there_is(world: World) -> None:
    """A write_back that leads nowhere says what the child left."""
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child_flow(), write_back={"value": "result.total"})
    with pytest.raises(BindingError, match=r"value <- result.total: the child's result has out"):
        await world.execution(flow).async_start(1)


async def test_writing_into_a_value_that_is_no_dict_is_refused(world: World) -> None:
    """write_back into a part of the value needs a dict there."""
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child_flow(), write_back={"value": {"z": "result.out"}})
    with pytest.raises(TypeError, match="the value is int, not a dict"):
        await world.execution(flow).async_start(1)


async def test_state_taken_from_a_live_object_is_refused(world: World) -> None:
    """A live object may be a child's input or resource, never its state."""
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child_flow(), capture={"runtime_data": {"conn": "value"}})
    with pytest.raises(UnencodableValue, match="conn"):
        await world.execution(flow).async_start(object())


async def test_the_childs_concurrency_is_its_own(world: World) -> None:
    """``concurrency`` limits the handlers of the child."""
    child = TriggerFlow(name="child")
    running = peak = 0

    async def work(data: Data) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await turns(3)
        running -= 1

    child.for_each().to(work).end_for_each()
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child, concurrency=2)
    await world.run(flow, list(range(6)))
    assert peak == 2


async def test_sub_flows_in_a_for_each_have_ids_of_their_own(world: World) -> None:
    """Every activation has a child of its own, and the results come in the order of the input."""
    flow = TriggerFlow(name="parent")
    flow.for_each().to(child_flow()).end_for_each().to(keep("all"))
    snapshot = await world.run(flow, [1, 2, 3])
    assert snapshot == {"all": [{"out": {"got": n}} for n in (1, 2, 3)]}
    ids = [r.run.execution_id for r in world.records("triggerflow.execution_started") if r.run is not None]
    assert len(set(ids)) == 4
    scopes = [r.scope for r in world.records("chunk.started") if r.payload["operator_kind"] == "sub_flow"]
    assert scopes == ["for_each[0]/child", "for_each[1]/child", "for_each[2]/child"]


async def test_a_flow_that_runs_itself_without_an_end_is_stopped(world: World) -> None:
    """A hundred sub flows in each other are enough."""
    flow = TriggerFlow(name="self")
    flow.to_sub_flow(flow)
    with pytest.raises(ExecutionError, match="more than 100 deep"):
        await world.execution(flow).async_start()


async def test_a_child_may_close_its_own_execution(world: World) -> None:
    """A handler that closes the child ends it early; what it had set by then is the result."""
    child = TriggerFlow(name="child")

    async def work(data: Data) -> None:
        await data.async_set_state("a", 1)
        await data.execution.async_close(reason="early")

    child.to(work).to(keep("b"))
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child).to(keep("result"))
    assert await world.run(flow, 1) == {"result": {"a": 1}}


async def test_a_handler_in_the_child_may_close_the_parent(world: World) -> None:
    """close() does not wait for the operator whose child it is called from."""
    flow = TriggerFlow(name="parent")
    child = TriggerFlow(name="child")

    async def work(data: Data) -> None:
        await data.require_resource("parent").async_close()

    child.to(work)
    flow.to_sub_flow(child, capture={"resources": {"parent": "resources.me"}})
    execution = world.execution(flow)
    execution.set_runtime_resource("me", execution)
    await execution.async_start()
    assert execution.is_closed()


async def test_a_hidden_parent_cannot_pause_in_its_child(world: World) -> None:
    """Where nobody holds the parent's handle, nobody could answer the child either."""
    child = TriggerFlow(name="child")
    child.to(("ask", lambda d: d.pause_for(type="approval")))
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child)
    with pytest.raises(HiddenHandleError):
        await flow.async_start(services=world.services)
