"""The one way in which every action is called.

Order of a call (:meth:`ActionCalls.async_execute_action`)::

    look the action up, check and convert the arguments
    merge the policies; a person must allow it  ->  status approval_required, nothing runs
    action.started                              (run kind ``action``, child of the current run)
    services.ports.call / data.call             a tape may answer from here on
        ensure the execution environments  ->  run the executor  ->  release them
    read the outcome, keep what is large as an artifact
    action.completed | action.failed

It never raises, except for what is no fault of the call: cancellation and interpreter exit.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowdeck.actions.artifacts import ArtifactStore, FileArtifacts, text_between
from flowdeck.actions.borrowing import borrow, give_back
from flowdeck.actions.context import ActionContext, current_call
from flowdeck.actions.events import ActionEvents
from flowdeck.actions.policy import approval_needed, approval_of, merged_policy
from flowdeck.actions.record import finish, new_record, read_failure, read_outcome, settle, slim, with_artifact
from flowdeck.actions.registry import ActionRegistry
from flowdeck.actions.spec import ActionSpec
from flowdeck.environments.manager import ExecutionEnvironmentManager, environments_of
from flowdeck.errors import ActionDefinitionError, ActionError
from flowdeck.events.ids import new_id
from flowdeck.events.lineage import RunContext, current_run
from flowdeck.execution.ports import PortCall
from flowdeck.execution.services import Services, current_services, selected_services
from flowdeck.execution.sync import run_sync

if TYPE_CHECKING:
    from flowdeck.execution.data import TriggerFlowRuntimeData

__all__ = ["MAX_RESULT_BYTES", "READ_ARTIFACT", "ActionCalls"]

MAX_RESULT_BYTES: Final = 64 * 1024
"""Larger results become artifacts, unless the setting ``action.max_result_bytes`` says otherwise."""
READ_ARTIFACT: Final = "read_action_artifact"
PORT: Final = "action"


@dataclass(slots=True)
class _Call:
    """One call under way."""

    spec: ActionSpec | None
    record: dict[str, Any]
    key: str
    timeout: float | None
    data: TriggerFlowRuntimeData | None
    place: Mapping[str, Any]
    run: RunContext | None = None
    began_us: int = field(default_factory=lambda: time.time_ns() // 1000)
    began_ns: int = field(default_factory=time.perf_counter_ns)

    @property
    def name(self) -> str:
        return str(self.record["action_id"])

    @property
    def action_type(self) -> str:
        return self.spec.action_type if self.spec is not None else "tool"


class ActionCalls(ActionRegistry):
    """Registered actions that can be called.

    Args:
        services: what hosts them; the current runtime's by default.
        name: the owner, as events and the loop's flow call it.
        environments: where execution environments come from; the services' own manager by default.
        artifacts: where large results go; by default the execution store's directory, else a private one.
    """

    def __init__(
        self,
        services: Services | None = None,
        *,
        name: str = "flowdeck",
        environments: ExecutionEnvironmentManager | None = None,
        artifacts: ArtifactStore | None = None,
        agent_id: str | None = None,
    ) -> None:
        super().__init__()
        self._services = services
        self.name = name
        self.agent_id = agent_id
        self.session_id: str | None = None
        """The session the calls belong to, where an agent has one active."""
        self._environments = environments
        self._artifacts = artifacts
        self._events: ActionEvents | None = None
        self._ordinals: dict[str, itertools.count[int]] = {}
        self.register_action(
            action_id=READ_ARTIFACT,
            func=self._read_artifact,
            desc="Read a part of a large action result that was kept as an artifact.",
            tags=["builtin"],
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} with {len(self.specs)} actions>"

    @property
    def services(self) -> Services:
        """What hosts the calls."""
        if self._services is None:
            self._services = current_services()

        return self._services

    @property
    def settings(self) -> dict[str, Any]:
        """The runtime's settings."""
        return self.services.settings

    @property
    def events(self) -> ActionEvents:
        """The event types of the runtime selected here, else of the actions' own; looked up once for each in a row."""
        services = selected_services() or self.services
        if self._events is None or self._events.center is not services.center:
            self._events = ActionEvents(services)

        return self._events

    @property
    def environments(self) -> ExecutionEnvironmentManager:
        """Where execution environments come from."""
        return self._environments or environments_of(self.services)

    @property
    def artifacts(self) -> ArtifactStore:
        """Where large results are kept."""
        if self._artifacts is None:
            state_db = getattr(self.services.store, "path", None)
            self._artifacts = FileArtifacts(Path(state_db).parent / "artifacts" if state_db else None)

        return self._artifacts

    def use_artifacts(self, store: ArtifactStore) -> None:
        """Keep large results in ``store`` from now on."""
        self._artifacts = store

    def _read_artifact(self, ref: str, offset: int = 0, size: int = 8_000) -> str:
        """Return ``size`` bytes of an artifact from ``offset`` on as text, whole characters: go on at offset + size."""
        return text_between(self.artifacts, ref, max(0, offset), max(1, min(size, MAX_RESULT_BYTES // 2)))

    def get_action_list(self, tags: str | Iterable[str] | None = None) -> list[dict[str, Any]]:
        """Return what planners are told; the reader of artifacts only once there are other actions."""
        found = super().get_action_list(tags)
        return found if any(info["action_id"] != READ_ARTIFACT for info in found) else []

    # -- calling -------------------------------------------------------------------------------------------------

    async def async_execute_action(
        self,
        name: str,
        kwargs: Mapping[str, Any] | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        purpose: str | None = None,
        policy_override: Mapping[str, Any] | None = None,
        source_protocol: str = "direct",
        todo_suggestion: str = "",
        next_value: str = "",
        approval: Any = None,
        timeout: float | None = None,
        data: TriggerFlowRuntimeData | None = None,
        run: RunContext | None = None,
        place: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call an action and return its record. Never raises: ``status`` tells.

        Args:
            settings: over the runtime's, for this call.
            approval: a decision, ``True`` or ``{"approved": True}``, for an action that needs one.
            timeout: seconds the call may take, if its policy has no ``timeout_seconds``.
            data: the chunk it is called from, so that a tape can answer, and a repeated call keeps its idempotency key.
            run: the parent of the call's run; the current run by default.
            place: further keys for the events' payload (``round_index``, ``command_index`` …).
        """
        given = dict(kwargs) if isinstance(kwargs, Mapping) else {}
        spec = self.get(name) if isinstance(name, str) else None
        key = _key(name, data)
        record = new_record(
            str(name),
            given,
            spec,
            key=key,
            purpose=purpose or "",
            todo_suggestion=todo_suggestion,
            next_value=next_value,
            source_protocol=source_protocol,
        )
        call = _Call(spec, record, key, timeout, data, place or {})
        layers = {**self.settings, **settings} if settings else self.settings
        decision = None if approval is None else approval_of(approval)
        arguments, policy = self._admit(call, kwargs, given, layers, policy_override, decision)
        if record["status"] == "approval_required":
            return record  # nothing was called yet: the question is an event of its own, if it becomes one

        self._begin(call, run)
        if arguments is not None:
            attempt = data.attempt if data is not None else 1
            context = ActionContext(
                call.name, record["action_call_id"], key, attempt, call.run, data, {}, policy, decision
            )
            await self._call(call, context, arguments)

        self._tell_end(call)
        return record

    def _admit(
        self,
        call: _Call,
        given: object,
        kwargs: dict[str, Any],
        settings: Mapping[str, Any],
        override: Mapping[str, Any] | None,
        decision: dict[str, Any] | None,
    ) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Return the arguments to call with, ``None`` when there shall be no call (the record says why), and the
        policy."""
        spec, record, name = call.spec, call.record, call.name
        if spec is None:
            settle(record, "error", error=f"Can not find action named '{name}'")
            return None, {}

        try:
            policy = merged_policy(settings, spec, override)
        except ActionDefinitionError as wrong:
            settle(record, "error", error=str(wrong))
            return None, {}

        if given is not None and not isinstance(given, Mapping):
            settle(record, "error", error=f"the arguments of {name!r} must be a mapping, got {given!r:.200}")
            return None, policy

        if spec.sandbox_required and not spec.executor.sandboxed:
            how = f"action {name!r} must run sandboxed and its executor ({spec.executor.executor_type}) is not"
            settle(record, "blocked", error=how)
            return None, policy

        arguments, problem = spec.arguments.prepare(kwargs)
        if problem:
            settle(record, "error", error=f"the arguments of {name!r} do not fit: {problem}")
            return None, policy

        wanted = approval_needed(spec, policy)
        if wanted is not None or decision is not None:
            record["approval"] = {**(wanted or {"required": False}), **(decision or {})}

        if decision is not None and not decision["approved"]:
            settle(record, "blocked", error=f"action {name!r} was not approved: {decision.get('reason') or 'refused'}")
            return None, policy

        if wanted is not None and decision is None:
            settle(record, "approval_required", error=wanted["message"])

        return arguments, policy

    def _begin(self, call: _Call, parent: RunContext | None) -> None:
        record, place = call.record, call.place
        meta = {"action_type": call.action_type, "action_name": call.name, "purpose": record["purpose"]}
        indices = {name: place[name] for name in ("round_index", "command_index") if name in place}
        call.run = RunContext.create(
            run_kind="action",
            parent=parent or current_run.get(),
            agent_id=self.agent_id,
            session_id=self.session_id,
            meta={**meta, **indices},
        )
        if self.events.wanted("started"):
            command = {"action_id": call.name, "action_input": record["kwargs"], "purpose": record["purpose"]}
            self.events.call("started", {**self._payload(call), "command": command}, call.run, data=call.data)

    def _payload(self, call: _Call) -> dict[str, Any]:
        return {"agent_name": self.name, **call.place, "action_type": call.action_type, "action_name": call.name}

    async def _call(self, call: _Call, context: ActionContext, arguments: dict[str, Any]) -> None:
        record = call.record
        try:
            outcome = await self._through_port(call, context, arguments)
        except asyncio.CancelledError:
            if call.data is None or call.data.execution._log is None:  # a durable run goes on elsewhere
                settle(record, "error", error="the call was cancelled")
                self._tell_end(call)

            raise
        except Exception as problem:
            read_failure(record, problem)
        else:
            read_outcome(record, outcome)
            limit = int(self.settings.get("action.max_result_bytes", MAX_RESULT_BYTES))
            with_artifact(record, self.artifacts, limit)

    def _tell_end(self, call: _Call) -> None:
        record = call.record
        finish(record, call.began_us, call.began_ns)
        name = "completed" if record["ok"] else "failed"
        if self.events.wanted(name):
            assert call.run is not None
            said = None if record["ok"] else f"{call.name}: {record['error'] or record['status']}"[:500]
            took = (time.perf_counter_ns() - call.began_ns) // 1000
            payload = {**self._payload(call), "record": slim(record)}
            self.events.call(name, payload, call.run, data=call.data, duration_us=took, message=said)

    async def _through_port(self, call: _Call, context: ActionContext, arguments: dict[str, Any]) -> Any:
        spec = call.spec
        assert spec is not None
        limit = _limit(context.policy, call.timeout)

        async def perform(arguments: dict[str, Any]) -> Any:
            return await self._perform(spec, context, arguments, limit)

        if call.data is not None:
            return await call.data.call(PORT, spec.action_id, perform, arguments)

        ordinal = next(self._ordinals.setdefault(spec.action_id, itertools.count()))
        return await self.services.ports.call(PortCall("", PORT, spec.action_id, (arguments,), ordinal), perform)

    async def _perform(
        self, spec: ActionSpec, context: ActionContext, arguments: dict[str, Any], limit: float | None
    ) -> Any:
        """Touch the world: the environments, then the executor, within the time limit."""
        run_token, call_token = current_run.set(context.run), None
        manager = self.environments if spec.execution_environments else None
        handles: list[dict[str, Any]] = []
        try:
            async with self.services.clock.timeout(limit) as allowed:
                if manager is not None:
                    context = await borrow(manager, spec, context, handles, self.name)

                call_token = current_call.set(context)
                result = spec.executor.execute(context, arguments)
                return await result if hasattr(result, "__await__") else result
        except TimeoutError as problem:
            if allowed.expired():
                raise TimeoutError(f"action {spec.action_id!r} took longer than {limit} s") from problem

            raise
        except SystemExit as problem:  # a command line's parser, say; it ends the call, not the process
            raise ActionError(f"action {spec.action_id!r} called sys.exit({problem.code!r})") from problem
        except asyncio.CancelledError as problem:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():  # nobody cancelled the caller
                raise ActionError(f"action {spec.action_id!r} was cancelled from within") from problem

            raise
        finally:
            if call_token is not None:
                current_call.reset(call_token)

            current_run.reset(run_token)
            if manager is not None:
                await asyncio.shield(give_back(manager, handles))

    def execute_action(self, name: str, kwargs: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Synchronous twin of :meth:`async_execute_action`."""
        return run_sync(self.async_execute_action(name, kwargs, **options))

    async def async_call_action(self, name: str, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Call an action and return just what it returned, or its error as a text."""
        record = await self.async_execute_action(name, kwargs, **options)
        return record["data"] if record["ok"] or record["data"] is not None else record["error"]

    def call_action(self, name: str, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Synchronous twin of :meth:`async_call_action`."""
        return run_sync(self.async_call_action(name, kwargs, **options))

    async_call_tool = async_call_action
    call_tool = call_action


def _key(name: object, data: TriggerFlowRuntimeData | None) -> str:
    """What tells this call from every other one, also when it is made again after a crash."""
    if data is None:
        return new_id()

    nth = data._count(f"a:{name}")
    return f"{data.idempotency_key}:{name}" if not nth else f"{data.idempotency_key}:{name}:{nth}"


def _limit(policy: Mapping[str, Any], timeout: float | None) -> float | None:
    given = policy.get("timeout_seconds", timeout)
    return float(given) if isinstance(given, int | float) and not isinstance(given, bool) and given > 0 else None
