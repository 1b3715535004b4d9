"""The action loop: plan -> (execute -> plan)* -> done, as a flow like any other.

Order of one loop::

    begin      action.loop_started                      (run kind ``action_loop``, child of the current run)
    plan       the planner decides                      action.plan_ready
    calls      for each call, ``concurrency`` at once:  action.started … action.completed | action.failed
               a call that needs approval pauses here; answered, it runs
    gather     the records join those of earlier rounds -> plan
    finish     action.loop_completed | action.loop_failed

Being a flow it is observed, durable, paused and resumed like one: take :attr:`ActionLoop.flow` as a sub flow of a
bigger one, create an execution to hold its handle, or :meth:`ActionLoop.async_run` it to its end. It closes the moment
it is done. Source: behaviour §7.3; the compatible system waits ten idle seconds at the end of every loop (§9.1 #8).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, ref

from flowdeck.actions.approval import ask_for, resumed_approval
from flowdeck.actions.decisions import normalise_decision
from flowdeck.actions.limits import MAX_ROUNDS, LoopLimits
from flowdeck.actions.policy import planned_override
from flowdeck.actions.record import answered, is_record, placed, slim
from flowdeck.actions.views import RecordViews
from flowdeck.errors import ActionError
from flowdeck.events.lineage import RunContext, current_run, run_scope
from flowdeck.execution.sync import run_sync
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution, TriggerFlowRuntimeData

if TYPE_CHECKING:
    from flowdeck.actions.runtime import ActionRuntime

__all__ = ["MAX_ROUNDS", "ActionLoop", "Executor", "Planner"]

Planner = Callable[[dict[str, Any], dict[str, Any]], Any]
"""``planner(context, request) -> decision``; may be async."""
Executor = Callable[[dict[str, Any], dict[str, Any]], Any]
"""``executor(context, request) -> records``; may be async."""
_LOOP: Final = "$loop"
"""State key: the loop's run, and when it began."""


class ActionLoop(LoopLimits):
    """Plans and executes actions in rounds.

    Args:
        actions: what can be called.
        plan: the planner; :meth:`register_planning_handler` sets it later.
        name: of the owner in events; the flow is called ``action-loop-<name>``.
        tags: only actions with one of them; all by default.
        max_rounds: rounds of execution, at most (setting ``action.loop.max_rounds``, else 5).
        concurrency: calls of one round at once (setting ``action.loop.concurrency``, else no limit).
        timeout: seconds for one call, unless its policy says otherwise (setting ``action.loop.timeout``).
        protocol: how the planner plans, as events tell.
    """

    def __init__(
        self,
        actions: ActionRuntime,
        plan: Planner | None = None,
        *,
        name: str | None = None,
        tags: str | Iterable[str] | None = None,
        execute: Executor | None = None,
        max_rounds: int | None = None,
        concurrency: int | None = None,
        timeout: float | None = None,
        protocol: str = "structured_plan",
    ) -> None:
        self.actions = actions
        self.name = name or actions.name
        self.tags = tags
        self.protocol = protocol
        self._plan = plan
        self._execute = execute
        super().__init__()
        self.set_loop_options(
            **{
                k: v
                for k, v in (("max_rounds", max_rounds), ("concurrency", concurrency), ("timeout", timeout))
                if v is not None
            }
        )
        self._flow: tuple[int | None, TriggerFlow] | None = None
        self._runs: WeakKeyDictionary[TriggerFlowExecution, tuple[RunContext, float]] = WeakKeyDictionary()
        self._views = RecordViews()
        self._module = sys._getframe(1).f_globals.get("__name__", "")

    def __repr__(self) -> str:
        return f"<ActionLoop {self.name!r}>"

    # -- configuring ---------------------------------------------------------------------------------------------

    def _settings(self) -> Mapping[str, Any]:
        return self.actions.settings

    def register_planning_handler(self, handler: Planner) -> ActionLoop:
        """Let ``handler(context, request)`` decide every round. Chainable."""
        self._plan = handler
        return self

    def register_execution_handler(self, handler: Executor | None) -> ActionLoop:
        """Let ``handler(context, request)`` carry out a round's calls in one step and return the records. Chainable."""
        self._execute = handler
        return self

    # -- the flow --------------------------------------------------------------------------------------------------

    @property
    def flow(self) -> TriggerFlow:
        """The loop as a flow: its input is the planner's ``context["input"]``, its state has the ``records``."""
        concurrency = self._limit("concurrency")
        if self._flow is None or self._flow[0] != concurrency:
            self._flow = (concurrency, self._declare(concurrency))

        return self._flow[1]

    def _declare(self, concurrency: int | None) -> TriggerFlow:
        flow = TriggerFlow(name=f"action-loop-{self.name}")
        flow._module = self._module  # where whoever takes a run of it up again finds it
        flow.to(("begin", self._begin)).to(("plan", self._plan_round))
        flow.when("NextRound").to("plan")
        (
            flow.when("Calls")
            .for_each(concurrency=concurrency, name="calls")
            .if_condition(self._must_not_repeat)
            .to(("call once", self._call), replay_safe=False)
            .else_condition()
            .to(("call", self._call))
            .end_condition()
            .end_for_each()
            .to(("gather", self._gather))
        )
        flow.when("CallsTogether").to(("execute", self._execute_together)).to(("gather together", self._gather))
        flow.when("Finish").to(("finish", self._finish))
        return flow

    def create_execution(self, **options: Any) -> TriggerFlowExecution:
        """Create a run of the loop whose handle one holds; it closes by itself as soon as it is done."""
        options.setdefault("services", self.actions.services)
        options.setdefault("auto_close_timeout", 0.0)
        return self.flow.create_execution(**options)

    async def async_run(
        self, request: Any = None, *, parent: RunContext | None = None, **options: Any
    ) -> dict[str, Any]:
        """Run the loop to its end and return ``{"records", "decision", "rounds"}``.

        A call that needs approval is waited for: answer its interrupt from any process.

        Args:
            request: what the planner finds as ``context["input"]``.
            parent: the run the loop belongs to (a request); the current run by default.

        Raises:
            ActionError: there is no planner.
            Exception: whatever the planner raised, after ``action.loop_failed``.
        """
        if not self.actions.get_action_list(self.tags):
            return {"records": [], "decision": normalise_decision(None, protocol=self.protocol), "rounds": 0}

        opened = self._open(parent or current_run.get())
        with run_scope(opened[0]):
            execution = self.create_execution(parent_run_context=opened[0], **options)

        self._runs[execution] = opened
        try:
            state = await execution.async_start(request)
        except BaseException as problem:
            if execution._log is None or not isinstance(problem, asyncio.CancelledError):
                self._failed(execution, problem)

            if not execution.is_closed() and execution._log is None:
                await execution.async_close(reason="failed", timeout=0, pending_interrupts="cancel")

            raise
        finally:
            if execution._log is None:
                self.flow.remove_execution(execution)

        if execution.get_status() == "cancelled":
            raise ActionError(f"the action loop of {self.name!r} was cancelled")

        return _outcome(state)

    def run(self, request: Any = None, **options: Any) -> dict[str, Any]:
        """Synchronous twin of :meth:`async_run`."""
        return run_sync(self.async_run(request, **options))

    # -- its steps -------------------------------------------------------------------------------------------------

    def _open(self, parent: RunContext | None) -> tuple[RunContext, float]:
        """Begin the loop's run and say so."""
        found = self.actions.get_action_list(self.tags)
        tools = sum(info["meta"].get("action_type", "tool") == "tool" for info in found)
        counts = {"action_count": len(found), "tool_count": tools}
        run = RunContext.create(
            run_kind="action_loop",
            parent=parent,
            agent_id=self.actions.agent_id,
            agent_name=self.name,
            session_id=self.actions.session_id,
            meta={**counts, "action_type": "action_loop", "compat_event_family": "tool"},
        )
        payload = {"agent_name": self.name, **counts, "planning_protocol": self.protocol}
        self.actions.events.loop("loop_started", payload, run)
        return run, time.time()

    async def _begin(self, data: TriggerFlowRuntimeData) -> Any:
        opened = self._runs.get(data.execution)
        if opened is None:  # a sub flow, or a handle somebody else holds
            opened = self._runs[data.execution] = self._open(data.execution.run_context)

        run, began = opened
        self._watch(data.execution)
        await data.async_set_state(_LOOP, {"run": run.to_dict(), "began": began, "input": data.input}, emit=False)
        return None

    def _run_of(self, data: TriggerFlowRuntimeData) -> RunContext:
        """Return the loop's run; after a recovery it is made anew from the state, with the same id."""
        opened = self._runs.get(data.execution)
        if opened is None:
            kept = data.get_state(_LOOP)
            opened = self._runs[data.execution] = (RunContext.from_mapping(kept["run"]), kept["began"])
            self._watch(data.execution)

        return opened[0]

    async def _plan_round(self, data: TriggerFlowRuntimeData) -> Any:
        run = self._run_of(data)
        index = data.get_state("rounds", 0)
        rounds = self._limit("max_rounds", MAX_ROUNDS)
        records, last = self._views.of(data, index - 1)
        context = {
            "agent_name": self.name,
            "input": data.get_state(_LOOP)["input"],
            "round_index": index,
            "max_rounds": rounds,
            "records": records,
            "done_plans": records,
            "last_round_records": last,
            "settings": self.actions.settings,
            "action": self.actions,
            "data": data,
        }
        if index >= rounds:
            decision = normalise_decision(
                {"next_action": "response", "stopped_by": "max_rounds"}, protocol=self.protocol
            )
        else:
            decision = await self._decide(context, run, data)

        event = {"agent_name": self.name, "round_index": index, "decision": decision}
        self.actions.events.loop("plan_ready", event, run, data=data)
        calls = decision["execution_actions"]
        await data.async_set_state("decision", decision, emit=False)
        if decision["next_action"] != "execute":
            data.emit_nowait("Finish")
            return decision["next_action"]

        numbered = [{**call, "round_index": index, "command_index": at} for at, call in enumerate(calls)]
        data.emit_nowait("CallsTogether" if self._execute is not None else "Calls", numbered)
        return decision["next_action"]

    async def _decide(self, context: dict[str, Any], run: RunContext, data: TriggerFlowRuntimeData) -> dict[str, Any]:
        try:
            if self._plan is None:
                raise ActionError(
                    f"the action loop of {self.name!r} has no planner; give create_loop(plan) or "
                    "register_action_planning_handler() a function of (context, request) that returns a decision"
                )

            request = {"action_list": self.actions.get_action_list(self.tags), "planning_protocol": self.protocol}
            with run_scope(run):
                given = self._plan(context, request)
                if isawaitable(given):
                    given = await given
        except Exception as problem:
            self._failed(data.execution, problem, data)
            raise

        return normalise_decision(given, protocol=self.protocol)

    def _must_not_repeat(self, data: TriggerFlowRuntimeData) -> bool:
        spec = self.actions.get(data.input["action_id"])
        return spec is not None and not spec.replay_safe

    async def _call(self, data: TriggerFlowRuntimeData) -> Any:
        call = data.input
        approval = resumed_approval(data)
        record = await self._execute_call(call, data, approval)
        if record["status"] == "approval_required" and approval is None:
            return ask_for(data, record)

        return placed(slim(record), call)

    async def _execute_call(
        self, call: Mapping[str, Any], data: TriggerFlowRuntimeData, approval: Any = None
    ) -> dict[str, Any]:
        place = {"round_index": call["round_index"], "command_index": call["command_index"]}
        return await self.actions.async_execute_action(
            call["action_id"],
            call["action_input"] if call["action_input"] is not None else {},
            purpose=call["purpose"],
            policy_override=planned_override(call["policy_override"]),
            source_protocol=call["source_protocol"],
            todo_suggestion=call["todo_suggestion"],
            next_value=call["next"],
            approval=approval,
            timeout=self._limit("timeout"),
            data=data,
            run=self._run_of(data),
            place={**place, "record_index": call["command_index"]},
        )

    async def _execute_together(self, data: TriggerFlowRuntimeData) -> Any:
        """A handler of the user's carries out the whole round."""
        calls = data.input
        assert self._execute is not None

        async def call_action(action_id: str, kwargs: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
            return await self.actions.async_execute_action(
                action_id, kwargs, data=data, run=self._run_of(data), timeout=self._limit("timeout"), **more
            )

        context = {
            "agent_name": self.name,
            "round_index": calls[0]["round_index"],
            "action": self.actions,
            "data": data,
        }
        request = {
            "action_calls": calls,
            "tool_commands": calls,
            "concurrency": self._limit("concurrency"),
            "timeout": self._limit("timeout"),
            "async_execute_action": call_action,
        }
        try:
            given = self._execute(context, request)
            records = await given if isawaitable(given) else given
        except Exception as problem:
            self._failed(data.execution, problem, data)
            raise

        found = list(records) if isinstance(records, list | tuple) else [records]
        return [placed(slim(each), call) if is_record(each) else each for each, call in zip(found, calls, strict=False)]

    async def _gather(self, data: TriggerFlowRuntimeData) -> Any:
        index = data.get_state("rounds", 0)
        calls = data.get_state("decision")["execution_actions"]
        for at, each in enumerate(data.input):
            call = calls[at] if at < len(calls) else {"action_id": "", "action_input": {}}
            record = each if is_record(each) else answered(call, each, f"{data.execution_id}:{index}:{at}")
            record["meta"] = {"round_index": index, "command_index": at, **record["meta"]}
            await data.async_append_state("records", record, emit=False)

        await data.async_set_state("rounds", index + 1, emit=False)
        data.emit_nowait("NextRound")
        return len(data.input)

    async def _finish(self, data: TriggerFlowRuntimeData) -> Any:
        run = self._run_of(data)
        self._runs.pop(data.execution, None)
        count = len(data.get_state("records", []))
        took = round((time.time() - data.get_state(_LOOP)["began"]) * 1e6)  # wall clock: it may span processes
        payload = {"agent_name": self.name, "record_count": count}
        self.actions.events.loop("loop_completed", payload, run, data=data, duration_us=max(0, took))
        return count

    def _failed(
        self, execution: TriggerFlowExecution, problem: BaseException, data: TriggerFlowRuntimeData | None = None
    ) -> None:
        """Say that the loop has failed, unless it has ended already."""
        opened = self._runs.pop(execution, None)
        if opened is not None:
            self.actions.events.loop("loop_failed", {"agent_name": self.name}, opened[0], data=data, error=problem)

    def _watch(self, execution: TriggerFlowExecution) -> None:
        """Whatever ends the execution before the loop is done (a cancellation, a failed step) ends the loop, too."""
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        execution._closed_waiters = (*execution._closed_waiters, closed)
        closed.add_done_callback(partial(self._closed, ref(execution)))

    def _closed(self, held: ref[TriggerFlowExecution], _: asyncio.Future[None]) -> None:
        execution = held()
        if execution is not None and execution.is_closed():
            cause = execution._driver.failure
            status = execution.get_status()
            self._failed(execution, cause or ActionError(f"the action loop of {self.name!r} was {status}"))


def _outcome(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "records": state.get("records", []),
        "decision": state.get("decision"),
        "rounds": state.get("rounds", 0),
    }
