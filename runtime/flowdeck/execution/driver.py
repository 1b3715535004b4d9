"""The driver: runs what the core commands, on plain asyncio.

One asyncio task per branch (:mod:`flowdeck.execution.branches`); a linear chain is a loop inside one. Nothing polls.
The order of one step:

1. the core hands out a :class:`Task`; ``chunk.started``;
2. the handler runs; its effects reach the core at once, through
   :class:`~flowdeck.execution.data.TriggerFlowRuntimeData`;
3. ``chunk.completed`` (or ``failed``); :meth:`Core.done` says what follows: the next step of the chain goes on in
   this loop, further branches get asyncio tasks of their own.
"""

from __future__ import annotations

import asyncio
import random
from contextvars import copy_context
from inspect import isawaitable
from typing import Any

from flowdeck.definition.plan import CHUNK, FOR_EACH, LAST_RUNNABLE, POINT, ROUTE, SUB_FLOW, PlanOp
from flowdeck.errors import HandlerDiverged, HandlerFailed, InterruptError
from flowdeck.events.ids import next_serial
from flowdeck.events.lineage import RunContext, current_run
from flowdeck.execution.activity import NONE
from flowdeck.execution.branches import Branches, caller
from flowdeck.execution.data import TriggerFlowRuntimeData
from flowdeck.execution.interventions_dispatch import admit
from flowdeck.execution.pausing import PauseSignal
from flowdeck.execution.state import CANCELLING, Task
from flowdeck.execution.step_events import StepEvents
from flowdeck.execution.sub_flow import run_sub_flow

__all__ = ["Driver"]

_set_run = current_run.set
_attempt = RunContext.attempt


class Driver(Branches, StepEvents):
    """Runs the branches of one execution."""

    __slots__ = ()

    async def _branch(self, task: Task | None) -> None:
        core = self.core
        ops = self.ops
        events = self.events
        started_type = events.chunk_started
        completed_type = events.chunk_completed
        parent = self.run
        parent_ids = parent._ids
        clock_ns = self.services.clock.monotonic_ns
        if self._by_record is NONE:
            self._by_record = {}

        by_record = self._by_record
        ledger = core.ledger
        gate = self.gate
        outer = caller.get()
        current = asyncio.current_task(self.loop)
        assert current is not None
        record = 0
        try:
            while task is not None:
                if task.rec != record:
                    by_record.pop(record, None)
                    record = task.rec
                    by_record[record] = current

                if task.status == CANCELLING:
                    core.stopped(task)
                    task = self._drain(None)
                    continue

                op = ops[task.op]
                if ledger is not None and not await admit(self, task, op):
                    task = self._drain(None)
                    continue

                if gate is not None and not await gate.enter(task, op):
                    task = self._drain(None)
                    continue

                if core.concurrency or core.plan.limited:
                    caller.set((self, task, task.num, outer))

                if op.kind != CHUNK:
                    task = await self._special(task, op)
                    continue

                # RunContext.attempt, without the call: every step makes one.
                run = RunContext("chunk_execution", next_serial(), parent, op.run_meta, parent_ids)
                _set_run(run)
                before = copy_context()
                data = TriggerFlowRuntimeData(self, task, op, run)
                observed = completed_type.sinks
                begun = 0
                if started_type.sinks or observed:
                    begun = clock_ns()
                    self._emit_started(task, op, run)

                try:
                    if op.timeout is None:
                        result = op.handler(data)
                        if op.is_async or isawaitable(result):
                            result = await result
                    else:
                        result = await self._with_timeout(op, data)

                    if data._pending is not None:
                        await data._settle_pending()

                    data._ended = True
                    if type(result) is PauseSignal and result.interrupt_id != task.interrupt:
                        self._check_signal(task, result)

                    if self._rerun and task.num in self._rerun:
                        core.check_rerun(task, data._seen_tags())

                    if gate is not None:
                        gate.prepare(task, result)
                except BaseException as exc:
                    task = await self._failed(task, op, run, data, exc, begun)
                    continue

                if observed:
                    self._emit_completed(task, op, run, result, begun)

                if copy_context() == before:
                    task = core.done(task, result)
                    if core.out:
                        task = self._drain(task)
                else:
                    # The handler set context variables: the next step must not see them.
                    task = core.done(task, result)
                    following = self._drain(task)
                    if following is not None:
                        self._spawn(following)

                    task = None
        finally:
            by_record.pop(record, None)
            self._live -= 1
            if self._idle_waiters:
                waiters, self._idle_waiters = self._idle_waiters, None
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(None)

            if not self._live:
                self._by_record = NONE  # an execution at rest gives the memory of its tables back
                if not self._waiters:
                    self._waiters = NONE

                if not core.groups:
                    core.groups = NONE

                self.execution._on_idle()

    def _check_signal(self, task: Task, result: PauseSignal) -> None:
        interrupt = self.core.interrupts.get(result.interrupt_id)
        if interrupt is None or interrupt.task != task.rec:
            raise InterruptError(
                f"chunk {self.ops[task.op].name!r} returned a pause signal that it did not get from its own "
                "data.pause_for(); a signal belongs to the chunk and the execution that raised it"
            )

        task.interrupt = interrupt.id

    async def _with_timeout(self, op: PlanOp, data: TriggerFlowRuntimeData) -> Any:
        try:
            async with self.services.clock.timeout(op.timeout) as limit:
                result = op.handler(data)
                return await result if isawaitable(result) else result
        except TimeoutError as exc:
            if limit.expired():
                raise TimeoutError(f"chunk {op.name!r} took longer than {op.timeout} s") from exc

            raise

    async def _special(self, task: Task, op: PlanOp) -> Task | None:
        """Run an operator that is no chunk: a match's conditions, an intervention point, a sub flow, a generator."""
        if op.kind == POINT:
            following = self.core.done(task, task.value)
            return self._drain(following)

        if op.kind == SUB_FLOW:
            return await run_sub_flow(self, task, op)

        if op.kind == FOR_EACH and (hasattr(task.value, "__next__") or hasattr(task.value, "__anext__")):
            return await self._materialise(task, op)

        if op.kind > LAST_RUNNABLE:  # an intervention had to be looked at first
            self.core.passed(task)
            return self._drain(None)

        assert op.kind == ROUTE, f"operator kind {op.operator_kind} has no driver"
        run = self.run
        _set_run(run)
        data = TriggerFlowRuntimeData(self, task, op, run)
        hits: list[int] = []
        try:
            for index, case in enumerate(op.cases):
                verdict = case.condition(data) if callable(case.condition) else case.condition == task.value
                if isawaitable(verdict):
                    verdict = await verdict

                if verdict is True or (callable(case.condition) and _equals(verdict, task.value)):
                    hits.append(index)
                    if not op.hits_all:
                        break
        except BaseException as exc:
            return await self._failed(task, op, _attempt(run, "chunk_execution", op.run_meta), data, exc, 0)

        self.core.routed(task, hits)
        return self._drain(None)

    async def _materialise(self, task: Task, op: PlanOp) -> Task | None:
        """Draw out the generator that reached a for_each: it is the user's code, so it runs, and may fail, here."""
        run = _attempt(self.run, "chunk_execution", op.run_meta)
        _set_run(run)
        try:
            source = task.value
            items = [item async for item in source] if hasattr(source, "__anext__") else list(source)
            if self.gate is not None:
                self.gate.check(task, items)
        except BaseException as exc:
            return await self._failed(task, op, run, TriggerFlowRuntimeData(self, task, op, run), exc, 0)

        self.core.materialised(task, items)
        return self._drain(None)

    async def _failed(
        self, task: Task, op: PlanOp, run: RunContext, data: TriggerFlowRuntimeData, exc: BaseException, begun: int
    ) -> Task | None:
        """A handler raised: try again, or fail the task and everything that awaits it."""
        core = self.core
        data._ended = True
        if self.gate is not None and self.gate.leaves(task, exc):
            return None  # what becomes of the run is told where it goes on

        if isinstance(exc, StopIteration):  # no future takes one, so whoever waits would wait for ever
            exc = _no_stop_iteration(op, exc)

        if isinstance(exc, asyncio.CancelledError):
            current = asyncio.current_task()
            if task.status == CANCELLING:
                if current is not None:
                    current.uncancel()

                self._emit_failed(task, op, run, exc, begun, None)
                core.stopped(task)
                return self._drain(None)

            if current is not None and current.cancelling():  # the loop is going down
                self._emit_failed(task, op, run, exc, begun, None)
                core.failed(task, "CancelledError", "the event loop was stopped")
                self.drain()
                raise exc

        delay = None
        if isinstance(exc, HandlerDiverged):
            self._tell_diverged(task, op, run, exc)
        elif op.retry is not None and isinstance(exc, Exception) and task.status != CANCELLING and not self.closed:
            delay = op.retry.delay(task.attempt, exc, self._chance)

        self._emit_failed(task, op, run, exc, begun, delay)
        if delay is not None:
            core.retry(task, 0 if self.gate is None else self.services.clock.time_us() + round(delay * 1e6))
            try:
                if delay > 0:
                    await self.services.clock.sleep(delay)
            except asyncio.CancelledError:
                current = asyncio.current_task()
                if task.status != CANCELLING:
                    raise

                if current is not None:
                    current.uncancel()

            return task if core.again(task) else self._drain(None)

        if not core.skip_exceptions:
            self.keep_error(task.group, exc)

        core.failed(task, type(exc).__name__, str(exc))
        following = self._drain(None)
        if isinstance(exc, KeyboardInterrupt | SystemExit):
            raise exc  # not ours to keep; any other goes to whoever awaits the branch

        return following

    def _chance(self) -> float:
        if self._random is None:
            self._random = random.Random()

        return self._random.random()

    def committed_failure(self, error_type: str, message: str) -> HandlerFailed:
        """The error of an awaited emit that had failed before the crash."""
        return HandlerFailed(f"{error_type}: {message}")


def _no_stop_iteration(op: PlanOp, exc: StopIteration) -> RuntimeError:
    """Return what an async handler that lets a ``StopIteration`` out raises anyway. Source: PEP 479."""
    error = RuntimeError(f"{op.operator_kind} {op.name!r} raised StopIteration: give next() a default, or catch it")
    error.__cause__ = exc
    return error


def _equals(verdict: Any, value: Any) -> bool:
    if isinstance(verdict, bool) or verdict is None:
        return False  # a plain "no"; comparing it with a boolean value would turn False into a hit

    try:
        return bool(verdict == value)
    except Exception:
        return False
