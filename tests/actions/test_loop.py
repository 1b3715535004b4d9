"""The loop plans and executes in rounds, is observed, pauses for approvals, and ends the moment it is done."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from tests.execution.support import World, until

from flowdeck.actions import ActionError, ActionLoop, ActionRuntime
from flowdeck.events.lineage import RunContext
from flowdeck.events.record import EventRecord
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution, TriggerFlowRuntimeData

pytestmark = pytest.mark.anyio
Plan = list[dict[str, Any]]


def scripted(*rounds: Any) -> Any:
    """Return a planner that has its decisions written down."""

    def plan(context: dict[str, Any], request: dict[str, Any]) -> Any:
        index = context["round_index"]
        return rounds[index] if index < len(rounds) else {"next_action": "response"}

    return plan


def call(action_id: str, **kwargs: Any) -> dict[str, Any]:
    return {"action_id": action_id, "action_input": kwargs}


def running(loop: ActionLoop) -> TriggerFlowExecution:
    """Return the execution of the loop that is under way."""
    [execution] = loop.flow._executions.values()
    return execution


@pytest.fixture
def tools(actions: ActionRuntime) -> ActionRuntime:
    """Actions that add, fail, and need approval."""
    actions.register_action(action_id="add", func=lambda x, y=1: x + y)
    actions.register_action(action_id="fail", func=lambda: 1 / 0)
    actions.register_action(action_id="pay", func=lambda amount: {"paid": amount}, approval_required=True)
    return actions


async def test_rounds_of_a_loop(tools: ActionRuntime, world: World) -> None:
    """Records of all rounds come back in order; a failed one does not stop the loop."""
    plan = scripted([call("add", x=1), call("fail")], {"next_action": "execute", "tool_commands": [call("add", x=5)]})
    result = await tools.create_loop(plan).async_run("go")
    assert [(r["action_id"], r["status"], r["data"]) for r in result["records"]] == [
        ("add", "success", 2),
        ("fail", "error", None),
        ("add", "success", 6),
    ]
    assert [(r["meta"]["round_index"], r["meta"]["command_index"]) for r in result["records"]] == [
        (0, 0),
        (0, 1),
        (1, 0),
    ]
    assert result["rounds"] == 2 and result["decision"]["next_action"] == "response"


async def test_the_order_of_its_events(tools: ActionRuntime, world: World) -> None:
    """action.* in the order of behaviour §6.5, each loop event with its tool.* twin right behind it."""
    await tools.create_loop(scripted([call("add", x=1)], [call("fail")])).async_run()
    types = [each for each in world.types() if each.startswith(("action.", "tool."))]
    assert types == [
        "action.loop_started", "tool.loop_started",
        "action.plan_ready", "tool.plan_ready", "action.started", "action.completed",
        "action.plan_ready", "tool.plan_ready", "action.started", "action.failed",
        "action.plan_ready", "tool.plan_ready",
        "action.loop_completed", "tool.loop_completed",
    ]  # fmt: skip
    [started] = world.payloads("action.loop_started")
    assert started == {"agent_name": "demo", "action_count": 4, "tool_count": 4, "planning_protocol": "structured_plan"}
    [completed] = world.payloads("action.completed")
    assert completed["record"]["data"] == 2
    assert (completed["round_index"], completed["record_index"], completed["action_type"]) == (0, 0, "tool")
    assert world.payloads("action.loop_completed") == [{"agent_name": "demo", "record_count": 2}]


async def test_the_twins_say_what_they_are(tools: ActionRuntime, world: World) -> None:
    """Same payload, level and run as the primary; meta names it, and the ids differ."""
    await tools.create_loop(scripted([call("add", x=1)])).async_run()
    for name in ("loop_started", "plan_ready", "loop_completed"):
        for primary, twin in zip(world.records(f"action.{name}"), world.records(f"tool.{name}"), strict=True):
            assert twin.payload == primary.payload and twin.run is primary.run and twin.level == primary.level
            assert twin.event_id != primary.event_id
            found = {k: v for k, v in twin.meta.items() if k.startswith(("compat", "primary"))}
            assert found == {
                "compat_event_alias": True,
                "compat_alias_for": f"action.{name}",
                "primary_event_id": primary.event_id,
                "compat_family": "tool",
            }


async def test_one_switch_turns_the_twins_off(tools: ActionRuntime, world: World) -> None:
    """The setting action.tool_events is that switch."""
    tools.settings["action.tool_events"] = False
    await tools.create_loop(scripted([call("add", x=1)])).async_run()
    assert world.types("action.") and not world.types("tool.")


async def test_whose_child_is_whose(tools: ActionRuntime, world: World) -> None:
    """action_loop under the request, action under the loop; the loop's flow is its child as well."""
    request = RunContext.create(run_kind="request", session_id="s-1")
    await tools.create_loop(scripted([call("add", x=1)])).async_run(parent=request)

    def run_of(event_type: str) -> Any:
        record: EventRecord = world.records(event_type)[0]
        return record.run

    loop, action, flow = (
        run_of("action.loop_started"),
        run_of("action.started"),
        run_of("triggerflow.execution_started"),
    )
    assert (loop.run_kind, loop.parent_run_id) == ("action_loop", request.run_id)
    assert (action.run_kind, action.parent_run_id) == ("action", loop.run_id)
    assert flow.parent_run_id == loop.run_id
    assert {each.root_run_id for each in (loop, action, flow)} == {request.run_id}
    assert action.session_id == "s-1"
    assert {"action_name": "add", "round_index": 0, "command_index": 0}.items() <= action.meta.items()
    assert loop.meta["compat_event_family"] == "tool"


async def test_it_ends_the_moment_it_is_done(tools: ActionRuntime) -> None:
    """No idle wait (defect 8): a whole loop in virtual time, with no time passing at all."""
    began = time.process_time()
    async with asyncio.timeout(5):
        await tools.create_loop(scripted([call("add", x=1)])).async_run()

    assert time.process_time() - began < 1.0


async def test_an_approval_pauses_the_loop_and_the_answered_action_runs(tools: ActionRuntime, world: World) -> None:
    """The interrupt says what is asked; approved, the action runs and the loop goes on by itself."""
    loop = tools.create_loop(scripted([call("add", x=1), call("pay", amount=5)]))
    task = asyncio.create_task(loop.async_run())
    await until(lambda: bool(loop.flow._executions) and running(loop).is_waiting())
    [(interrupt_id, interrupt)] = running(loop).get_pending_interrupts().items()
    assert interrupt["type"] == "action_approval"
    assert (interrupt["payload"]["action_id"], interrupt["payload"]["kwargs"]) == ("pay", {"amount": 5})
    assert "action.started" in world.types("action.") and world.types("action.").count("action.started") == 1
    await running(loop).async_continue_with(interrupt_id, {"approved": True}, actor="ann")
    records = (await task)["records"]
    assert records[1]["data"] == {"paid": 5}
    assert (records[1]["approval"]["approved"], records[1]["approval"]["actor"]) == (True, "ann")


async def test_a_refused_action_does_not_run(tools: ActionRuntime) -> None:
    """The record is blocked with the reason, and the planner sees it."""
    loop = tools.create_loop(scripted([call("pay", amount=5)]))
    execution = loop.create_execution()
    task = asyncio.create_task(execution.async_start())
    await until(execution.is_waiting)
    [interrupt_id] = execution.get_pending_interrupts()
    with pytest.raises(ValueError, match="does not fit its schema"):
        await execution.async_continue_with(interrupt_id, "yes")

    await execution.async_continue_with(interrupt_id, {"approved": False, "reason": "too much"})
    [record] = (await task)["records"]
    assert (record["status"], record["error"]) == ("blocked", "action 'pay' was not approved: too much")


async def test_a_planner_cannot_talk_an_approval_away(actions: ActionRuntime) -> None:
    """Its policy_override may ask for one; "auto" against a policy that always asks changes nothing."""
    actions.register_action(action_id="drop", func=lambda: "dropped", default_policy={"approval_mode": "always"})
    actions.register_action(action_id="look", func=lambda: "seen")
    plan = scripted(
        [
            {"action_id": "drop", "policy_override": {"approval_mode": "auto"}},
            {"action_id": "look", "policy_override": {"approval_mode": "always"}},
        ]
    )
    execution = actions.create_loop(plan).create_execution()
    task = asyncio.create_task(execution.async_start())
    await until(lambda: len(execution.get_pending_interrupts()) == 2)
    for interrupt_id in list(execution.get_pending_interrupts()):
        await execution.async_continue_with(interrupt_id, {"approved": False})

    assert [r["status"] for r in (await task)["records"]] == ["blocked", "blocked"]


async def test_an_approval_counts_for_its_own_call_only(tools: ActionRuntime) -> None:
    """Two equal calls ask twice, in one round as in two."""
    loop = tools.create_loop(scripted([call("pay", amount=5), call("pay", amount=5)], [call("pay", amount=5)]))
    execution = loop.create_execution()
    task = asyncio.create_task(execution.async_start())
    asked = 0
    while not task.done():
        await until(lambda: task.done() or bool(execution.get_pending_interrupts()))
        for interrupt_id in execution.get_pending_interrupts():
            asked += 1
            await execution.async_continue_with(interrupt_id, {"approved": True})

    assert asked == 3
    assert [r["status"] for r in (await task)["records"]] == ["success"] * 3


async def test_a_step_of_a_flow_asks_too(tools: ActionRuntime, world: World) -> None:
    """actions.step() pauses the flow it stands in; the next step gets the record."""
    flow = TriggerFlow(name="shop")
    flow.to(("pay", tools.step("pay")), replay_safe=False).to(("ship", tools.step("pay")))
    execution = world.execution(flow)
    await execution.async_start({"amount": 5})
    [interrupt_id] = execution.get_pending_interrupts()
    await execution.async_continue_with(interrupt_id, {"approved": True})
    assert world.payloads("action.completed")[0]["record"]["data"] == {"paid": 5}
    assert (
        execution.is_idle() and not execution.get_pending_interrupts()
    )  # "ship" got a record: no arguments of its own
    assert world.payloads("action.failed")[0]["action_name"] == "pay"
    await execution.async_close()


async def test_max_rounds(tools: ActionRuntime) -> None:
    """The loop ends after max_rounds rounds of execution; 0 means it only answers."""
    loop = tools.create_loop(lambda context, request: [call("add", x=1)], max_rounds=3)
    result = await loop.async_run()
    assert result["rounds"] == 3 and result["decision"]["stopped_by"] == "max_rounds"
    assert (await loop.set_loop_options(max_rounds=0).async_run())["records"] == []


async def test_concurrency_and_timeout(actions: ActionRuntime, world: World) -> None:
    """At most ``concurrency`` calls run at once; each has ``timeout`` seconds."""
    now, peak = 0, 0

    async def work(seconds: float) -> None:
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        try:
            await world.clock.sleep(seconds)
        finally:
            now -= 1

    actions.action_func(work)
    plan = scripted([call("work", seconds=1)] * 6 + [call("work", seconds=60)])
    task = asyncio.create_task(actions.create_loop(plan, concurrency=2, timeout=5).async_run())
    while not task.done():
        await world.clock.advance(1)

    records = (await task)["records"]
    assert peak == 2
    assert [r["status"] for r in records] == ["success"] * 6 + ["error"]
    assert "took longer than 5.0 s" in records[-1]["error"]


@pytest.mark.parametrize(
    "limits", [{"max_rounds": -1}, {"max_rounds": 1.5}, {"concurrency": 0}, {"timeout": 0}, {"timeout": True}]
)
def test_wrong_limits(tools: ActionRuntime, limits: dict[str, Any]) -> None:
    """A limit that is none is a ValueError."""
    with pytest.raises(ValueError, match="set_loop_options"):
        tools.set_loop_options(**limits)


async def test_a_planner_that_fails(tools: ActionRuntime, world: World) -> None:
    """action.loop_failed with its twin and the error, once; then the error reaches the caller."""

    def plan(context: dict[str, Any], request: dict[str, Any]) -> Any:
        raise LookupError("no model")

    with pytest.raises(LookupError, match="no model"):
        await tools.create_loop(plan).async_run()

    ends = [each for each in world.types() if each.endswith(("loop_failed", "loop_completed"))]
    assert ends == ["action.loop_failed", "tool.loop_failed"]
    assert world.records("tool.loop_failed")[0].error == world.records("action.loop_failed")[0].error
    assert world.records("action.loop_failed")[0].level == "ERROR"


@pytest.mark.parametrize("outside", [True, False])
async def test_a_cancelled_loop_has_ended(tools: ActionRuntime, world: World, outside: bool) -> None:
    """Cancelled while it waits, by handle or as a sub flow, its run ends as failed, once."""
    loop = tools.create_loop(scripted([call("pay", amount=3)]))
    flow = TriggerFlow(name="outer")
    flow.to(loop.flow)
    execution = world.execution(flow) if outside else loop.create_execution(auto_close=False)
    await execution.async_start()
    await until(execution.is_waiting)
    await execution.async_cancel(reason="enough")
    await until(lambda: "tool.loop_failed" in world.types())
    ends = [each for each in world.types() if each.endswith(("loop_failed", "loop_completed"))]
    assert ends == ["action.loop_failed", "tool.loop_failed"]


async def test_a_loop_that_is_cancelled_while_it_is_waited_for(tools: ActionRuntime, world: World) -> None:
    """async_run raises, and the loop has failed once."""
    loop = tools.create_loop(scripted([call("pay", amount=3)]))
    task = asyncio.create_task(loop.async_run())
    await until(lambda: bool(loop.flow._executions) and running(loop).is_waiting())
    await running(loop).async_cancel(reason="enough")
    with pytest.raises(ActionError, match="was cancelled"):
        await task

    assert world.types("action.loop_failed") == ["action.loop_failed"]


async def test_no_planner_and_no_actions(actions: ActionRuntime, world: World) -> None:
    """Without actions the loop is skipped and silent; without a planner it says what to give it."""
    assert await actions.loop.async_run() == {
        "records": [], "rounds": 0, "decision": {
            "next": "", "next_action": "response", "use_action": False, "execution_actions": [], "action_calls": [],
            "execution_commands": [], "tool_commands": [],
        },
    }  # fmt: skip
    assert world.types() == []
    actions.register_action(action_id="it", func=lambda: 1)
    with pytest.raises(ActionError, match="has no planner; give"):
        await actions.loop.async_run()


@pytest.mark.parametrize(
    "decision",
    [None, "hello", 3, {}, {"next_action": "execute"}, {"next_action": "execute", "action_calls": [{"x": 1}]}, [7]],
)
async def test_what_cannot_be_read_is_a_response(tools: ActionRuntime, decision: Any) -> None:
    """A planner's unknown shapes end the loop instead of breaking it."""
    result = await tools.create_loop(scripted(decision)).async_run()
    assert result["records"] == [] and result["decision"]["next_action"] == "response"


async def test_an_execution_handler_of_ones_own(tools: ActionRuntime) -> None:
    """It gets a round's calls and returns their records; a bare value is taken as a success."""

    async def execute(context: dict[str, Any], request: dict[str, Any]) -> Any:
        first = request["action_calls"][0]
        return [await request["async_execute_action"](first["action_id"], first["action_input"]), "by hand"]

    tools.register_action_planning_handler(scripted([call("add", x=1), call("add", x=2)]))
    tools.register_action_execution_handler(execute)
    records = (await tools.loop.async_run())["records"]
    assert [(r["action_id"], r["data"]) for r in records] == [("add", 2), ("add", "by hand")]


async def test_the_loop_as_a_sub_flow(tools: ActionRuntime, world: World) -> None:
    """In a bigger flow it is a step like any other: its approvals are the flow's, its state the step's result."""
    loop = tools.create_loop(scripted([call("pay", amount=3)]))
    flow = TriggerFlow(name="outer")

    async def keep(data: TriggerFlowRuntimeData) -> None:
        await data.async_set_state("paid", data.input["records"][0]["data"])

    flow.to(loop.flow).to(keep)
    execution = world.execution(flow)
    await execution.async_start("go")
    [interrupt_id] = execution.get_pending_interrupts()
    await execution.async_continue_with(interrupt_id, {"approved": True})
    assert (await execution.async_close())["paid"] == {"paid": 3}
    assert world.types("action.")[-1] == "action.loop_completed"


async def test_many_loops_at_once(tools: ActionRuntime) -> None:
    """One loop object serves many runs side by side; they share nothing."""

    def plan(context: dict[str, Any], request: dict[str, Any]) -> Any:
        return [call("add", x=context["input"])] if context["round_index"] == 0 else None

    loop = tools.create_loop(plan)
    results = await asyncio.gather(*(loop.async_run(x) for x in range(50)))
    assert [each["records"][0]["data"] for each in results] == list(range(1, 51))
    assert not loop.flow._executions


async def test_a_long_loop_copies_each_record_once(tools: ActionRuntime) -> None:
    """What a planner sees of earlier rounds are the copies it saw before, so a round costs the same in any loop."""
    seen: list[list[dict[str, Any]]] = []

    def plan(context: dict[str, Any], request: dict[str, Any]) -> Any:
        seen.append(context["records"])
        context["records"][-1:] = []  # a planner's list is its own
        assert [each["data"] for each in context["last_round_records"]] == [context["round_index"]][: len(seen) - 1]
        return [{"action_id": "add", "action_input": {"x": context["round_index"], "y": 1}}]

    outcome = await tools.create_loop(plan, max_rounds=30).async_run()
    assert [record["data"] for record in outcome["records"]] == list(range(1, 31))
    assert all(late is early for late, early in zip(seen[-1], seen[-2], strict=False))
    assert outcome["records"][0] is not seen[-1][0]
