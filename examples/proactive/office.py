"""What the application owns: the task table, idempotency, tenants, and who has been told what.

Every trigger does the same three things: open a task (once per id), let its run go on, tell people how it stands. What
is told is the task's status, never an event that might have been lost: whoever comes by next tells what is untold.
"""

import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from flowdeck.errors import ExecutionBusy, InterruptError
from flowdeck.triggerflow import TriggerFlowExecution

from .flow import compensation, report

TABLE = """CREATE TABLE IF NOT EXISTS tasks (
    task_id PRIMARY KEY, tenant_id, topic, status, interrupt_id, result, changed, told, reminded DEFAULT 0)"""
COLUMNS = "task_id, tenant_id, topic, status, interrupt_id, result, changed, reminded"


@dataclass(frozen=True)
class Task:
    """One row. ``status``: new, waiting, completed, failed, cancelled. ``changed``: seconds since 1970."""

    task_id: str
    tenant_id: str | None
    topic: str
    status: str
    interrupt_id: str | None
    result: str | None
    changed: float
    reminded: int


Tell = Callable[[Task, str], Awaitable[None]]
"""Tells a person of a task: ``tell(task, "status")`` or ``tell(task, "reminder")``. Raises OSError when it cannot."""


class Office:
    """Opens tasks, continues them, and keeps people informed. Needs ``runtime.use_store(...)``."""

    def __init__(self, path: Path, tell: Tell, clock: Callable[[], float] = time.time) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute(TABLE)
        self._tell = tell
        self.clock = clock

    def tasks(self, where: str = "1", *values: object) -> list[Task]:
        """The rows of a condition."""
        return [Task(*row) for row in self._db.execute(f"SELECT {COLUMNS} FROM tasks WHERE {where}", values)]

    def task(self, task_id: str) -> Task | None:
        """One row: what a user who comes back is shown."""
        return next(iter(self.tasks("task_id = ?", task_id)), None)

    async def open_task(self, task_id: str, topic: str, tenant_id: str | None = None) -> bool:
        """Begin a task; asked again for the same id nothing happens twice. Returns whether it is new."""
        row = (task_id, tenant_id, topic, "new", None, None, self.clock())
        new = self._db.execute(f"INSERT OR IGNORE INTO tasks ({COLUMNS}) VALUES (?,?,?,?,?,?,?,0)", row).rowcount == 1
        task = self.task(task_id)
        if task is not None and task.status == "new":
            await self._keep(task, await self._run_of(task))

        return new

    async def continue_with(self, task_id: str, interrupt_id: str, value: object) -> None:
        """Hand on what a person answered. Whether that is allowed, and what follows, the flow says.

        Raises:
            InterruptError: it is answered already, or the answer does not fit.
        """
        task = self.task(task_id)
        if task is None:
            raise KeyError(f"no task {task_id!r}")

        execution = await self._run_of(task)
        if execution.is_closed() or await execution.async_continue_with(interrupt_id, value) is None:
            raise InterruptError("it has been answered, or has ended, already")

        await self._keep(task, execution)

    async def give_up(self, task: Task) -> None:
        """End the run of a task, and undo what it had prepared: a run of its own, once."""
        execution = await self._run_of(task)
        if not execution.is_closed():
            await execution.async_cancel(reason="nobody answered in time")

        undone = await compensation.async_start_execution(
            {"task_id": task.task_id}, start_key=task.task_id, task_id=task.task_id, tenant_id=task.tenant_id
        )
        await undone.async_close()
        await self._keep(task, execution)

    async def catch_up(self) -> None:
        """Make up for what was missed: begin the tasks whose opener died before it did, tell what is untold."""
        for task in self.tasks("status = 'new'"):
            try:
                await self._keep(task, await self._run_of(task))
            except ExecutionBusy:
                continue  # another process is beginning it just now

        await self._tell_untold()

    async def _tell_untold(self) -> None:
        """A channel that is down is asked again next time; one that dies while it is told is told again."""
        for task in self.tasks("told IS NOT status AND status != 'new'"):
            try:
                await self._tell(task, "status")
            except OSError:
                continue

            self._db.execute("UPDATE tasks SET told = ? WHERE task_id = ?", (task.status, task.task_id))

    async def remind(self, task: Task) -> None:
        """Say once that somebody is still waited for."""
        await self._tell(task, "reminder")
        self._db.execute("UPDATE tasks SET reminded = 1 WHERE task_id = ?", (task.task_id,))

    async def _run_of(self, task: Task) -> TriggerFlowExecution:
        """The run of a task: started once, found again ever after, also by another process."""
        return await report.async_start_execution(
            {"topic": task.topic}, start_key=task.task_id, timeout=0.0, task_id=task.task_id, tenant_id=task.tenant_id
        )

    async def _keep(self, task: Task, execution: TriggerFlowExecution) -> None:
        waiting = next(iter(execution.get_pending_interrupts()), None)
        state = {} if waiting else await execution.async_close()
        row = (execution.get_status(), waiting, state.get("report"), self.clock(), task.task_id)
        self._db.execute("UPDATE tasks SET status=?, interrupt_id=?, result=?, changed=? WHERE task_id=?", row)
        await self._tell_untold()
