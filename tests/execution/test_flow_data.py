"""Data shared by all executions of one flow."""

from __future__ import annotations

import asyncio
import json
import threading
import warnings
from typing import Any

import pytest
from tests.execution.support import Data, World, keep, turns

from flowdeck.errors import UnencodableValue
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio


def watching() -> TriggerFlow:
    flow = TriggerFlow(name="f")
    flow.when({"flow_data": "k"}).to(("log", lambda d: d.append_state("seen", [d.input, d.trigger_type])))
    return flow


async def test_set_get_append_delete(world: World) -> None:
    """The scope has dotted keys and copies in and out, like state."""
    flow = TriggerFlow(name="f")
    mine = [1]
    await flow.async_set_flow_data("a.b", mine, no_warning=True)
    mine.append(2)
    flow.append_flow_data("l", 1, no_warning=True)
    await flow.async_append_flow_data("l", 2, no_warning=True)
    assert flow.get_flow_data() == {"a": {"b": [1]}, "l": [1, 2]}
    flow.get_flow_data("a")["b"].append(3)
    assert await flow.async_get_flow_data("a.b") == [1]
    flow.del_flow_data("a", no_warning=True)
    await flow.async_del_flow_data("never", no_warning=True)
    assert flow.get_flow_data() == {"l": [1, 2]}
    assert flow.get_flow_data("a.b", "default") == "default"
    with pytest.raises(UnencodableValue, match=r"conn\.x"):
        flow.set_flow_data("conn", {"x": object()}, no_warning=True)


async def test_writes_warn_that_it_is_shared(world: World) -> None:
    """Every write warns unless no_warning=True, from the flow and from a handler."""
    flow = TriggerFlow(name="f")
    with pytest.warns(RuntimeWarning, match="shared by all executions") as caught:
        flow.set_flow_data("k", [])
        flow.append_flow_data("k", 2)
        await flow.async_append_flow_data("k", 3)
        flow.del_flow_data("k")

    assert {w.filename for w in caught} == {__file__}, "the warning points at the caller"
    assert len(caught) == 4

    async def work(data: Data) -> None:
        data.set_flow_data("k", 1)
        await data.async_set_flow_data("k", 1)

    flow.to(work)
    with pytest.warns(RuntimeWarning, match="shared") as caught:
        await world.run(flow)

    assert [w.filename for w in caught] == [__file__] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.set_flow_data("k", 1, no_warning=True)
        flow.get_flow_data("k")


async def test_a_change_reaches_every_live_execution(world: World) -> None:
    """Handlers run in each execution that has started and is open, and the setter waits for them."""
    flow = watching()
    live, other, fresh, closed = (world.execution(flow) for _ in range(4))
    for each in (live, other, closed):
        await each.async_start()

    await closed.async_close()
    await flow.async_set_flow_data("k", 1, no_warning=True)
    await flow.async_set_flow_data("k", 2, no_warning=True, emit=False)
    await flow.async_set_flow_data("elsewhere", 3, no_warning=True)
    await flow.async_del_flow_data("k", no_warning=True)
    seen = [[1, "flow_data"], [None, "flow_data"]]
    assert live.get_state("seen") == other.get_state("seen") == seen
    assert fresh.get_state() == closed.result.get_state() == {}
    for each in (live, other, fresh):
        await each.async_close()


async def test_a_handler_that_sets_flow_data_waits_for_all(world: World) -> None:
    """A change made in a chunk runs its own execution's handlers and the others', before the call returns."""
    flow = watching()

    async def work(data: Data) -> None:
        if data.input:
            await data.async_set_flow_data("k", 7, no_warning=True)
            await data.async_set_state("after", [len(data.get_state("seen")), len(other.get_state("seen"))])

    flow.to(work)
    other = world.execution(flow)
    await other.async_start(False)
    assert (await world.run(flow, True))["after"] == [1, 1]
    assert await other.async_close() == {"seen": [[7, "flow_data"]]}


async def test_a_sync_handler_completes_after_its_own_handlers(world: World) -> None:
    """data.set_flow_data in a sync handler lets the chunk's completion wait."""
    flow = TriggerFlow(name="f")
    order: list[str] = []
    flow.to(("set", lambda d: d.set_flow_data("k", 1, no_warning=True))).to(("next", lambda d: order.append("next")))

    async def seen(data: Data) -> None:
        await turns(3)
        order.append("seen")

    flow.when({"flow_data": "k"}).to(seen)
    await world.run(flow)
    assert order == ["seen", "next"]


async def test_the_flow_state_namespace(world: World) -> None:
    """data.flow_state is a mapping-like view whose writes warn too."""
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> None:
        with pytest.warns(RuntimeWarning, match="shared"):
            data.flow_state["a"] = {"b": 1}

        data.flow_state.append("l", 1, no_warning=True)
        await data.flow_state.async_append("l", 2, no_warning=True)
        await data.flow_state.async_set("gone", 1, no_warning=True)
        await data.flow_state.async_del("gone", no_warning=True)
        assert data.flow_state["a.b"] == 1 and "gone" not in data.flow_state and len(data.flow_state) == 2
        assert data.flow_state.to_dict() == {"a": {"b": 1}, "l": [1, 2]}
        assert data.get_flow_data("a.b") == data.flow_state.get("a.b") == 1

    flow.to(work)
    assert await world.run(flow) == {}
    assert flow.get_flow_data() == {"a": {"b": 1}, "l": [1, 2]}


async def test_one_executions_failure_is_not_the_setters(world: World) -> None:
    """A handler that fails fails its own execution; the others and the setter go on."""
    flow = TriggerFlow(name="f")
    flow.to(keep("me"))

    async def picky(data: Data) -> None:
        await data.async_set_state("seen", 10 // data.get_state("me"))

    flow.when({"flow_data": "k"}).to(picky)
    good, bad = world.execution(flow), world.execution(flow)
    await good.async_start(5)
    await bad.async_start(0)
    await flow.async_set_flow_data("k", 1, no_warning=True)
    assert (good.get_status(), bad.get_status()) == ("running", "failed")
    assert await good.async_close() == {"me": 5, "seen": 2}
    await bad.async_close()


async def test_an_execution_on_another_loop(world: World) -> None:
    """An execution that lives on another thread's loop is told there."""
    flow = watching()
    ready, done = threading.Event(), threading.Event()
    result: dict[str, Any] = {}

    def elsewhere() -> None:
        async def main() -> None:
            execution = world.execution(flow)
            await execution.async_start()
            ready.set()
            await asyncio.to_thread(done.wait, 10)
            result.update(await execution.async_close())

        asyncio.run(main())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(ready.wait, 10)
    await flow.async_set_flow_data("k", 1, no_warning=True)
    done.set()
    await asyncio.to_thread(thread.join)
    assert result == {"seen": [[1, "flow_data"]]}


async def test_a_load_does_not_overwrite_what_is_there(world: World) -> None:
    """load() takes only keys nobody has touched in this process (defect 18)."""
    flow = TriggerFlow(name="f")
    flow.to(("ask", lambda d: d.pause_for()))
    for key in ("changed", "deleted", "same"):
        flow.set_flow_data(key, "old", no_warning=True)

    execution = world.execution(flow)
    await execution.async_start()
    saved = json.loads(json.dumps(execution.save()))
    flow.set_flow_data("changed", "new", no_warning=True)
    flow.del_flow_data("deleted", no_warning=True)
    world.execution(flow).load(saved)
    assert flow.get_flow_data() == {"changed": "new", "same": "old"}
    await execution.async_close(pending_interrupts="cancel")


async def test_a_fresh_process_gets_the_saved_flow_data(world: World) -> None:
    """Where nobody has set anything yet, a loaded run finds the flow data it was saved with."""
    old, new = TriggerFlow(name="f"), TriggerFlow(name="f")
    for flow in (old, new):
        flow.to(("ask", lambda d: d.pause_for())).to(("read", lambda d: d.set_state("k", d.get_flow_data("k"))))

    old.set_flow_data("k", {"deep": 1}, no_warning=True)
    new.set_flow_data("mine", 2, no_warning=True)
    execution = world.execution(old)
    await execution.async_start()
    fresh = world.execution(new).load(json.loads(json.dumps(execution.save())))
    assert new.get_flow_data() == {"k": {"deep": 1}, "mine": 2}
    await fresh.async_continue_with(next(iter(fresh.get_pending_interrupts())))
    assert await fresh.async_close() == {"k": {"deep": 1}}
    await execution.async_close(pending_interrupts="cancel")


async def test_a_re_run_does_not_write_twice(world: World) -> None:
    """A handler that runs again after a crash finds its committed write."""
    gate = asyncio.Event()
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> None:
        await data.async_append_flow_data("log", "once", no_warning=True)
        await gate.wait()

    flow.to(work)
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await turns()
    saved = execution.save()
    gate.set()
    fresh = world.execution(flow).load(saved)
    await fresh.async_recover()
    await running
    assert flow.get_flow_data("log") == ["once"]
    await fresh.async_close()
    await execution.async_close()
