"""Pausing and continuing: how an execution asks the outside world and takes its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowdeck.errors import HiddenHandleError, InterruptError, InterruptExpired
from flowdeck.events.lineage import RunContext
from flowdeck.execution.activity import NONE
from flowdeck.execution.answering import ask
from flowdeck.execution.base import ExecutionBase
from flowdeck.execution.pausing import PauseSignal, checked_options
from flowdeck.execution.schema import check_value
from flowdeck.execution.state import Interrupt, Task
from flowdeck.execution.values import copy_value

__all__ = ["InterruptMixin"]


class InterruptMixin(ExecutionBase):
    """The part of an execution that waits for people and systems."""

    _timers: dict[str, asyncio.Task[None]] = NONE

    if TYPE_CHECKING:  # supplied by the other parts

        def _deliver_to_child(self, interrupt: Interrupt) -> None: ...
        async def _sub_flow_settled(self, interrupt: Interrupt) -> None: ...
        def _settled_row(
            self, row: int, target: str, actor: str | None, outcome: str, detail: str | None, value: Any
        ) -> None: ...
        def _on_idle(self) -> None: ...
        def _active(self) -> None: ...
        def _on_failed(self, error: BaseException) -> None: ...
        def _put_system(self, item: dict[str, Any]) -> None: ...
        def _put_interrupt(self, action: str, interrupt: Interrupt) -> None: ...

    # -- reading -------------------------------------------------------------------------------------------------

    def get_interrupt(self, interrupt_id: str) -> dict[str, Any] | None:
        """Return a copy of the record of an interrupt in any status, or ``None``."""
        interrupt = self._core.interrupts.get(interrupt_id)
        return self._record(interrupt) if interrupt is not None else None

    def get_pending_interrupts(self) -> dict[str, dict[str, Any]]:
        """Return copies of the records that wait for an answer, oldest first."""
        return {key: interrupt.record() for key, interrupt in self._core.open.items()}

    def _record(self, interrupt: Interrupt) -> dict[str, Any]:
        return interrupt.record()

    # -- pausing -------------------------------------------------------------------------------------------------

    def pause_for(
        self,
        *,
        type: str = "pause",
        payload: Any = None,
        resume_event: str | None = None,
        interrupt_id: str | None = None,
        resume_to: Any = None,
        schema: Any = None,
        expires_in: float | None = None,
        on_expire: Any = "cancel",
        assignees: list[str] | None = None,
    ) -> PauseSignal:
        """Open an interrupt outside any chunk; ``resume_to`` must name an event. In a chunk use ``data.pause_for``.

        Args:
            type: what kind of answer is asked for; the application decides by it how to show the question.
            payload: the question's details, JSON.
            interrupt_id: an id of your own; no other interrupt of the execution may wait under it.
            resume_to: ``"next"``, ``"self"`` or ``{"event": "Name"}``.
            schema: what the answer must look like: JSON Schema, or a pydantic model.
            expires_in: seconds until nobody may answer any more.
            on_expire: ``"cancel"`` ends the branch, ``"fail"`` fails the run, ``{"value": ...}`` goes on as if this
                had been the answer, ``{"event": "Name"}`` sends the branch there with ``None``.
            assignees: who is asked.

        Raises:
            InterruptError: an argument is not valid, or the id is taken.
            HiddenHandleError: nobody holds a handle that could continue the execution.
        """
        options = {
            "type": type,
            "payload": payload,
            "resume_event": resume_event,
            "interrupt_id": interrupt_id,
            "resume_to": resume_to,
            "schema": schema,
            "expires_in": expires_in,
            "on_expire": on_expire,
            "assignees": assignees,
        }
        signal = self._pause(None, "", self.run_context, options)
        self._on_idle()
        return signal

    async def async_pause_for(self, **options: Any) -> PauseSignal:
        """The same as :meth:`pause_for`."""
        self._bind()
        return self.pause_for(**options)

    def _pause(self, task: Task | None, tag: str, run: RunContext, options: Mapping[str, Any]) -> PauseSignal:
        kind = options["type"]
        if not self._handle_exposed:
            payload = {k: options[k] for k in ("type", "payload", "resume_event", "resume_to")}
            self._emit_event(self._events.interrupt_unhandled, payload, run=run)
            raise HiddenHandleError(
                f"flow {self._plan.flow_name!r} paused for {kind!r}, but this execution's handle is hidden, so nobody "
                "could continue it. Start it with flow.create_execution() or flow.start_execution(), find the "
                "interrupt with get_pending_interrupts() and answer it with continue_with()."
            )

        now = self._services.clock.time_us()
        interrupt, new = self._core.pause(task, tag, now, **checked_options(options, now))
        if new:
            self._announce(interrupt, "pause", run)

        return PauseSignal(interrupt)

    def _announce(self, interrupt: Interrupt, action: str, run: RunContext) -> None:
        """Tell everybody that an answer is wanted: observers, the stream's readers, the control plane.

        In a sub flow the record says under which id the question can be answered (``projected_as``), so that nobody
        takes one question for two.
        """
        self._waiting_announced = False
        event = self._events.interrupt_raised
        if event.sinks:
            record = self._record(interrupt)
            if self._link is not None:
                record["projected_as"] = self._link.root_id(interrupt.id)

            self._emit_event(
                event,
                {"interrupt": record},
                run=run,
                scope=interrupt.scope or None,
                seq=interrupt.seq,
                message=f"{interrupt.type}: waiting for an answer to {interrupt.id}",
            )

        self._put_interrupt(action, interrupt)
        if self._services.control is not None and self._observed and self._link is None:
            self._services.control.interrupt_opened(self.id, self._record(interrupt))

        if interrupt.expires_us is not None and interrupt.frame is None:  # a child keeps its own time
            self._arm(interrupt)

        if self._link is not None:
            self._link.parent._project(self._link.frame)

        if interrupt.id in self._core.early:
            self._take_early(interrupt.id)

        if self._services.answerer is not None:
            ask(self, interrupt)

    def _take_early(self, interrupt_id: str) -> None:
        """The answer came before the question: it counts now."""
        value, actor, row = self._core.take_early(interrupt_id)
        try:
            self._answer(interrupt_id, value, actor)
        except Exception as exc:  # it does not fit; the interrupt goes on waiting for one that does
            self._settled_row(row, interrupt_id, actor, "rejected", f"{type(exc).__name__}: {exc}", value)
        else:
            self._settled_row(row, interrupt_id, actor, "applied", "it had come early", value)

    # -- continuing ----------------------------------------------------------------------------------------------

    async def async_continue_with(
        self, interrupt_id: str, value: Any = None, *, actor: str | None = None
    ) -> dict[str, Any] | None:
        """Answer an interrupt and wait until the resumed branch has finished or paused again.

        Returns the record, or ``None`` (with a warning and an event) when the execution is sealed or closed.

        Raises:
            InterruptNotFound: no interrupt of that id.
            InterruptError: it is not waiting any more, or the value does not satisfy its schema.
            UnencodableValue: the value cannot be stored.
        """
        if self._lifecycle != "open":
            self._refuse_answer(interrupt_id)
            return None

        self._bind()
        interrupt, group, record = self._answer(interrupt_id, value, actor)
        await self._settle_answer(interrupt, group)
        return record

    def continue_nowait(
        self, interrupt_id: str, value: Any = None, *, actor: str | None = None
    ) -> dict[str, Any] | None:
        """Answer an interrupt and return at once, the resumed branch running. Needs the loop the execution lives on.

        Returns and raises what :meth:`async_continue_with` does, except for what the branch raises.
        """
        if self._lifecycle != "open":
            self._refuse_answer(interrupt_id)
            return None

        self._bind()
        _, _, record = self._answer(interrupt_id, value, actor)
        self._driver.drain()
        self._on_idle()
        return record

    async def _continue_from(
        self, task: Task, tag: str, interrupt_id: str, value: Any, actor: str | None
    ) -> dict[str, Any] | None:
        """The same, from a handler: ``tag`` says whether an earlier attempt of it gave this answer already."""
        known = task.tags.get(tag) if task.tags is not None else None
        if known is not None:
            interrupt = self._core.interrupts[interrupt_id]
            group, record = known[1], self._record(interrupt)
            if group not in self._core.groups:
                return record
        elif self._lifecycle != "open":
            self._refuse_answer(interrupt_id)
            return None
        else:
            interrupt, group, record = self._answer(interrupt_id, value, actor)

        self._core.lend(task, group, tag)
        await self._settle_answer(interrupt, group)
        return record

    async def _settle_answer(self, interrupt: Interrupt, group: int) -> None:
        try:
            waiter = self._driver.begin(group)
            if waiter is not None:
                await self._driver.wait(group, waiter)

            if interrupt.frame is not None:
                await self._sub_flow_settled(interrupt)
        finally:
            self._on_idle()

    def _refuse_answer(self, interrupt_id: str) -> None:
        self._warn(f"continue_with({interrupt_id!r}) refused, it is {self._lifecycle}")
        payload = {"lifecycle_state": self._lifecycle, "interrupt_id": interrupt_id}
        self._emit_event(self._events.continue_rejected, payload)

    def continue_with(self, interrupt_id: str, value: Any = None, *, actor: str | None = None) -> dict[str, Any] | None:
        """Synchronous twin of :meth:`async_continue_with`."""
        return self._sync(self.async_continue_with(interrupt_id, value, actor=actor))

    def _answer(self, interrupt_id: str, value: Any, actor: str | None) -> tuple[Interrupt, int, dict[str, Any]]:
        """Apply an answer. The caller must settle or drain.

        Returns the interrupt, the await-group that covers the resumed branch, and the record.
        """
        core = self._core
        interrupt = core.waiting(interrupt_id)
        if interrupt.schema is not None:
            problem = check_value(interrupt.schema, value)
            if problem:
                raise InterruptError(f"interrupt {interrupt_id!r}: the answer does not fit its schema: {problem}")

        copied = copy_value(value, "value")
        group = core.answer(interrupt_id, copied, self._services.clock.time_us(), actor)
        if self._timers:
            self._disarm(interrupt_id)

        event = self._events.execution_resumed
        if event.sinks:
            paused_at = interrupt.created_us / 1e6
            self._emit_event(
                event,
                {"interrupt_id": interrupt_id, "value": copied, "actor": actor, "paused_at": paused_at},
                scope=interrupt.scope or None,
                cause=interrupt.seq,
            )
        else:
            core.seq += 1

        self._put_interrupt("resume", interrupt)
        self._answered(interrupt)
        if interrupt.frame is not None:
            self._deliver_to_child(interrupt)

        return interrupt, group, interrupt.record()

    def _answered(self, interrupt: Interrupt) -> None:
        """What every answer leads to, however it came."""
        self._last_active_us = interrupt.resumed_us or self._last_active_us
        self._waiting_announced = False
        event = self._events.interrupt_answered
        if event.sinks:
            payload = {"interrupt_id": interrupt.id, "actor": interrupt.actor, "value": interrupt.response}
            self._emit_event(event, payload, scope=interrupt.scope or None, cause=interrupt.seq)
        else:
            self._core.seq += 1

        if self._link is not None or self._services.control is not None:
            self._closed_interrupt(interrupt)
            self._tell_control("running")

    def _closed_interrupt(self, interrupt: Interrupt) -> None:
        """An interrupt does not wait any more: tell the control plane, or the parent it was projected into."""
        if self._link is not None:
            self._link.parent._child_closed(self._link.frame, interrupt)
        elif self._services.control is not None and self._observed:
            self._services.control.interrupt_closed(
                self.id, interrupt.id, interrupt.status, interrupt.response, interrupt.actor
            )

    def _answered_by_emit(self, name: str, value: Any) -> None:
        """An event is about to be dispatched: interrupts that wait for it are answered by it.

        Raises:
            UnencodableValue: interrupts wait for it and the value cannot be stored as their answer.
        """
        waiting = self._core.answers_by_emit(name)
        if not waiting:
            return

        now = self._services.clock.time_us()
        copied = copy_value(value, "value")
        for interrupt in waiting:
            self._core.answered_by_emit(interrupt, copied, now)
            self._disarm(interrupt.id)

        records = [self._record(interrupt) for interrupt in waiting]
        payload = {"signal": self.get_last_signal() or {}, "interrupts": records}
        self._emit_event(self._events.execution_resumed, payload)
        for interrupt in waiting:
            self._put_interrupt("resume", interrupt)
            self._answered(interrupt)

    # -- expiry --------------------------------------------------------------------------------------------------

    def _arm(self, interrupt: Interrupt) -> None:
        """Start an interrupt's clock; before the execution has a loop it starts with the loop."""
        loop = self._driver.loop
        if loop is not None and interrupt.id not in self._timers:
            self._keep_timer(
                interrupt.id, loop.create_task(self._expire_later(interrupt.id, interrupt.expires_us or 0))
            )

    def _keep_timer(self, key: str, timer: asyncio.Task[None]) -> None:
        if self._timers is NONE:
            self._timers = {}

        self._timers[key] = timer

    def _arm_all(self) -> None:
        for interrupt in self._core.open_interrupts:
            if interrupt.expires_us is not None and interrupt.frame is None:
                self._arm(interrupt)

            if self._services.answerer is not None:
                ask(self, interrupt)

    def _disarm(self, interrupt_id: str) -> None:
        if interrupt_id in self._timers:
            self._timers.pop(interrupt_id).cancel()

    async def _expire_later(self, interrupt_id: str, due_us: int) -> None:
        clock = self._services.clock
        while (left := due_us - clock.time_us()) > 0:  # again, when the wall clock was set back meanwhile
            await clock.sleep(left / 1e6)

        if interrupt_id in self._timers:
            del self._timers[interrupt_id]

        interrupt = self._core.interrupts.get(interrupt_id)
        if interrupt is not None and interrupt.status == "waiting" and self._lifecycle != "closed":
            self._expire(interrupt)

    def _expire(self, interrupt: Interrupt) -> None:
        how = interrupt.on_expire
        failed_before = self._core.error is not None
        self._core.expire(interrupt.id, self._services.clock.time_us())
        self._active()
        self._waiting_announced = False
        self._tell_expired(interrupt)
        self._put_interrupt("expire", interrupt)
        self._closed_interrupt(interrupt)
        if isinstance(how, dict):
            self._tell_control("running")
        elif how == "fail" and not failed_before:
            error = InterruptExpired(f"interrupt {interrupt.id!r} ({interrupt.type}) expired unanswered")
            self._driver.failure = error
            self._on_failed(error)

        self._driver.drain()
        self._on_idle()

    def _tell_expired(self, interrupt: Interrupt) -> None:
        record = self._record(interrupt)
        payload = {"interrupt_id": interrupt.id, "interrupt": record, "on_expire": record["on_expire"]}
        self._emit_event(self._events.interrupt_expired, payload, scope=interrupt.scope or None, cause=interrupt.seq)
