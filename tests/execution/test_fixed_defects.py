"""The reference's defects that this runtime does not have: one scenario each, by their numbers in its §9.1.

Numbers 7 to 10 and 17 belong to other components. docs/compatibility.md lists them all.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.execution.support import Data, World, keep, passes, turns

from flowdeck.errors import InterruptError, UnencodableValue
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution

pytestmark = pytest.mark.anyio

Scenario = Callable[[World], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


def defect(number: str) -> Callable[[Scenario], Scenario]:
    def add(scenario: Scenario) -> Scenario:
        SCENARIOS[number] = scenario
        return scenario

    return add


@pytest.mark.parametrize("number", ["1", "1-batch", "2", "3", "4", "5", "6", "11", "12", "13", "14", "15", "16", "18"])
async def test_a_defect_of_the_reference_is_fixed(world: World, number: str) -> None:
    """The scenario that went wrong there comes to the right end here."""
    await SCENARIOS[number](world)


def ask(name: str = "ask", **options: Any) -> tuple[str, Any]:
    async def pause(data: Data) -> Any:
        return await data.async_pause_for(**options)

    return (name, pause)


async def answer_all(execution: TriggerFlowExecution, value: Any = "answer") -> dict[str, Any]:
    while pending := execution.get_pending_interrupts():
        await execution.async_continue_with(next(iter(pending)), value)

    return await execution.async_close()


def through_json(world: World, flow: TriggerFlow, execution: TriggerFlowExecution) -> TriggerFlowExecution:
    return world.execution(flow).load(json.loads(json.dumps(execution.save())))


@defect("1")
async def a_branch_beside_a_waiting_one(world: World) -> None:
    """It lost its continuation: completion was suppressed while anything waited."""
    gate = asyncio.Event()
    flow = TriggerFlow(name="f")
    flow.to(ask()).to(keep("x"))
    flow.to(("slow", lambda d: gate.wait())).to(("y", lambda d: d.set_state("y", True)))
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await turns()
    assert execution.get_pending_interrupts()
    gate.set()
    await running
    assert execution.get_state() == {"y": True}
    assert await answer_all(execution) == {"y": True, "x": "answer"}


@defect("1-batch")
async def a_batch_with_a_pausing_member(world: World) -> None:
    """It never completed."""
    flow = TriggerFlow(name="f")
    flow.batch(ask("a"), passes("b")).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start(1)
    assert await answer_all(execution) == {"out": {"a": "answer", "b": 1}}


@defect("2")
async def a_pause_inside_for_each(world: World) -> None:
    """It never completed, because values and layer marks of different signals were blended."""
    for target in ("next", "self"):
        flow = TriggerFlow(name=f"f {target}")

        async def pause(data: Data, target: str = target) -> Any:
            if data.is_resume:
                return [data.input, data.resume.value]

            return await data.async_pause_for(payload=data.input, resume_to=target)

        flow.for_each().to(pause).end_for_each().to(keep("out"))
        execution = world.execution(flow)
        await execution.async_start([{"n": 1}, {"m": 2}])
        for interrupt_id, record in reversed(execution.get_pending_interrupts().items()):
            assert record["source_signal"]["value"] == record["payload"]
            await execution.async_continue_with(interrupt_id, list(record["payload"].values()))

        expected = [[1], [2]] if target == "next" else [[{"n": 1}, [1]], [{"m": 2}, [2]]]
        assert await execution.async_close() == {"out": expected}


@defect("3")
async def two_lambda_conditions_on_one_line(world: World) -> None:
    """The later one replaced the earlier."""
    flow = TriggerFlow(name="f")
    at = flow.if_condition(lambda d: d.input > 10).to(("A", lambda d: "A")).elif_condition(lambda d: d.input > 5).to(("B", lambda d: "B"))  # fmt: skip  # noqa: E501
    at.end_condition().to(keep("out"))
    assert [(await world.run(flow, n))["out"] for n in (11, 6, 1)] == ["A", "B", 1]


@defect("4")
async def the_executions_concurrency(world: World) -> None:
    """It did not limit nested work: four of four ran with concurrency=2."""
    running = peak = 0

    async def work(data: Data) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await turns(3)
        running -= 1

    flow = TriggerFlow(name="f")
    flow.for_each().to(work).end_for_each()
    await world.run(flow, [1, 2, 3, 4], concurrency=2)
    assert peak == 2


@defect("5")
async def streaming_an_unstarted_execution(world: World) -> None:
    """It span at full load and ignored its timeout."""
    flow = TriggerFlow(name="f")
    flow.to(passes("x"))
    execution = world.execution(flow)
    reader = asyncio.create_task(anext(execution.get_async_runtime_stream(timeout=3.0), "end"))
    await turns()
    with pytest.warns(UserWarning, match="no item for 3.0 s"):
        await world.clock.advance(3)
        assert await reader == "end"

    await execution.async_close()


@defect("6")
async def setting_over_a_dict(world: World) -> None:
    """It merged."""
    execution = world.execution(TriggerFlow(name="f"))
    await execution.async_set_state("d", {"a": 1})
    await execution.async_set_state("d", {"b": 2})
    assert await execution.async_close() == {"d": {"b": 2}}


@defect("11")
async def an_invalid_resume_to(world: World) -> None:
    """It was accepted, and the answer was swallowed."""
    flow = TriggerFlow(name="f")
    flow.to(ask(resume_to="back")).to(keep("out"))
    with pytest.raises(InterruptError, match="resume_to='back'"):
        await world.execution(flow).async_start()


@defect("12")
async def one_id_for_two_pauses(world: World) -> None:
    """The second overwrote the first."""
    flow = TriggerFlow(name="f", skip_exceptions=True)
    flow.to(ask("one", interrupt_id="my")).to(keep("one"))
    flow.to(ask("two", interrupt_id="my")).to(keep("two"))
    execution = world.execution(flow)
    await execution.async_start()
    assert [p["chunk_name"] for p in world.payloads("chunk.failed")] == ["two"]
    assert await answer_all(execution) == {"one": "answer"}


@defect("13")
async def resuming_self_beside_a_sibling(world: World) -> None:
    """Every chunk of the original event ran again, as if resumed."""
    flow = TriggerFlow(name="f")
    flow.to(("sibling", lambda d: d.append_state("sibling", d.is_resume)))

    async def pause(data: Data) -> Any:
        return data.resume.value if data.is_resume else await data.async_pause_for(resume_to="self")

    flow.to(pause).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start()
    assert await answer_all(execution) == {"sibling": [False], "out": "answer"}


@defect("14")
async def a_start_that_fails(world: World) -> None:
    """Status stayed "running" after a start that had raised; here it is failed, and closing works."""
    flow = TriggerFlow(name="f")
    flow.to(("bad", lambda d: 1 / 0))
    execution = world.execution(flow)
    with pytest.raises(ZeroDivisionError):
        await execution.async_start()

    assert execution.get_status() == "failed"
    assert await execution.async_close() == {}
    assert execution.get_status() == "failed"


@defect("15")
async def a_join_over_two_processes(world: World) -> None:
    """Barrier state was not saved, so a join never fired after a load."""
    flow = TriggerFlow(name="f")
    flow.batch(ask("a"), passes("b")).collect("c", "left")
    flow.to(passes("r")).collect("c", "right").to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start(1)
    fresh = through_json(world, flow, execution)
    assert await answer_all(fresh) == {"out": {"left": {"a": "answer", "b": 1}, "right": 1}}
    await execution.async_close(pending_interrupts="cancel")


@defect("16")
async def a_lambda_in_a_resumed_child(world: World) -> None:
    """The child was rebuilt from config, in which a lambda cannot be."""
    child = TriggerFlow(name="child")
    child.to(ask()).to(lambda d: d.set_state("inner", d.input))
    flow = TriggerFlow(name="f")
    flow.to_sub_flow(child).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start()
    fresh = through_json(world, flow, execution)
    assert await answer_all(fresh) == {"out": {"inner": "answer"}}
    await execution.async_close(pending_interrupts="cancel")


@defect("18")
async def what_a_load_leaves_alone(world: World) -> None:
    """It imposed the saved auto_close and overwrote the flow data of all executions."""
    flow = TriggerFlow(name="f")
    flow.set_flow_data("k", "old", no_warning=True)
    flow.to(ask())
    execution = world.execution(flow)
    await execution.async_start()
    saved = execution.save()
    flow.set_flow_data("k", "new", no_warning=True)
    fresh = world.execution(flow, auto_close=True, auto_close_timeout=7.0).load(saved)
    assert (fresh.auto_close, fresh.auto_close_timeout) == (True, 7.0)
    assert flow.get_flow_data() == {"k": "new"}
    assert await answer_all(fresh) == {}
    await execution.async_close(pending_interrupts="cancel")


async def test_nothing_is_silently_turned_into_text(world: World) -> None:
    """Where the reference stored the repr of what it could not save, this refuses it with its path (§3.10)."""
    execution = world.execution(TriggerFlow(name="f"))
    with pytest.raises(UnencodableValue, match="conn"):
        await execution.async_set_state("conn", object())
