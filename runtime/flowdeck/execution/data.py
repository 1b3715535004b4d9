"""What a handler is given: its input, the state, and every effect it can have.

One object a step, with slots and ordinary methods; nothing is built until it is asked for. Each effect is an input to
the core the moment it is called, tagged ``(task, kind, key, nth)``, so that a re-run after a crash finds what was
committed instead of doing it twice.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flowdeck.errors import InterruptError, MissingResource
from flowdeck.events.lineage import RunContext
from flowdeck.execution.core import CommittedFailure
from flowdeck.execution.final_result import FinalResultScope
from flowdeck.execution.interventions_view import InterventionScope
from flowdeck.execution.older_names import LANES, OlderDataNames, ignored
from flowdeck.execution.pausing import PauseSignal, Resume
from flowdeck.execution.port_scope import PortScope
from flowdeck.execution.scopes import FlowStateView, StateScope, StateView

if TYPE_CHECKING:
    from flowdeck.definition.plan import PlanOp
    from flowdeck.definition.settings import Settings
    from flowdeck.execution.driver import Driver
    from flowdeck.execution.execution import TriggerFlowExecution
    from flowdeck.execution.state import Task

__all__ = ["FlowStateView", "StateView", "TriggerFlowRuntimeData", "check_event_name"]


def check_event_name(event: Any) -> None:
    """Refuse what is no name of an event.

    Raises:
        TypeError: it is no text, or empty.
    """
    if not isinstance(event, str) or not event:
        raise TypeError(f"emit() takes the name of an event, got {event!r}")


class TriggerFlowRuntimeData(StateScope, PortScope, InterventionScope, FinalResultScope, OlderDataNames):
    """The data object passed to every handler. Source: the compatible API's runtime data."""

    __slots__ = ("_driver", "_ended", "_nth", "_op", "_pending", "_task", "run", "value")

    def __init__(self, driver: Driver, task: Task, op: PlanOp, run: RunContext) -> None:
        self._driver = driver
        self._task = task
        self._op = op
        self.run = run
        """The lineage of this attempt."""
        self.value = task.value
        self._nth: dict[str, int] | None = None
        self._pending: list[int] | None = None
        self._random = None
        self._ended = False
        """The handler has returned or raised."""

    @property
    def _over(self) -> bool:
        """The handler has ended or was left behind. What still runs has effects, but from outside any chunk."""
        if self._ended or not self._driver._abandoned:
            return self._ended

        return self._driver.core.tasks.get(self._task.rec) is not self._task

    # -- what triggered it ---------------------------------------------------------------------------------------

    @property
    def input(self) -> Any:
        """The value that reached the chunk."""
        return self.value

    @input.setter
    def input(self, value: Any) -> None:
        self.value = value

    inputs = input

    @property
    def trigger_event(self) -> str:
        return self._task.event

    event = trigger_event

    @property
    def trigger_type(self) -> str:
        return self._task.type

    type = trigger_type

    @property
    def signal_id(self) -> str:
        return f"s{self._task.sig}"

    @property
    def signal_source(self) -> str:
        return self._task.source

    @property
    def signal_meta(self) -> dict[str, Any]:
        """A copy of the signal's metadata; carries ``resume`` when the chunk was resumed."""
        resume = self.resume
        return {"interrupt_id": resume.interrupt_id, "resume": resume.to_dict()} if self.is_resume else {}

    @property
    def execution(self) -> TriggerFlowExecution:
        return self._driver.execution

    @property
    def execution_id(self) -> str:
        return self._driver.core.execution_id

    @property
    def settings(self) -> Settings:
        """The execution's settings, over its flow's and the runtime's."""
        return self.execution.settings

    @property
    def chunk_run_context(self) -> RunContext:
        return self.run

    @property
    def attempt(self) -> int:
        """Which try this is, from 1."""
        return self._task.attempt

    @property
    def scope(self) -> str:
        """The place of this chunk in the run: ``for_each[3]/classify``; the same over attempts."""
        return self._driver.core.scope(self._task)

    @property
    def idempotency_key(self) -> str:
        """Constant over attempts and recoveries of this activation; hand it to whatever must not happen twice."""
        return f"{self.execution_id}:t{self._task.num}"

    # -- resume --------------------------------------------------------------------------------------------------

    @property
    def is_resume(self) -> bool:
        """Whether the chunk runs because an interrupt was answered."""
        return self._task.resume is not None

    @property
    def resume(self) -> Resume:
        """The answer it runs with."""
        interrupt = self._driver.core.interrupts.get(self._task.resume or "")
        return Resume(interrupt.record() if interrupt is not None else None)

    # -- emit ----------------------------------------------------------------------------------------------------

    async def async_emit(self, event: str, value: Any = None, _layer_marks: Any = None) -> None:
        """Emit a signal and wait until every handler in its subtree has finished or paused.

        Raises:
            EmitDepthExceeded: awaited emits are nested more than 1,000 deep.
        """
        if _layer_marks is not None:
            ignored("_layer_marks=", LANES)

        group = self._emit(event, value, awaited=True)
        if group:
            await self._driver.settle(group)

    def emit_nowait(self, event: str, value: Any = None, _layer_marks: Any = None) -> None:
        """Emit a signal and go on; the execution stays active until its handlers have ended."""
        if _layer_marks is not None:
            ignored("_layer_marks=", LANES)

        if self._elsewhere():
            self._call_soon(self._emit_and_drain, event, value)
        else:
            self._emit_and_drain(event, value)

    async def async_emit_nowait(self, event: str, value: Any = None, _layer_marks: Any = None) -> None:
        """The same as :meth:`emit_nowait`."""
        self.emit_nowait(event, value, _layer_marks)

    def emit(self, event: str, value: Any = None, _layer_marks: Any = None) -> None:
        """Emit a signal from a synchronous handler.

        In a worker thread it waits like :meth:`async_emit`. On the event loop it cannot block; there the chunk itself
        does not complete before the signal's handlers have.
        """
        if _layer_marks is not None:
            ignored("_layer_marks=", LANES)

        if self._elsewhere():
            self._run_on_loop(self.async_emit(event, value))
            return

        self._later(self._emit(event, value, awaited=True))

    def _emit(self, event: str, value: Any, awaited: bool, kind: str = "event") -> int:
        check_event_name(event)
        driver = self._driver
        if self._over:
            return driver.execution._emit_late(event, value, kind)

        tag = self._tag("e", event)
        tags = self._task.tags
        if tags is None or tag not in tags:
            driver.execution._signalled(event, value, "chunk", kind, self.run)
            if driver.core.open and kind == "event":
                driver.execution._answered_by_emit(event, value)

        try:
            return driver.core.emit(self._task, tag, event, value, awaited, kind)
        except CommittedFailure as failure:
            raise driver.committed_failure(failure.type, failure.message) from None

    def _emit_and_drain(self, event: str, value: Any) -> None:
        self._emit(event, value, awaited=False)
        self._driver.drain()

    # -- resources -----------------------------------------------------------------------------------------------

    @property
    def resources(self) -> Mapping[str, Any]:
        """The execution's live objects, read-only."""
        return MappingProxyType(self.execution._own_resources())

    def get_resource(self, key: str, default: Any = None) -> Any:
        return self.execution._resources.get(key, default)

    def require_resource(self, key: str) -> Any:
        """Return a live object that was injected.

        Raises:
            MissingResource: nobody injected it; the message lists what there is.
        """
        try:
            return self.execution._resources[key]
        except KeyError:
            there = ", ".join(sorted(self.execution._resources)) or "none"
            raise MissingResource(
                f"runtime resource {key!r} was not injected (there are: {there}); "
                f"pass runtime_resources={{{key!r}: ...}} to create_execution() or load()"
            ) from None

    def set_resource(self, key: str, value: Any) -> None:
        self.execution._own_resources()[key] = value

    def del_resource(self, key: str) -> None:
        self.execution._own_resources().pop(key, None)

    # -- runtime stream ------------------------------------------------------------------------------------------

    async def async_put_into_stream(self, item: Any) -> None:
        """Put a product event on the runtime stream."""
        self.put_into_stream(item)

    def put_into_stream(self, item: Any) -> None:
        """Put a product event on the runtime stream."""
        if self._elsewhere():
            self.execution._check_item(item, None, self.run)  # here, where the chunk can be told
            self._call_soon(self._put, item)
        else:
            self._put(item)

    async_put = async_put_into_stream
    put = put_into_stream

    def _put(self, item: Any) -> None:
        if self._commit("u", "", item):
            self.execution._put(item, self.run)

    def stop_stream(self) -> None:
        """End the runtime stream."""
        self.execution.stop_stream()

    async def async_stop_stream(self) -> None:
        self.execution.stop_stream()

    # -- pause ---------------------------------------------------------------------------------------------------

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
        """Open an interrupt; the chunk must return what this returns. See :meth:`TriggerFlowExecution.pause_for`."""
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
        if self._elsewhere():
            signal: PauseSignal = self._run_on_loop(self.async_pause_for(**options))
            return signal

        if self._over:
            raise InterruptError(f"chunk {self._op.name!r} has ended, so nothing of it can pause any more")

        tag = sys.intern(self._tag("p", str(type)))  # thousands of executions wait with the same one
        return self._driver.execution._pause(self._task, tag, self.run, options)

    async def async_pause_for(self, **options: Any) -> PauseSignal:
        """The same as :meth:`pause_for`."""
        return self.pause_for(**options)

    async def async_continue_with(self, interrupt_id: str, value: Any = None, *, actor: str | None = None) -> Any:
        """Answer another branch's interrupt and wait until that branch has finished or paused again.

        A chunk that runs again, after a crash or as a retry, finds the answer it gave and waits for what came of it.
        """
        if self._over:
            return await self.execution.async_continue_with(interrupt_id, value, actor=actor)

        return await self.execution._continue_from(self._task, self._tag("r", interrupt_id), interrupt_id, value, actor)

    def continue_with(self, interrupt_id: str, value: Any = None, *, actor: str | None = None) -> Any:
        """Answer another branch's interrupt from a worker thread."""
        return self._run_on_loop(self.async_continue_with(interrupt_id, value, actor=actor))

    def get_status(self) -> str:
        return self.execution.get_status()

    def is_waiting(self) -> bool:
        return self.execution.is_waiting()

    def get_interrupt(self, interrupt_id: str) -> dict[str, Any] | None:
        return self.execution.get_interrupt(interrupt_id)

    def get_pending_interrupts(self) -> dict[str, dict[str, Any]]:
        return self.execution.get_pending_interrupts()

    # -- inner ---------------------------------------------------------------------------------------------------

    def _count(self, key: str) -> int:
        counts = self._nth
        if counts is None:
            counts = self._nth = {}

        nth = counts.get(key, 0)
        counts[key] = nth + 1
        return nth

    def _tag(self, kind: str, key: str) -> str:
        return f"{kind}:{key}:{self._count(kind + key)}"

    def _commit(self, kind: str, key: str, value: Any) -> bool:
        """Commit an effect under its tag. Returns ``False`` when an earlier attempt committed it already."""
        return self._over or self._driver.core.mark(self._task, self._tag(kind, key), value)

    def _seen_tags(self) -> set[str]:
        return {f"{key[0]}:{key[1:]}:{i}" for key, n in (self._nth or {}).items() for i in range(n)}

    def _later(self, group: int) -> None:
        """Let the chunk's completion wait for ``group``."""
        if self._over:
            self._driver.drain()
        elif group:
            if self._pending is None:
                self._pending = []

            self._pending.append(group)

    async def _settle_pending(self) -> None:
        pending, self._pending = self._pending or [], None
        waiters = [self._driver.waiter(group) for group in pending if group in self._driver.core.groups]
        self._driver.drain()
        for waiter in waiters:
            await waiter

    def _elsewhere(self) -> bool:
        """Whether the caller is in another thread than the execution's loop."""
        return self._driver.execution._thread != threading.get_ident()

    def _call_soon(self, fn: Callable[..., None], *args: Any) -> None:
        assert self._driver.loop is not None
        self._driver.loop.call_soon_threadsafe(fn, *args)

    def _run_on_loop(self, coroutine: Any) -> Any:
        assert self._driver.loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._driver.loop).result()
