"""What is asked of runs that exist: answers, interventions, cancellations, and the list of open questions.

In a store everything goes through the inbox, so it does not matter which process has the run, and the first answer
wins over all of them; without one the run is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

from flowdeck.durable import AnswerResult, ControlClient, ExecutionRow, InterruptRow
from flowdeck.errors import InterventionError
from flowdeck.triggerflow import TriggerFlowExecution
from flowdeck.web.access import Caller

__all__ = ["Answered", "Control", "interrupts_of"]

APPLIED_SECONDS: Final = 2.0
"""How long an answer waits for the owner of the run to take it; after that it is accepted and not yet applied."""


class Answered(NamedTuple):
    """What became of an answer, an intervention or a cancellation."""

    outcome: str
    """``applied``, ``accepted`` (kept; nobody has taken it yet), ``early``, ``duplicate``, ``conflict``, ``expired``,
    ``rejected`` or ``unknown``."""
    detail: str | None = None


class Control:
    """Acts on runs.

    Args:
        client: returns the client of the store, or ``None`` where runs live in memory only.
    """

    def __init__(self, client: Callable[[], ControlClient | None]) -> None:
        self._client = client

    # -- questions -----------------------------------------------------------------------------------------------

    async def interrupts(self, run: TriggerFlowExecution | ExecutionRow) -> list[dict[str, Any]]:
        """Return the open questions of a run."""
        if isinstance(run, ExecutionRow):
            return [_shown_row(row) for row in await self._rows(run.id, open_only=True)]

        return interrupts_of(run)

    async def interrupt(self, run: TriggerFlowExecution | ExecutionRow, interrupt_id: str) -> Mapping[str, Any] | None:
        """Return one question of a run, answered or not."""
        if not isinstance(run, ExecutionRow):
            return run.get_interrupt(interrupt_id)

        for row in await self._rows(run.id, open_only=False):
            if row.id == interrupt_id:
                return {**row.record, "id": row.id, "schema": row.schema, "status": row.status}

        return None

    async def stored_questions(
        self, flow_name: str, visible: Callable[[str | None], bool], limit: int
    ) -> list[dict[str, Any]]:
        """Return what the runs of a flow ask, from the store, the longest open first."""
        client = self._given()

        seen: dict[str, bool] = {}

        def shown(row: InterruptRow) -> bool:
            if row.flow_name == flow_name and row.execution_id not in seen:
                execution = client.get_execution(row.execution_id)
                seen[row.execution_id] = execution is not None and visible(execution.tenant_id)

            return seen.get(row.execution_id, False)

        def look() -> list[dict[str, Any]]:
            size = limit
            while True:
                rows = client.list_interrupts(limit=size)
                found = list(islice(filter(shown, rows), limit))
                if len(found) == limit or len(rows) < size:
                    return [_shown_row(row) for row in found]

                size *= 8  # the oldest are other flows', or other tenants'

        return await asyncio.to_thread(look)

    async def _rows(self, execution_id: str, *, open_only: bool) -> list[InterruptRow]:
        client = self._given()
        return await asyncio.to_thread(client.list_interrupts, open_only=open_only, execution_id=execution_id)

    def _given(self) -> ControlClient:
        client = self._client()
        assert client is not None, "only a store has rows"
        return client

    # -- acting --------------------------------------------------------------------------------------------------

    async def answer(
        self,
        run: TriggerFlowExecution | ExecutionRow,
        interrupt_id: str,
        value: Any,
        caller: Caller,
        key: str | None = None,
    ) -> Answered:
        """Answer an interrupt; the first accepted answer wins, over any number of processes.

        Raises:
            InterruptNotFound, InterruptError: the run without a store refuses it.
        """
        if self._client() is not None or isinstance(run, ExecutionRow):
            return await self._ask("resume", run.id, interrupt_id, value, caller, key)

        interrupt = run.get_interrupt(interrupt_id)
        if interrupt is not None and interrupt["status"] != "waiting":
            outcome = "expired" if interrupt["status"] == "expired" else "conflict"
            return Answered(outcome, f"it is {interrupt['status']} already")

        record = run.continue_nowait(interrupt_id, value, actor=caller.user_id)
        return Answered("applied") if record is not None else Answered("rejected", "the run has ended")

    async def intervene(
        self, run: TriggerFlowExecution | ExecutionRow, asked: Mapping[str, Any], caller: Caller
    ) -> Answered:
        """Add an intervention: ``{"payload", "note"?, "target"?, "metadata"?}``.

        Raises:
            InterventionError: the run takes none, or not this one.
        """
        if self._client() is not None or isinstance(run, ExecutionRow):
            body = {"payload": asked["payload"], "note": asked.get("note"), "metadata": asked.get("metadata")}
            answered = await self._ask("intervene", run.id, asked.get("target"), body, caller, None)
            if answered.outcome == "rejected":
                raise InterventionError(answered.detail or f"run {run.id} refused it")

            return answered

        await run.async_intervene(
            asked["payload"],
            author=caller.user_id,
            note=asked.get("note"),
            target=asked.get("target"),
            metadata=asked.get("metadata"),
        )
        return Answered("applied")

    async def cancel(self, run: TriggerFlowExecution | ExecutionRow, reason: str | None, caller: Caller) -> Answered:
        """End a run: its handlers are stopped, its questions withdrawn."""
        if isinstance(run, ExecutionRow):
            return await self._ask("cancel", run.id, None, reason, caller, None)

        if run.is_closed():
            return Answered("conflict", f"the run is {run.get_status()} already")

        if self._client() is not None:
            return await self._ask("cancel", run.id, None, reason, caller, None)

        await run.async_cancel(reason=reason or f"cancelled by {caller.user_id or 'a client'}")
        return Answered("applied")

    async def _ask(
        self, kind: str, execution_id: str, target: str | None, payload: Any, caller: Caller, key: str | None
    ) -> Answered:
        client = self._given()

        def put_and_wait() -> AnswerResult:
            result = client.put_inbox(kind, execution_id, target, payload, caller.user_id, key)
            if result.outcome is None and result.row_id is not None:
                result = client.wait_outcome(result.row_id, APPLIED_SECONDS)

            return result

        result = await asyncio.to_thread(put_and_wait)
        return Answered(result.outcome or "accepted", result.detail)


def interrupts_of(execution: TriggerFlowExecution) -> list[dict[str, Any]]:
    """Return the open questions of a run in memory as a client may see them."""
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
