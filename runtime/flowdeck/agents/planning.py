"""How an agent's model drives the action loop: by a structured plan, or by native tool calls.

``structured_plan`` asks for JSON (``next_action``, ``execution_actions``) and works with every model;
``native_tool_calls`` hands the actions to the provider as tools and reads the tool calls of its answer. Either way a
call of an action nobody has, or with arguments that do not fit, becomes a record that says so, and the model sees it in
the next round. Source: behaviour §7.3.

Inside a chunk (``data=``) the loop runs in the turn, so that model and actions are on the chunk's tape; there an action
that needs approval is not called, and the record says so. As a flow of its own (``agent.loop.flow``), or outside
flows, it waits for the approval.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from flowdeck.actions.decisions import normalise_decision
from flowdeck.actions.limits import MAX_ROUNDS
from flowdeck.actions.loop import ActionLoop
from flowdeck.actions.record import placed, slim
from flowdeck.agents.checks import Checks
from flowdeck.agents.request import RequestPlan, requester_of
from flowdeck.agents.turn import AgentExecution
from flowdeck.errors import ModelOutputError
from flowdeck.events.lineage import run_scope
from flowdeck.models.prompt import Prompt
from flowdeck.models.requester import Message

if TYPE_CHECKING:
    from flowdeck.agents.agent import Agent
    from flowdeck.events.lineage import RunContext
    from flowdeck.execution.data import TriggerFlowRuntimeData

__all__ = ["PROTOCOLS", "action_results", "plan_round", "run_in_chunk"]

PROTOCOLS: Final = ("structured_plan", "native_tool_calls")
_PLAN: Final[dict[str, Any]] = {
    "next_action": ("str", "'execute' to call actions now, 'response' when nothing more is needed to answer", True),
    "execution_actions": [
        {
            "action_id": ("str", "one of the actions above"),
            "action_input": ("object", "its arguments by name"),
            "purpose": ("str", "why, in a few words"),
        }
    ],
    "next": ("str", "what will be left to do after these calls"),
}
_INSTRUCT: Final = (
    "Decide which actions to call next, to be able to answer. Calls of one round run at the same time. "
    "Results of earlier rounds stand above; do not repeat a call that has succeeded. Do not answer yet."
)


async def plan_round(agent: Agent, context: dict[str, Any], request: Mapping[str, Any], protocol: str) -> Any:
    """Ask the agent's model what to call next; the planner of the agent's loop."""
    slots = _slots(context["input"])
    data = context["data"]
    native = protocol == "native_tool_calls"
    if native:
        own = {name: value for name, value in agent.prompt.items() if name != "output"}
        prompt = Prompt(own, {name: value for name, value in slots.items() if name != "output"})
    else:
        prompt = _planning_prompt(agent, slots, context, request)

    config = agent.model_config
    plan = RequestPlan(
        agent,
        agent._services_for(data),
        config,
        requester_of(config),
        prompt,
        Checks(),
        data=data,
        history=list(agent.chat_history),
        remember=False,
        planning=True,
    )
    if native:
        plan.tools = [_tool(info) for info in request["action_list"]]
        plan.messages = lambda built: [*built.messages(), *_tool_messages(context["records"])]

    execution = AgentExecution(plan)
    await execution.done()
    failure = execution.failure
    if isinstance(failure, ModelOutputError):  # what cannot be read is no plan
        return {"next_action": "response", "problem": str(failure)}

    if failure is not None:
        raise failure

    attempt = execution.last
    assert attempt is not None
    if not native:
        return attempt.answer.data

    calls = [
        {"action_id": call["name"], "action_input": _arguments(call["arguments"]), "source_protocol": protocol}
        for call in attempt.tool_calls
    ]
    return calls or {"next_action": "response", "response": attempt.text}


def _slots(given: Any) -> dict[str, Any]:
    """Return the slots of the request the loop works for; a loop used as a flow has just an input."""
    if isinstance(given, Mapping) and set(given) == {"$prompt"}:
        return dict(given["$prompt"])

    return {"input": given}


def _planning_prompt(
    agent: Agent, slots: dict[str, Any], context: dict[str, Any], request: Mapping[str, Any]
) -> Prompt:
    actions = [
        {"action_id": info["action_id"], "description": info["desc"], "arguments": info["parameters"]}
        for info in request["action_list"]
    ]
    about = {"task": slots.get("instruct"), "information": slots.get("info"), "actions": actions}
    own = {name: value for name, value in agent.prompt.items() if name in ("system", "developer")}
    prompt = Prompt(
        own,
        {
            **{name: slots[name] for name in ("system", "developer", "input", "attachment") if name in slots},
            "info": {name: value for name, value in about.items() if value},
            "instruct": _INSTRUCT,
            "output": _PLAN,
        },
    )
    prompt.action_results = action_results(context["records"])
    return prompt


def _tool(info: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": info["action_id"], "description": info["desc"], "parameters": info["parameters"]}


def _arguments(given: Any) -> Any:
    """Return a call's arguments; what is no JSON object stays a text, and the call's record will say so."""
    if not isinstance(given, str):
        return given

    try:
        return json.loads(given or "{}")
    except ValueError:
        return given


def _tool_messages(records: list[dict[str, Any]]) -> list[Message]:
    """Return what was called and what came of it, as the provider wants to see it again."""
    out: list[Message] = []
    rounds: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        rounds.setdefault(record["meta"].get("round_index", 0), []).append(record)

    for number, members in rounds.items():
        calls, results = [], []
        for at, record in enumerate(members):
            call_id = f"call_{number}_{at}"
            arguments = record["kwargs"]
            calls.append({"id": call_id, "name": record["action_id"], "arguments": json.dumps(arguments, default=str)})
            said = _result(record)
            text = json.dumps(said.get("result", said.get("error")), ensure_ascii=False, default=str)
            results.append({"role": "tool", "tool_call_id": call_id, "name": record["action_id"], "content": text})

        out.append({"role": "assistant", "content": "", "tool_calls": calls})
        out += results

    return out


def action_results(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records as a prompt shows them: nothing that differs from run to run, such as ids and times."""
    return [_result(record) for record in records]


def _result(record: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"action": record["action_id"], "input": record["kwargs"], "purpose": record.get("purpose") or None}
    shown["status"] = record["status"]
    shown["result" if record["ok"] else "error"] = record["data"] if record["ok"] else record["error"]
    if record.get("artifact_refs"):
        shown["artifacts"] = record["artifact_refs"]

    return {name: value for name, value in shown.items() if value is not None}


async def run_in_chunk(
    loop: ActionLoop, request: Any, parent: RunContext, data: TriggerFlowRuntimeData
) -> dict[str, Any]:
    """Run the loop inside a chunk: same rounds, records and events as :meth:`ActionLoop.async_run`."""
    actions = loop.actions
    run, began = loop._open(parent)
    records: list[dict[str, Any]] = []
    limit, index = loop._limit("max_rounds", MAX_ROUNDS), 0
    at_once = asyncio.Semaphore(loop._limit("concurrency") or 1_000)

    async def call(number: int, planned: dict[str, Any]) -> dict[str, Any]:
        place = {"round_index": index, "command_index": number}
        async with at_once:
            record = await actions.async_execute_action(
                planned["action_id"],
                planned["action_input"] if planned["action_input"] is not None else {},
                purpose=planned["purpose"],
                source_protocol=planned["source_protocol"],
                timeout=loop._limit("timeout"),
                data=data,
                run=run,
                place={**place, "record_index": number},
            )

        return placed(slim(record), place)

    try:
        while True:
            decision = normalise_decision(
                {"next_action": "response", "stopped_by": "max_rounds"}, protocol=loop.protocol
            )
            if index < limit:
                context = {"input": request, "round_index": index, "max_rounds": limit, "records": records}
                context |= {"agent_name": loop.name, "action": actions, "settings": actions.settings, "data": data}
                context["last_round_records"] = [r for r in records if r["meta"].get("round_index") == index - 1]
                asked = {"action_list": actions.get_action_list(loop.tags), "planning_protocol": loop.protocol}
                with run_scope(run):
                    assert loop._plan is not None
                    given = loop._plan(context, asked)
                    given = await given if hasattr(given, "__await__") else given

                decision = normalise_decision(given, protocol=loop.protocol)

            event = {"agent_name": loop.name, "round_index": index, "decision": decision}
            actions.events.loop("plan_ready", event, run, data=data)
            if decision["next_action"] != "execute":
                break

            calls = decision["execution_actions"]
            records = [*records, *await asyncio.gather(*(call(at, each) for at, each in enumerate(calls)))]
            index += 1
    except BaseException as problem:
        actions.events.loop("loop_failed", {"agent_name": loop.name}, run, data=data, error=problem)
        raise

    payload = {"agent_name": loop.name, "record_count": len(records)}
    took = max(0, round((time.time() - began) * 1e6))
    actions.events.loop("loop_completed", payload, run, data=data, duration_us=took)
    return {"records": records, "decision": decision, "rounds": index}
