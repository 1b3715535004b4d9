"""The branches of an execution as asyncio tasks: begun, waited for, stopped, left behind.

A branch begins when the core hands out a task, and its record says which asyncio task it is. Whoever awaits a signal or
an answer waits for an await-group, through a future that ends when the core says the group has resolved.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from flowdeck.events.lineage import RunContext
from flowdeck.execution.activity import NONE
from flowdeck.execution.core import Core
from flowdeck.execution.eager import schedule, start_now
from flowdeck.execution.observation import FlowEvents
from flowdeck.execution.routing import RESOLVED
from flowdeck.execution.services import Services
from flowdeck.execution.state import CANCELLING, Task

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution
    from flowdeck.execution.gate import Gate

__all__ = ["Branches", "caller"]

Caller = tuple["Branches", Task, int, Any]
caller: ContextVar[Caller | None] = ContextVar("flowdeck_caller", default=None)
"""The step that runs, while places are limited: driver, task, number of the activation, and the step around it."""


class Branches:
    """The branches of one execution, and who waits for them. :class:`~flowdeck.execution.driver.Driver` runs them."""

    __slots__ = (
        "_abandoned",
        "_at_once",
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

    if TYPE_CHECKING:  # supplied by the driver

        def _branch(self, task: Task | None) -> Coroutine[Any, Any, None]: ...

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
        self._at_once = 0
        """The group whose first branch runs within the call that waits for it: it may need no future."""
        self._live = 0
        self._abandoned: list[asyncio.Task[None]] | None = None  # thousands may be parked: what is rare is not there
        self._by_record: dict[int, asyncio.Task[None]] = NONE
        self._waiters: dict[int, asyncio.Future[None]] = NONE
        self._errors: dict[int, BaseException] | None = None
        self._idle_waiters: list[asyncio.Future[None]] | None = None
        self._random: random.Random | None = None
        self._rerun: set[int] | None = None
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
        if self._waiters is NONE:
            self._waiters = {}

        self._waiters[group] = future = loop.create_future()
        return future

    async def settle(self, group: int) -> None:
        """Carry out what the core commanded and wait until ``group`` has resolved.

        Raises whatever failed inside the group. Cancelling the caller cancels the group's handlers.
        """
        waiter = self.begin(group)
        if waiter is not None:
            await self.wait(group, waiter)

    def begin(self, group: int) -> asyncio.Future[None] | None:
        """Carry out what the core commanded. Returns what :meth:`wait` waits for, if ``group`` has not resolved yet.

        An execution at rest runs the one branch that begins within this call; most need no future then.

        Raises whatever failed inside the group, if it has resolved.
        """
        core = self.core
        if core.concurrency or core.plan.limited:
            self._lend(group)

        out = core.out
        if len(out) != 1 or self._live or self.closed or not isinstance(out[0], Task):
            waiter = self.waiter(group)
            self.drain()
            return waiter

        core.out = []
        if self.gate is not None:  # whoever takes the run away ends what is waited for
            waiter = self.waiter(group)
            self._spawn_now(out[0])
            return waiter

        self._at_once = group
        try:
            self._spawn_now(out[0])
        finally:
            unresolved, self._at_once = self._at_once, 0

        if unresolved:
            return self.waiter(group)

        error = self._errors.pop(group, None) if self._errors else None
        if error is not None:
            raise error

        return None

    async def wait(self, group: int, waiter: asyncio.Future[None]) -> None:
        """Wait for what :meth:`begin` returned."""
        try:
            await waiter
        except asyncio.CancelledError:
            if group in self.core.groups:
                if group in self._waiters:
                    del self._waiters[group]

                if self.gate is None:
                    self._cancel_group(group)
                elif self._caller_is_a_handler():  # a durable run does not end with whoever else waits for it
                    # Not at once: when the whole process stops, the handler ends in this turn, and nothing is told.
                    asyncio.get_running_loop().call_soon(self._cancel_group, group)

            raise

        if self.gate is not None:
            await self.gate.committed()

    def _lend(self, group: int) -> None:
        """If a handler is about to wait for a group that is not its own, others have its places meanwhile."""
        core = self.core
        awaited = core.groups.get(group)
        if awaited is None or awaited.parent or (core.guests and group in core.guests):
            return

        outer = caller.get()
        while outer is not None:
            driver, task, number, outer = outer
            if driver is self:
                if task.num == number and core.tasks.get(task.rec) is task:
                    core.lend(task, group)

                return

    def drain(self) -> None:
        """Carry out everything the core commanded."""
        if self.core.out:
            self._drain(None, keep=False)

    async def idle(self, besides: int = 0) -> None:
        """Return once at most ``besides`` branches are left."""
        while self.live > besides:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle_waiters = [*(self._idle_waiters or ()), waiter]
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
                self._abandoned = [*(self._abandoned or ()), branch]

            self.core.stopped(task)

        self.drain()
        return len(stuck)

    def leave(self, error: BaseException) -> None:
        """Stop every branch without telling the core: the run goes on elsewhere. Whoever waits here gets ``error``."""
        current = asyncio.current_task() if self.loop is not None and self.loop.is_running() else None
        for branch in list(self._by_record.values()):
            if branch is not current:
                branch.cancel()

        waiters, self._waiters = list(self._waiters.values()), NONE
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # nobody may be waiting any more

    def restart(self) -> None:
        """Run again what was running when the state was saved."""
        self._rerun = self.core.restart()
        self.drain()

    def runs_again(self, number: int, again: bool) -> None:
        """Say whether an activation repeats one that ran before a crash, and so must repeat its effects."""
        if again:
            self._rerun = {*(self._rerun or ()), number}
        elif self._rerun:
            self._rerun.discard(number)

    def keep_error(self, group: int, error: BaseException) -> None:
        """Keep the exception of the first member of ``group`` that failed, for whoever awaits the group."""
        if self._errors is None:
            self._errors = {}

        self._errors.setdefault(group, error)

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
        waiter = self._waiters.pop(group, None) if self._waiters else None
        error = self._errors.pop(group, None) if self._errors else None
        if group == self._at_once:
            self._at_once = 0
            if error is not None:
                self.keep_error(group, error)  # for who waits

        if error is not None and self.core.error is not None and self.failure is None:
            self.failure = error
            self.execution._on_failed(error)

        if waiter is not None and not waiter.done():
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
