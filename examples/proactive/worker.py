"""A queue worker: jobs wait in a table until somebody has time. A worker that dies gives its job back."""

import sqlite3
import uuid
from pathlib import Path

from .office import Office

TABLE = "CREATE TABLE IF NOT EXISTS jobs (task_id PRIMARY KEY, topic, tries DEFAULT 0, until DEFAULT 0)"
LEASE = 60.0
TRIES = 3


class Queue:
    """A queue in SQLite, delivered at least once; the task's id makes that exactly once."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute(TABLE)

    def put(self, topic: str) -> str:
        """Add a job; returns its task's id."""
        task_id = f"job-{uuid.uuid4().hex}"
        self._db.execute("INSERT INTO jobs (task_id, topic) VALUES (?, ?)", (task_id, topic))
        return task_id

    def take(self, now: float) -> tuple[str, str] | None:
        """Take the oldest job that nobody has; it comes back when it is not done within the lease."""
        taken = """UPDATE jobs SET tries = tries + 1, until = ? WHERE rowid =
            (SELECT min(rowid) FROM jobs WHERE until < ? AND tries < ?) RETURNING task_id, topic"""
        return next(iter(self._db.execute(taken, (now + LEASE, now, TRIES)).fetchall()), None)

    def done(self, task_id: str) -> None:
        """Forget a job."""
        self._db.execute("DELETE FROM jobs WHERE task_id = ?", (task_id,))

    def dead(self) -> list[str]:
        """Jobs that failed too often, for a person."""
        return [row[0] for row in self._db.execute("SELECT task_id FROM jobs WHERE tries >= ?", (TRIES,))]


async def work_once(office: Office, queue: Queue) -> bool:
    """Do one job; tells whether there was one."""
    await office.catch_up()
    job = queue.take(office.clock())
    if job is None:
        return False

    await office.open_task(*job)
    queue.done(job[0])
    return True
