"""Runs behind a service: started once per key, found again after a restart, answered by one of many.

No HTTP here. A durable run may live in this process, be parked in the store, or belong to another process; a run
without a store lives here or nowhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from flowdeck.durable import AnswerResult, ControlClient, ExecutionRow, InterruptRow
from flowdeck.durable.using import DurableStore
from flowdeck.durable.worker import Worker
from flowdeck.errors import ExecutionBusy, ExecutionExists
from flowdeck.events.ids import new_id
from flowdeck.execution.services import Services
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution
from flowdeck.web.access import Caller
from flowdeck.web.problems import Problem

__all__ = ["Answered", "Desk", "come_to_rest"]

_log = logging.getLogger("flowdeck.web")

APPLIED_SECONDS: Final = 2.0
"""How long an answer waits for the owner of the run to take it; after that it is accepted and not yet applied."""


class Answered(NamedTuple):
    """What became of an answer, an intervention or a cancellation."""

    outcome: str
    """``applied``, ``accepted`` (kept; nobody has taken it yet), ``early``, ``duplicate``, ``conflict``, ``expired``,
    ``rejected`` or ``unknown``."""
    detail: str | None = None


class Desk:
    """Keeps the runs of some flows.

    Args:
        flows: by name.
        services: what hosts the runs.
        store: a store directory; runs are durable then, and what a killed server left behind is taken up.
        resources: returns the runtime resources of a run.
        keep: how many ended runs stay readable without a store.
    """

    def __init__(
        self,
        flows: Mapping[str, TriggerFlow],
        services: Services,
        *,
        store: Any = None,
        durability: str = "full",
        resources: Callable[[], Mapping[str, Any]] | None = None,
        keep: int = 1_000,
    ) -> None:
        self.flows = dict(flows)
        self.services = services
        self._store_path = store
        self._durability = durability
        self._resources = resources
        self._keep = keep
        self._worker: Worker | None = None
        self._serving: asyncio.Task[Any] | None = None
        self._client: ControlClient | None = None
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._ended: OrderedDict[str, TriggerFlow] = OrderedDict()
        self._opening: dict[str, asyncio.Task[TriggerFlowExecution | None]] = {}
        self._keys: dict[str, str] = {}

    # -- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the store and begin to take up what was left behind."""
        if self._store_path is None or self._worker is not None:
            return

        self._worker = await asyncio.to_thread(self._make_worker)
        self._client = ControlClient(self._durable.store.path)
        self._serving = asyncio.get_running_loop().create_task(self._worker.run())

    def _make_worker(self) -> Worker:
        return Worker(
            self._store_path,
            self.flows.values(),
            self.services,
            resources=self._resources,
            durability=self._durability,
            tell=self._tell,
        )

    async def close(self) -> None:
        """Let durable runs go, to be taken up by whoever comes next; others end with the process."""
        for task in list(self._running.values()):
            if self._worker is not None or task.done():
                task.cancel()

        if self._worker is not None and self._serving is not None:
            self._worker.stop()
            await asyncio.gather(self._serving, return_exceptions=True)

        if self._client is not None:
            self._client.close()

        self._worker = self._serving = self._client = None

    @property
    def _durable(self) -> Any:
        assert self._worker is not None
        used: DurableStore = self._worker.durable
        return used

    # -- starting ------------------------------------------------------------------------------------------------

    async def start(
        self, flow: TriggerFlow, value: Any, caller: Caller, *, key: str | None = None, task_id: str | None = None
    ) -> tuple[TriggerFlowExecution, bool]:
        """Start a run, or return the one that was started under ``key`` before. In a store the start is committed.

        Returns the run, and whether it is new.

        Raises:
            Problem: the run of that key belongs to somebody else.
            ExecutionBusy: another process runs it.
        """
        execution_id = new_id() if key is None else _id_of(flow, key, caller)
        if key is not None:
            known = await self.find(flow, execution_id, caller)
            if known is not None:
                return known, False

        given = {**flow.provided_resources(), **(self._resources() if self._resources is not None else {})}
        execution = flow.create_execution(
            execution_id=execution_id,
            services=self.services,
            runtime_resources=given,
            auto_close_timeout=0.0,
            task_id=task_id,
            tenant_id=caller.tenant_id,
            user_id=caller.user_id,
        )
        task = await self.launch(flow, execution, value)
        log = execution._log
        if log is not None and not task.done():
            try:
                await log.committed()
            except ExecutionExists:
                flow.remove_execution(execution)
                known = await self.find(flow, execution_id, caller)
                if known is None:
                    raise

                return known, False

        return execution, True

    async def launch(self, flow: TriggerFlow, execution: TriggerFlowExecution, value: Any) -> asyncio.Task[None]:
        """Start a run beside the caller, and return its task once it has begun and that is recorded."""
        task = asyncio.get_running_loop().create_task(self._run(flow, execution, value))
        self._running[execution.id] = task
        await asyncio.sleep(0)
        return task

    async def _run(self, flow: TriggerFlow, execution: TriggerFlowExecution, value: Any) -> None:
        try:
            await execution._settle_start(value)
            execution._on_idle()
        except ExecutionExists:
            return  # told where it was started
        except Exception as error:
            _log.info("run %s of %r failed: %s: %s", execution.id, flow.name, type(error).__name__, error)
            if not execution.is_closed():
                await execution.async_close(reason="failed", pending_interrupts="cancel")
        finally:
            self._running.pop(execution.id, None)

        if self._worker is None:  # in a store it may leave the memory while it waits, and the host tells of its end
            task = asyncio.get_running_loop().create_task(self._await_end(flow, execution))
            self._running[execution.id] = task

    async def _await_end(self, flow: TriggerFlow, execution: TriggerFlowExecution) -> None:
        await execution.wait_closed()
        self._running.pop(execution.id, None)
        self._has_ended(flow, execution.id)

    def _tell(self, kind: str, execution_id: str, text: str) -> None:
        if kind == "ended":
            for flow in self.flows.values():
                if execution_id in flow._executions:
                    self._has_ended(flow, execution_id)
        elif kind == "refused":
            _log.warning("run %s cannot go on here: %s", execution_id, text)

    def _has_ended(self, flow: TriggerFlow, execution_id: str) -> None:
        self._ended[execution_id] = flow
        while len(self._ended) > self._keep:
            oldest, its_flow = self._ended.popitem(last=False)
            its_flow.remove_execution(oldest)

    # -- finding -------------------------------------------------------------------------------------------------

    async def find(self, flow: TriggerFlow, execution_id: str, caller: Caller) -> TriggerFlowExecution | None:
        """Return a run of ``flow`` that the caller may see: from memory, else from the store. ``None``: there is none.

        Raises:
            ExecutionBusy: another living process runs it.
        """
        execution = flow._executions.get(execution_id)
        if execution is None and self._client is not None:
            row = await asyncio.to_thread(self._client.get_execution, execution_id)
            if row is None or row.flow_name != flow.name or not _visible(row.tenant_id, caller):
                return None

            execution = await self._reopen(flow, execution_id)

        if execution is None or not _visible(execution.run_context.meta.get("tenant_id"), caller):
            return None

        return execution

    async def _reopen(self, flow: TriggerFlow, execution_id: str) -> TriggerFlowExecution | None:
        opening = self._opening.get(execution_id)
        if opening is None:
            opening = asyncio.get_running_loop().create_task(self._open_once(flow, execution_id))
            self._opening[execution_id] = opening
            opening.add_done_callback(lambda _: self._opening.pop(execution_id, None))

        return await asyncio.shield(opening)

    async def _open_once(self, flow: TriggerFlow, execution_id: str) -> TriggerFlowExecution | None:
        host = self._durable.host
        try:
            found: TriggerFlowExecution | None = await host.reopen(flow, execution_id)
        except ExecutionBusy:
            hosted = host.hosted.get(execution_id)  # taken up here meanwhile
            found = hosted.execution if hosted is not None else None
            if found is None:
                raise

        if found is not None and found.is_closed():
            flow._executions[execution_id] = found
            self._has_ended(flow, execution_id)

        return found

    async def row(self, flow: TriggerFlow, execution_id: str, caller: Caller) -> ExecutionRow | None:
        """Return what the store has of a run, wherever it lives."""
        if self._client is None:
            return None

        row = await asyncio.to_thread(self._client.get_execution, execution_id)
        if row is None or row.flow_name != flow.name or not _visible(row.tenant_id, caller):
            return None

        return row

    async def open_interrupts(self, flow: TriggerFlow, caller: Caller, limit: int) -> list[dict[str, Any]]:
        """Return what the runs of a flow ask, the longest open first."""
        if self._client is not None:
            rows = await asyncio.to_thread(self._client.list_interrupts, limit=limit)
            mine = [row for row in rows if row.flow_name == flow.name]
            tenants = {
                row.id: row.tenant_id
                for row in await asyncio.to_thread(self._client.list_executions, open_only=True, limit=limit)
            }
            return [_shown_row(row) for row in mine if _visible(tenants.get(row.execution_id), caller)]

        found = []
        for execution in list(flow._executions.values()):
            if not execution.is_closed() and _visible(execution.run_context.meta.get("tenant_id"), caller):
                found += interrupts_of(execution)

        return sorted(found, key=lambda each: each["opened_at"])[:limit]

    # -- acting --------------------------------------------------------------------------------------------------

    async def answer(
        self, execution: TriggerFlowExecution, interrupt_id: str, value: Any, caller: Caller, key: str | None = None
    ) -> Answered:
        """Answer an interrupt; the first accepted answer wins, over any number of processes.

        Raises:
            InterruptNotFound, InterruptError: the run without a store refuses it.
        """
        if self._client is not None:
            return await self._ask("resume", execution.id, interrupt_id, value, caller, key)

        interrupt = execution.get_interrupt(interrupt_id)
        if interrupt is not None and interrupt["status"] != "waiting":
            outcome = "expired" if interrupt["status"] == "expired" else "conflict"
            return Answered(outcome, f"it is {interrupt['status']} already")

        record = execution.continue_nowait(interrupt_id, value, actor=caller.user_id)
        return Answered("applied") if record is not None else Answered("rejected", "the run has ended")

    async def intervene(self, execution: TriggerFlowExecution, asked: Mapping[str, Any], caller: Caller) -> Answered:
        """Add an intervention: ``{"payload", "note"?, "target"?, "metadata"?}``."""
        if self._client is not None:
            body = {"payload": asked["payload"], "note": asked.get("note"), "metadata": asked.get("metadata")}
            return await self._ask("intervene", execution.id, asked.get("target"), body, caller, None)

        await execution.async_intervene(
            asked["payload"],
            author=caller.user_id,
            note=asked.get("note"),
            target=asked.get("target"),
            metadata=asked.get("metadata"),
        )
        return Answered("applied")

    async def cancel(self, execution: TriggerFlowExecution, reason: str | None, caller: Caller) -> Answered:
        """End a run: its handlers are stopped, its questions withdrawn."""
        if execution.is_closed():
            return Answered("conflict", f"the run is {execution.get_status()} already")

        if self._client is not None:
            return await self._ask("cancel", execution.id, None, reason, caller, None)

        await execution.async_cancel(reason=reason or f"cancelled by {caller.user_id or 'a client'}")
        return Answered("applied")

    async def _ask(
        self, kind: str, execution_id: str, target: str | None, payload: Any, caller: Caller, key: str | None
    ) -> Answered:
        assert self._client is not None
        client = self._client

        def put_and_wait() -> AnswerResult:
            result = client.put_inbox(kind, execution_id, target, payload, caller.user_id, key)
            if result.outcome is None and result.row_id is not None:
                result = client.wait_outcome(result.row_id, APPLIED_SECONDS)

            return result

        result = await asyncio.to_thread(put_and_wait)
        return Answered(result.outcome or "accepted", result.detail)


async def come_to_rest(execution: TriggerFlowExecution, seconds: float) -> bool:
    """Wait until a run has ended or waits for somebody; tell whether it has, within so many seconds."""
    stream = execution.stream
    try:
        async with asyncio.timeout(seconds):
            while not (stream.closed or stream.resting):
                changed = stream.changed()
                try:
                    await changed
                finally:
                    stream.forget(changed)
    except TimeoutError:
        return False

    return True


def interrupts_of(execution: TriggerFlowExecution) -> list[dict[str, Any]]:
    """Return the open questions of a run as a client may see them."""
    return [_shown_record(execution.id, record) for record in execution.get_pending_interrupts().values()]


def _shown_record(execution_id: str, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "interrupt_id": record["id"],
        "execution_id": execution_id,
        "type": record.get("type"),
        "payload": record.get("payload"),
        "schema": record.get("schema"),
        "assignees": list(record.get("assignees") or ()),
        "opened_at": record.get("created_at"),
        "expires_at": record.get("expires_at"),
    }


def _shown_row(row: InterruptRow) -> dict[str, Any]:
    return _shown_record(row.execution_id, {**row.record, "id": row.id, "schema": row.schema})


def _visible(tenant_id: str | None, caller: Caller) -> bool:
    return caller.tenant_id is None or caller.tenant_id == tenant_id


def _id_of(flow: TriggerFlow, key: str, caller: Caller) -> str:
    if not 0 < len(key) <= 255:
        raise Problem(422, "Bad idempotency key", "expected 1 to 255 characters")

    return hashlib.sha256(f"{flow.name}\0{caller.tenant_id or ''}\0{key}".encode()).hexdigest()[:32]
