"""The driver: runs what the core commands, on plain asyncio.

One asyncio task per branch; a linear chain is a loop inside one. Nothing polls. The order of one step:

1. the core hands out a :class:`Task`; ``chunk.started``;
2. the handler runs; its effects reach the core at once, through :class:`RuntimeData`;
3. ``chunk.completed`` (or ``failed``); :meth:`Core.done` says what follows: the next step of the chain goes on in
   this loop, further branches get asyncio tasks of their own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextvars import Context, copy_context
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from flowdeck.definition.plan import CHUNK, FOR_EACH, LAST_RUNNABLE, POINT, ROUTE, SUB_FLOW, PlanOp
from flowdeck.errors import HandlerDiverged, HandlerFailed, InterruptError
from flowdeck.events.lineage import RunContext, current_run
from flowdeck.execution.core import Core
from flowdeck.execution.data import PauseSignal, TriggerFlowRuntimeData
from flowdeck.execution.eager import schedule, start_now
from flowdeck.execution.interventions_dispatch import admit
from flowdeck.execution.observation import SOURCE, FlowEvents
from flowdeck.execution.routing import RESOLVED
from flowdeck.execution.services import Services
from flowdeck.execution.state import CANCELLING, Task
from flowdeck.execution.sub_flow import run_sub_flow

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution
    from flowdeck.execution.gate import Gate

__all__ = ["Driver"]

_set_run = current_run.set
_attempt = RunContext.attempt


class Driver:
    """Runs the branches of one execution."""

    __slots__ = (
        "_abandoned",
        "_by_record",
        "_context",
        "_errors",
        "_idle_waiters",
        "_live",
        "_random",
        "_rerun",
        "_waiters",
        "closed",
        "core",
        "events",
        "execution",
        "failure",
        "gate",
        "loop",
        "ops",
        "run",
        "services",
    )

    def __init__(
        self, execution: TriggerFlowExecution, core: Core, services: Services, events: FlowEvents, run: RunContext
    ) -> None:
        self.execution = execution
        self.core = core
        self.ops = core.ops
        self.services = services
        self.events = events
        self.run = run
        self.loop: asyncio.AbstractEventLoop | None = None
        self.failure: BaseException | None = None
        """The first error nobody caught."""
        self.closed = False
        self.gate: Gate | None = None
        """The way to a durable execution's input log: no handler starts before what led to it is committed."""
        self._context: Context | None = None
        self._live = 0
        self._abandoned: list[asyncio.Task[None]] = []
        self._by_record: dict[int, asyncio.Task[None]] = {}
        self._waiters: dict[int, asyncio.Future[None]] = {}
        self._errors: dict[int, BaseException] = {}
        self._idle_waiters: list[asyncio.Future[None]] = []
        self._random: random.Random | None = None
        self._rerun: set[int] = set()
        """Activations that ran before a crash and run again."""

    # -- what the execution asks ---------------------------------------------------------------------------------

    @property
    def live(self) -> int:
        """Branches that exist as asyncio tasks, without those that were left behind."""
        if not self._abandoned:
            return self._live

        return self._live - sum(not branch.done() for branch in self._abandoned)

    def bind(self) -> None:
        """Remember the loop and the context variables branches start with."""
        if self._context is None:
            self.loop = asyncio.get_running_loop()
            self._context = copy_context()
            enter = self.services.center.enter_run
            if enter is not None:
                self._context.run(enter, self.run)

    def waiter(self, group: int) -> asyncio.Future[None]:
        """Return a future that ends with the group. Register before :meth:`drain`, or the end may be missed."""
        loop = self.loop or asyncio.get_running_loop()
        self._waiters[group] = future = loop.create_future()
        return future

    async def settle(self, group: int) -> None:
        """Carry out what the core commanded and wait until ``group`` has resolved.

        Raises whatever failed inside the group. Cancelling the caller cancels the group's handlers.
        """
        waiter = self.waiter(group)
        out = self.core.out
        if len(out) == 1 and not self._live and isinstance(out[0], Task) and not self.closed:
            self.core.out = []
            self._spawn_now(out[0])
        else:
            self.drain()

        try:
            await waiter
        except asyncio.CancelledError:
            if group in self.core.groups:
                self._waiters.pop(group, None)
                if self.gate is None:
                    self._cancel_group(group)
                elif self._caller_is_a_handler():  # a durable run does not end with whoever else waits for it
                    # Not at once: when the whole process stops, the handler ends in this turn, and nothing is told.
                    asyncio.get_running_loop().call_soon(self._cancel_group, group)

            raise

        if self.gate is not None:
            await self.gate.committed()

    def drain(self) -> None:
        """Carry out everything the core commanded."""
        if self.core.out:
            self._drain(None, keep=False)

    async def idle(self, besides: int = 0) -> None:
        """Return once at most ``besides`` branches are left."""
        while self.live > besides:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle_waiters.append(waiter)
            await waiter

    def abandon(self) -> int:
        """Count handlers that were told to stop and did not as stopped. Returns how many.

        Whoever awaits them goes on; what they still do reaches nobody.
        """
        stuck = [task for task in self.core.tasks.values() if task.status == CANCELLING]
        current = asyncio.current_task()
        for task in stuck:
            branch = self._by_record.get(task.rec)
            if branch is not None and branch is not current:
                self._abandoned.append(branch)

            self.core.stopped(task)

        self.drain()
        return len(stuck)

    def leave(self, error: BaseException) -> None:
        """Stop every branch without telling the core: the run goes on elsewhere. Whoever waits here gets ``error``."""
        current = asyncio.current_task() if self.loop is not None and self.loop.is_running() else None
        for branch in list(self._by_record.values()):
            if branch is not current:
                branch.cancel()

        waiters, self._waiters = list(self._waiters.values()), {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # nobody may be waiting any more

    def restart(self) -> None:
        """Run again what was running when the state was saved."""
        self._rerun = self.core.restart()
        self.drain()

    def own_records(self) -> list[int]:
        """Return the records the calling handler holds up: its own, and those that await it or run it in a sub flow."""
        current = asyncio.current_task()
        record = next((rec for rec, each in self._by_record.items() if each is current), 0)
        if not record:
            record = self.execution._record_of_caller()

        own: list[int] = []
        while record:
            own.append(record)
            task = self.core.tasks.get(record)
            group = self.core.groups.get(task.group) if task is not None else None
            record = group.parent if group is not None else 0

        return own

    def _cancel_group(self, group: int) -> None:
        if group in self.core.groups and (self.gate is None or self.gate.error is None):
            self.core.cancel_group(group)
            self.drain()

    def _caller_is_a_handler(self) -> bool:
        current = asyncio.current_task()
        return any(each is current for each in self._by_record.values())

    def own_branches(self) -> int:
        """How many branches the calling handler holds up."""
        return len(self.own_records())

    # -- branches ------------------------------------------------------------------------------------------------

    def _spawn(self, task: Task) -> None:
        loop = self.loop
        assert loop is not None and self._context is not None
        self._live += 1
        # The loop refers to a task until its first step, `_by_record` from then on: no done-callback is needed,
        # which would cost a turn of the loop for every branch.
        schedule(self._branch(task), loop, self._context.copy())

    def _spawn_now(self, task: Task) -> None:
        """The execution is at rest and one branch begins: it runs within the call that caused it."""
        loop = self.loop
        assert loop is not None and self._context is not None
        self._live += 1
        start_now(self._branch(task), loop, self._context.copy())

    def _drain(self, task: Task | None, keep: bool = True) -> Task | None:
        """Carry out commands. Returns the task the calling branch goes on with, if it can ``keep`` one."""
        core = self.core
        while core.out:
            commands = core.out
            core.out = []
            for command in commands:
                if isinstance(command, Task):
                    if self.closed:
                        core.stopped(command)
                    elif keep and task is None:
                        task = command
                    else:
                        self._spawn(command)
                elif command[0] is RESOLVED:
                    self._resolved(command[1])
                else:
                    branch = self._by_record.get(command[1])
                    if branch is not None:
                        branch.cancel()

        return task

    def _resolved(self, group: int) -> None:
        waiter = self._waiters.pop(group, None)
        error = self._errors.pop(group, None)
        if error is not None and self.core.error is not None and self.failure is None:
            self.failure = error
            self.execution._on_failed(error)

        if waiter is not None and not waiter.done():
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    async def _branch(self, task: Task | None) -> None:
        core = self.core
        ops = self.ops
        events = self.events
        started_type = events.chunk_started
        completed_type = events.chunk_completed
        parent = self.run
        clock_ns = self.services.clock.monotonic_ns
        by_record = self._by_record
        ledger = core.ledger
        gate = self.gate
        current = asyncio.current_task()
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

                if op.kind != CHUNK:
                    task = await self._special(task, op)
                    continue

                run = _attempt(parent, "chunk_execution", op.run_meta)
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

                    if type(result) is PauseSignal:
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
                waiters, self._idle_waiters = self._idle_waiters, []
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(None)

            if not self._live:
                for table in (by_record, self._waiters, core.groups):
                    if not table:
                        table.clear()  # an execution at rest gives the memory of its tables back

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
            self._errors.setdefault(task.group, exc)

        core.failed(task, type(exc).__name__, str(exc))
        following = self._drain(None)
        if not isinstance(exc, Exception) and not isinstance(exc, asyncio.CancelledError):
            raise exc  # KeyboardInterrupt and SystemExit are not ours to keep

        return following

    def _chance(self) -> float:
        if self._random is None:
            self._random = random.Random()

        return self._random.random()

    def committed_failure(self, error_type: str, message: str) -> HandlerFailed:
        """The error of an awaited emit that had failed before the crash."""
        return HandlerFailed(f"{error_type}: {message}")

    # -- events --------------------------------------------------------------------------------------------------

    def _emit_started(self, task: Task, op: PlanOp, run: RunContext) -> None:
        event = self.events.chunk_started
        if event.sinks:
            event.emit(
                {"signal_id": f"s{task.sig}", "status": "running", "input": task.value, "signal_source": task.source},
                op.fragment,
                run,
                self.execution._epoch,
                task.seq,
                0,
                self.core.scope(task),
                task.cause,
                task.attempt,
                None,
                None,
                None,
                None,
                SOURCE,
            )

    def _emit_completed(self, task: Task, op: PlanOp, run: RunContext, result: Any, begun: int) -> None:
        paused = task.interrupt is not None
        payload = {
            "signal_id": f"s{task.sig}",
            "status": "waiting" if paused else "completed",
            "output": None if paused else result,
            "returned_pause_signal": paused,
        }
        self.events.chunk_completed.emit(
            payload,
            op.fragment,
            run,
            self.execution._epoch,
            self.core.seq + 1,
            0,
            self.core.scope(task),
            task.seq,
            task.attempt,
            (self.services.clock.monotonic_ns() - begun) // 1000,
            None,
            None,
            None,
            SOURCE,
        )

    def _tell_diverged(self, task: Task, op: PlanOp, run: RunContext, exc: HandlerDiverged) -> None:
        payload = {"chunk_id": op.id, "chunk_name": op.name, "scope": self.core.scope(task)}
        self.execution._emit_event(self.events.handler_diverged, payload, run=run, message=str(exc), error=exc)

    def _emit_failed(
        self, task: Task, op: PlanOp, run: RunContext, exc: BaseException, begun: int, delay: float | None
    ) -> None:
        event = self.events.chunk_failed
        if not event.sinks:
            return

        propagated = getattr(exc, "_flowdeck_origin", None)
        if propagated is None:
            try:
                exc._flowdeck_origin = run.run_id  # type: ignore[attr-defined]
            except AttributeError:
                pass  # an exception with slots: its propagation cannot be told apart

        payload = {
            "signal_id": f"s{task.sig}",
            "status": "cancelled" if task.status == CANCELLING else "failed",
            "will_retry": delay is not None,
            "retry_delay_s": delay,
            "propagated_from": propagated,
        }
        event.emit(
            payload,
            op.fragment,
            run,
            self.execution._epoch,
            self.core.seq + 1,
            0,
            self.core.scope(task),
            task.seq,
            task.attempt,
            (self.services.clock.monotonic_ns() - begun) // 1000 if begun else None,
            f"chunk {op.name!r} failed: {type(exc).__name__}: {exc}"[:500],
            exc if propagated is None else _without_traceback(exc),
            None,
            SOURCE,
        )


def _no_stop_iteration(op: PlanOp, exc: StopIteration) -> RuntimeError:
    """Return what an async handler that lets a ``StopIteration`` out raises anyway. Source: PEP 479."""
    error = RuntimeError(f"{op.operator_kind} {op.name!r} raised StopIteration: give next() a default, or catch it")
    error.__cause__ = exc
    return error


def _without_traceback(exc: BaseException) -> dict[str, Any]:
    """Describe an error that came from a chunk further in: that chunk's event has the traceback.

    Each level adds frames, so through a thousand nested emits formatting them all would take minutes.
    """
    return {"type": type(exc).__name__, "message": str(exc), "module": type(exc).__module__}


def _equals(verdict: Any, value: Any) -> bool:
    if isinstance(verdict, bool) or verdict is None:
        return False  # a plain "no"; comparing it with a boolean value would turn False into a hit

    try:
        return bool(verdict == value)
    except Exception:
        return False


Handler = Callable[[TriggerFlowRuntimeData], Any]
