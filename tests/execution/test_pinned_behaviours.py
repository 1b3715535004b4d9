"""What the reference's own tests pin for executions, pauses, results and resources, where no other test says it.

The rest of that list (behaviour appendix F) stands where it belongs: definition lines in ``tests/definition``, pauses
in ``test_pause_and_resume`` and ``test_seed_003``, state and closing in ``test_lifecycle``, saving in
``test_save_and_load``, sub flows in ``test_sub_flow``. ``docs/compatibility.md`` says what is different on purpose.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.execution.support import Data, World, keep, passes, turns

from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution

pytestmark = pytest.mark.anyio


def ask(name: str = "ask", **options: Any) -> tuple[str, Any]:
    async def pause(data: Data) -> Any:
        if data.is_resume and options.get("resume_to") == "self":
            return [data.input, data.resume.value, data.resume.interrupt_id]

        return await data.async_pause_for(**options)

    return (name, pause)


def restored(world: World, execution: TriggerFlowExecution, flow: TriggerFlow, **options: Any) -> TriggerFlowExecution:
    return world.execution(flow, **options).load(json.loads(json.dumps(execution.save())))


# -- pause and resume ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "expected"), [("next", "yes"), ("self", ["v", "yes", "my"])])
async def test_both_resumes_work_after_a_load(world: World, target: str, expected: Any) -> None:
    """A saved interrupt continues in a new execution, to the next chunk or into the chunk that asked."""
    flow = TriggerFlow(name="f")
    flow.to(ask(resume_to=target, interrupt_id="my")).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start("v")
    fresh = restored(world, execution, flow)
    await fresh.async_continue_with("my", "yes")
    assert await fresh.async_close() == {"out": expected}


async def test_what_a_batch_has_gathered_is_its_executions(world: World) -> None:
    """Two executions of one flow, each with half a batch, do not complete each other."""
    flow = TriggerFlow(name="f")
    flow.batch(ask("a", interrupt_id="a"), ask("b", interrupt_id="b")).to(keep("out"))
    one, two = world.execution(flow), world.execution(flow)
    await asyncio.gather(one.async_start(), two.async_start())
    await one.async_continue_with("a", 1)
    await two.async_continue_with("b", 2)
    assert one.get_state() == two.get_state() == {}
    await one.async_continue_with("b", 3)
    assert await one.async_close() == {"out": {"a": 1, "b": 3}}
    assert await two.async_close(pending_interrupts="cancel") == {}


# -- execution state -------------------------------------------------------------------------------------------------


def test_a_flow_needs_no_end(recwarn: pytest.WarningsRecorder) -> None:
    """flow.start() of a chain without end() returns the state, and warns of nothing."""
    flow = TriggerFlow(name="f")
    flow.to(passes("one", lambda value: value + 1)).to(keep("out"))
    assert flow.start(1) == {"out": 2}
    assert not recwarn.list


async def test_a_restored_result_is_not_run_again(world: World) -> None:
    """A run saved with its final result gives it after a load, at once, and starts nothing."""
    flow = TriggerFlow(name="f")
    flow.to(("count", lambda d: d.append_state("runs", 1))).to(
        ("final", lambda d: d.set_state("$final_result", {"n": 7}))
    )
    execution = world.execution(flow)
    await execution.async_start()
    fresh = restored(world, execution, flow)
    assert await fresh.result.async_get_final_result(timeout=1) == {"n": 7}
    await fresh.async_start()
    assert await fresh.async_close() == {"runs": [1], "$final_result": {"n": 7}}


async def test_close_ends_every_reader(world: World) -> None:
    """A reader that waits for the next item ends when the execution closes, and so does one that comes later."""
    flow = TriggerFlow(name="f")
    flow.to(("put", lambda d: d.put(1)))
    execution = world.execution(flow)
    await execution.async_start()

    async def read() -> list[Any]:
        return [item async for item in execution.get_async_runtime_stream(timeout=None)]

    waiting = asyncio.create_task(read())
    await turns()
    assert not waiting.done()
    await execution.async_close()
    assert await waiting == await read() == [1]


# -- results ---------------------------------------------------------------------------------------------------------


async def test_the_meta_of_a_restored_run(world: World) -> None:
    """get_meta() is right straight after a load: who it is, how it stands, when it began, which version."""
    flow = TriggerFlow(name="f")
    flow.to(keep("k")).to(ask())
    execution = world.execution(flow)
    await execution.async_start(1)
    before = execution.result.get_meta()
    assert before["status"] == "waiting" and before["started_at"] is not None
    await world.clock.advance(3600)
    assert restored(world, execution, flow).result.get_meta() == before

    await execution.async_close(reason="enough", pending_interrupts="cancel")
    after = execution.result.get_meta()
    assert (after["status"], after["close_reason"]) == ("cancelled", "enough")
    assert restored(world, execution, flow).result.get_meta() == after


# -- resources -------------------------------------------------------------------------------------------------------


async def test_a_resource_set_in_a_chunk_stays_in_its_execution(world: World) -> None:
    """Later chunks of the run see it; the flow and its other executions do not."""
    flow = TriggerFlow(name="f")
    flow.set_runtime_resource("db", "shared")
    flow.to(("set", lambda d: d.set_resource("db", f"own {d.input}"))).to(
        ("use", lambda d: d.set_state("db", d.require_resource("db")))
    )
    one, two = world.execution(flow), world.execution(flow)
    await one.async_start(1)
    assert two.get_runtime_resources()["db"] == flow.get_runtime_resource("db") == "shared"
    await two.async_start(2)
    assert (await one.async_close(), await two.async_close()) == ({"db": "own 1"}, {"db": "own 2"})


async def test_a_condition_reads_what_a_load_injected(world: World) -> None:
    """A condition behind a pause finds the resource that was given to load()."""
    flow = TriggerFlow(name="f")
    flow.to(ask(interrupt_id="my")).if_condition(lambda d: d.input > d.require_resource("limit")).to(
        keep("over")
    ).else_condition().to(keep("under")).end_condition()
    execution = world.execution(flow, runtime_resources={"limit": 1})
    await execution.async_start()
    saved = json.loads(json.dumps(execution.save()))
    assert saved["resource_keys"] == ["limit"] and '"limit": 1' not in json.dumps(saved)
    fresh = world.execution(flow).load(saved, runtime_resources={"limit": 100})
    await fresh.async_continue_with("my", 50)
    assert await fresh.async_close() == {"under": 50}
