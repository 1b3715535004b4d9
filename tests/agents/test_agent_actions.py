"""Agents that act: the model plans, actions run, and everything has its place."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.agents.asking import asking, runs_of, told
from tests.workspace.conftest import Collector

from flowdeck import Runtime, TriggerFlow, TriggerFlowRuntimeData
from flowdeck.agents import Agent
from flowdeck.testing import LocalModel, ModelReply, ToolCall

pytestmark = pytest.mark.anyio


def plan(*calls: tuple[str, Any]) -> dict[str, Any]:
    """What a model writes to have actions called; nothing means it is ready to answer."""
    actions = [{"action_id": name, "action_input": given, "purpose": "to know"} for name, given in calls]
    return {"next_action": "execute" if calls else "response", "execution_actions": actions}


CALLS = (("add", {"a": 1, "b": 2}), ("nope", {}), ("add", {"a": "x"}))
SCRIPTS: dict[str, list[Any]] = {
    "structured_plan": [plan(*CALLS), plan(), "The sum is 3."],
    "native_tool_calls": [
        ModelReply(tool_calls=[ToolCall(*CALLS[0]), ToolCall("nope"), ToolCall("add", '{"a": "x"')]),
        "enough",
        "The sum is 3.",
    ],
}


def with_add(agent: Agent) -> Agent:
    @agent.action_func
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return agent


@pytest.mark.parametrize("protocol", SCRIPTS)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a chunk"])
async def test_the_model_drives_the_loop(host: Runtime, events: Collector, protocol: str, inside: bool) -> None:
    """Rounds of calls, then the answer with their results; the model is told of unknown actions and bad arguments."""
    with asking(host, SCRIPTS[protocol]) as (agent, server):
        with_add(agent).use_planning(protocol)
        if inside:
            flow = TriggerFlow(name="f")

            async def ask(data: TriggerFlowRuntimeData) -> None:
                await data.async_set_state("answer", await agent.input("1 + 2?").async_start(data=data))

            flow.to(("ask", ask))
            with host.use():
                answer = (await flow.async_start(1))["answer"]
        else:
            answer = await agent.input("1 + 2?").async_start()

        second, last = (json.dumps(server.requests[n]["messages"]) for n in (1, 2))

    assert answer == "The sum is 3."
    for text in (second, last):
        assert "Can not find action named 'nope'" in text
        assert "3" in text

    if protocol == "native_tool_calls":
        assert [m["role"] for m in server.requests[1]["messages"]] == ["user", "assistant", *["tool"] * 3]
        assert [t["function"]["name"] for t in server.requests[0]["tools"]][-1] == "add"

    kinds = Counter(kind for kind, _ in runs_of(events).values())
    assert (kinds["agent_turn"], kinds["action_loop"], kinds["action"], kinds["model_request"]) == (1, 1, 3, 3)
    runs = runs_of(events)
    turn = events.of("agent_turn.started")[0].run
    loop = events.of("action.loop_started")[0].run
    assert turn is not None and loop is not None and loop.parent_run_id is not None
    assert runs[loop.parent_run_id] == ("request", turn.run_id)
    for name in ("action.started", "action.plan_ready"):
        kind = "action" if name == "action.started" else "action_loop"
        assert {runs[r.run.run_id][0] for r in events.of(name) if r.run} == {kind}

    assert {r.run.parent_run_id for r in events.of("action.started") if r.run} == {loop.run_id}
    assert [r.payload["record"]["status"] for r in events.of("action.completed")] == ["success"]
    order = told(events)
    assert order.index("action.loop_completed") < len(order) - 1 - order[::-1].index("model.request_started")


async def test_what_cannot_be_read_is_no_plan(host: Runtime, events: Collector) -> None:
    """The loop ends and the model answers with what there is; actions can be left out of a request."""
    with asking(host, ["no plan"] * 4 + ["answered", "without"]) as (agent, server):
        with_add(agent)
        assert await agent.input("x").async_start() == "answered"
        assert await agent.input("x").without_actions().async_start() == "without"
        assert len(server.requests) == 6

    assert len(events.of("action.loop_started")) == 1


async def test_an_approval_inside_and_outside(host: Runtime, events: Collector) -> None:
    """As a step of a flow the loop pauses for it; within a chunk the call is not made, and the model is told."""
    paid: list[int] = []
    script = [plan(("pay", {"amount": 5})), plan(), "Told you.", plan(("pay", {"amount": 7})), plan()]
    with asking(host, script) as (agent, server):

        @agent.action_func(approval_required=True)
        async def pay(amount: int) -> str:
            """Pay."""
            paid.append(amount)
            return "paid"

        inside = TriggerFlow(name="inside")

        async def ask(data: TriggerFlowRuntimeData) -> None:
            await agent.input("pay 5").async_start(data=data)

        inside.to(("ask", ask))
        with host.use():
            await inside.async_start(1)
            assert "approval_required" in json.dumps(server.requests[2])
            assert paid == []
            step = TriggerFlow(name="outside")
            step.to(agent.loop.flow)
            execution = step.create_execution(auto_close=False)
            await execution.async_start("pay 7")
            (asked,) = execution.get_pending_interrupts().values()
            await execution.async_continue_with(asked["id"], {"approved": True})
            await execution.async_close()

    assert paid == [7]


def test_two_hundred_calls_everywhere(tmp_path: Path) -> None:
    """A run with 200 tool calls is in the store, the terminal's index and the traces, every span below its parent."""
    pytest.importorskip("duckdb")
    pytest.importorskip("opentelemetry.sdk")
    from tests.otlp.scenarios import Line, check_invariants, map_all

    from flowdeck_devtools.core.index import RunIndex
    from flowdeck_devtools.core.wire import head
    from flowdeck_sinks.store import query

    rounds = [plan(*[("add", {"a": n, "b": m}) for m in range(50)]) for n in range(4)]
    host = Runtime(settings={"action.loop.max_rounds": 9})
    observation = host.observe(store=tmp_path)
    with LocalModel([*rounds, plan(), {"sum": 7}]) as server:
        agent = host.create_agent("adder").use_model("local", base_url=server.base_url, api_key=server.api_key)
        with_add(agent)
        flow = TriggerFlow(name="adding")

        async def ask(data: TriggerFlowRuntimeData) -> None:
            await data.async_set_state("sum", await agent.input("add").output({"sum": int}).async_start(data=data))

        flow.to(("ask", ask))
        with host.use():
            assert asyncio.run(flow.async_start(1))["sum"] == {"sum": 7}

    observation.close()
    kinds = {"workflow_execution": 1, "chunk_execution": 1, "agent_turn": 1, "request": 6, "model_request": 6,
             "action_loop": 1, "action": 200}  # fmt: skip
    found = query(tmp_path, "SELECT run_kind, count(*) FROM spans WHERE status = 'completed' GROUP BY ALL")
    assert dict(map(tuple, found)) == kinds
    orphans = "parent_run_id IS NOT NULL AND parent_run_id NOT IN (SELECT run_id FROM spans)"
    assert list(map(tuple, query(tmp_path, f"SELECT count(*) FROM spans WHERE {orphans}"))) == [(0,)]
    calls = query(tmp_path, "SELECT count(*), min(model), min(input_tokens) > 0, min(status) FROM model_calls")
    assert list(map(tuple, calls)) == [(6, "local", True, "completed")]
    parts = sorted((tmp_path / "journal").glob("*.jsonl"))
    lines = [line for part in parts for line in part.read_bytes().splitlines()[1:]]
    index = RunIndex()
    index.apply([head(line) for line in lines], lines, "w1", 0)
    (row,) = index.newest()
    assert (row.name, row.status, row.errors) == ("adding", "completed", 0)
    spans = map_all([Line("w1", line) for line in lines])
    check_invariants(spans)
    known = {span.context.span_id for span in spans}
    assert sum(span.parent is None for span in spans) == 1
    assert all(span.parent is None or span.parent.span_id in known for span in spans)
    assert Counter(span.name for span in spans)["execute_tool add"] == 200


async def test_a_recorded_agent_replays_without_its_provider(host: Runtime) -> None:
    """Model and actions are on the tape: the same end, and nobody is called; another answer is another end."""
    pytest.importorskip("duckdb")
    from flowdeck_evals.single import record_live, replay_tape

    called: list[int] = []
    agent = Runtime().create_agent("adder")

    @agent.action_func
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        called.append(a)
        return a + b

    flow = TriggerFlow(name="recorded")

    async def ask(data: TriggerFlowRuntimeData) -> None:
        response = agent.input(data.value).output({"sum": int}).get_response(data=data, ensure_keys=["sum"])
        items = [item.path async for item in response.get_async_generator("instant")]
        await data.async_set_state("answer", [items, await response.async_get_data()])

    flow.to(("ask", ask))
    script = [ModelReply(status=503), plan(("add", {"a": 1, "b": 2})), plan(), {"nothing": 1}, {"sum": 3}]
    with LocalModel(script) as server:
        agent.use_model("local", base_url=server.base_url, api_key=server.api_key)
        single = await record_live(flow, "1 + 2?")
        assert single.evidence.error is None, single.evidence.error
        assert len(server.requests) == 5

    names = Counter(line["event_type"] for line in single.tape.lines)
    assert (names["action.completed"], names["agent_turn.completed"], names["model.completed"]) == (1, 1, 4)
    again = await replay_tape(single.tape, flow)
    assert (again.evidence.error, again.findings) == (None, [])
    assert again.evidence.output == single.evidence.output
    assert called == [1]
    assert b"sk-local" not in b"".join(json.dumps(line).encode() for line in single.tape.lines)
