"""The job a scheduler, a queue or a webhook triggers. It owns the task: whose it is, whether it is done, its result.

The flow knows nothing of schedules. A request handler never waits for the job; it reads the task table. A process that
dies leaves its task running: ``examples/proactive`` has owners that take such tasks up again.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .flow import flow, product_of


class Tasks:
    """The application's task table."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("CREATE TABLE IF NOT EXISTS tasks (task_id PRIMARY KEY, execution_id, status, report)")

    def claim(self, task_id: str, execution_id: str) -> bool:
        """Take a task that is new, or has failed; false when somebody has it, or it is done."""
        taken = """INSERT INTO tasks VALUES (?, ?, 'running', NULL) ON CONFLICT DO UPDATE
            SET execution_id = excluded.execution_id, status = 'running' WHERE status = 'failed'"""
        return self._db.execute(taken, (task_id, execution_id)).rowcount == 1

    def finish(self, task_id: str, status: str, report: str | None) -> None:
        self._db.execute("UPDATE tasks SET status = ?, report = ? WHERE task_id = ?", (status, report, task_id))

    def get(self, task_id: str) -> dict | None:
        """What a user who comes back later is shown."""
        found = self._db.execute("SELECT execution_id, status, report FROM tasks WHERE task_id = ?", (task_id,))
        row = found.fetchone()
        return dict(zip(("execution_id", "status", "report"), row, strict=True)) if row else None


async def run_daily_report(task_id: str, tasks: Tasks, notify: Callable[[dict], None]) -> None:
    """Write the report of one day, once; ``notify`` gets its product events."""
    execution = flow.create_execution(auto_close_timeout=0, task_id=task_id)
    if not tasks.claim(task_id, execution.id):
        flow.remove_execution(execution)
        return

    status, state = "failed", {}
    try:
        running = asyncio.create_task(execution.async_start({"task_id": task_id}))
        async for event in product_of(task_id).follow(execution):
            with suppress(ConnectionError):  # who has left reads the task table when coming back
                notify(event.model_dump(exclude_none=True))

        state, status = await running, "completed"
    finally:
        tasks.finish(task_id, status, state.get("report"))  # of the final state, never of what was streamed
