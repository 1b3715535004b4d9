"""Changes on their way into ``state.db``: merged by what they are about, written in one transaction.

An execution that opens and finishes between two commits is one INSERT, and a batch that could not be written (the file
was locked, the disk full) takes the newer changes in instead of growing with time. Of two changes to one thing the
later wins.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = [
    "TERMINAL",
    "Ack",
    "Batch",
    "Change",
    "InterruptClosed",
    "InterruptOpened",
    "Opened",
    "StatusChanged",
]

TERMINAL = frozenset({"completed", "failed", "cancelled"})
"""Statuses that end an execution."""

INFO_COLUMNS = (
    "flow_name",
    "entrypoint",
    "definition",
    "run_id",
    "root_run_id",
    "parent_execution_id",
    "task_id",
    "tenant_id",
    "user_id",
)


class Opened(NamedTuple):
    """An execution began, or was loaded again. ``info`` is the caller's mapping; ``us`` when it was said.

    ``handle`` travels along to whoever acts on the commit.
    """

    execution_id: str
    writer: str
    info: dict[str, Any]
    us: int
    handle: Any


class StatusChanged(NamedTuple):
    """An execution reached ``status``. A terminal one closes what it still had open."""

    execution_id: str
    writer: str
    status: str
    us: int


class InterruptOpened(NamedTuple):
    """An interrupt waits for an answer. ``record`` is JSON."""

    execution_id: str
    interrupt_id: str
    type: str
    record: str
    expires_us: int | None
    us: int


class InterruptClosed(NamedTuple):
    """An interrupt is answered, cancelled or expired. ``response`` is JSON."""

    execution_id: str
    interrupt_id: str
    status: str
    response: str
    actor: str | None
    us: int


class Ack(NamedTuple):
    """The owner's verdict on an inbox row."""

    row_id: int
    outcome: str
    detail: str | None
    us: int


Change = Opened | StatusChanged | InterruptOpened | InterruptClosed | Ack


class Batch:
    """Changes merged by execution, interrupt and inbox row.

    Where merging would lose the order (something is opened again after it was closed), a new part begins; parts are
    written one after the other in the same transaction.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts = [_Part()]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def add(self, change: Change) -> None:
        """Merge one change; it is newer than all that were added before."""
        part = self._parts[-1]
        if type(change) is not StatusChanged and part.must_precede(change):
            part = _Part()
            self._parts.append(part)

        part.add(change)

    def changes(self) -> Iterator[Change]:
        """Yield what was merged, in an order in which each change may be written alone."""
        for part in self._parts:
            yield from part.changes()

    def still_open(self) -> list[Any]:
        """Return the handles of the executions that this batch opens and does not end."""
        return [handle for part in self._parts for handle in part.still_open()]

    def write(self, connection: sqlite3.Connection) -> int:
        """Write everything in one transaction and return how many changes another owner fenced out.

        Raises:
            sqlite3.Error: Nothing of the batch was written.
        """
        connection.execute("BEGIN IMMEDIATE")
        try:
            fenced = self.write_into(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

        return fenced

    def write_into(self, connection: sqlite3.Connection) -> int:
        """Write everything inside the caller's transaction; see :meth:`write`."""
        return sum(part.write(connection) for part in self._parts)


class _Part:
    """Changes whose order does not matter any more."""

    __slots__ = ("acks", "answers", "ends", "interrupts", "opened", "statuses")

    def __init__(self) -> None:
        self.opened: dict[str, Opened] = {}
        self.statuses: dict[str, StatusChanged] = {}
        self.interrupts: dict[tuple[str, str], InterruptOpened] = {}
        self.answers: dict[tuple[str, str], InterruptClosed] = {}
        self.acks: dict[int, Ack] = {}
        self.ends: set[str] = set()
        """Executions with a terminal status in this part."""

    def __len__(self) -> int:
        return len(self.opened) + len(self.statuses) + len(self.interrupts) + len(self.answers) + len(self.acks)

    def must_precede(self, change: Change) -> bool:
        """Tell whether ``change`` only means the same when this part was written before it."""
        if isinstance(change, Opened):
            return change.execution_id in self.ends
        if isinstance(change, InterruptOpened):
            return change.execution_id in self.ends or (change.execution_id, change.interrupt_id) in self.answers
        if isinstance(change, Ack):
            return change.row_id in self.acks or (change.outcome == "early" and bool(self.ends))
        return False

    def add(self, change: Change) -> None:
        if isinstance(change, StatusChanged):
            if change.execution_id in self.ends:
                return  # terminal states absorb

            self.statuses[change.execution_id] = change
            if change.status in TERMINAL:
                self.ends.add(change.execution_id)
        elif isinstance(change, Opened):
            self.opened[change.execution_id] = change
            self.statuses.pop(change.execution_id, None)
        elif isinstance(change, InterruptOpened):
            self.interrupts[change.execution_id, change.interrupt_id] = change
        elif isinstance(change, InterruptClosed):
            self.answers[change.execution_id, change.interrupt_id] = change
        else:
            self.acks[change.row_id] = change

    def changes(self) -> Iterator[Change]:
        yield from self.opened.values()
        yield from self.interrupts.values()
        yield from self.answers.values()
        yield from self.acks.values()
        yield from self.statuses.values()

    def still_open(self) -> list[Any]:
        return [opened.handle for key, opened in self.opened.items() if key not in self.ends]

    def write(self, connection: sqlite3.Connection) -> int:
        self._write_opened(connection)
        self._write_interrupts(connection)
        self._write_acks(connection)
        return self._write_statuses(connection)

    def _write_opened(self, connection: sqlite3.Connection) -> None:
        if not self.opened:
            return

        rows = []
        for opened in self.opened.values():
            latest = self.statuses.get(opened.execution_id)
            status, updated = (latest.status, latest.us) if latest else ("created", opened.us)
            finished = updated if status in TERMINAL else None
            started = opened.info.get("started_us") or opened.us
            rows.append(
                (
                    *(opened.execution_id, opened.writer, status, started, updated, finished),
                    *(_text(opened.info.get(name)) for name in INFO_COLUMNS),
                )
            )

        connection.executemany(_UPSERT_EXECUTION, rows)

    def _write_interrupts(self, connection: sqlite3.Connection) -> None:
        if self.interrupts:
            connection.executemany(
                _UPSERT_INTERRUPT,
                [
                    (i.interrupt_id, i.execution_id, i.type, i.record, i.us, i.expires_us)
                    for i in self.interrupts.values()
                ],
            )

        if self.answers:
            connection.executemany(
                _CLOSE_INTERRUPT,
                [(a.status, a.response, a.actor, a.us, a.interrupt_id, a.execution_id) for a in self.answers.values()],
            )

    def _write_statuses(self, connection: sqlite3.Connection) -> int:
        updates = [s for s in self.statuses.values() if s.execution_id not in self.opened]
        fenced = 0
        if updates:
            cursor = connection.executemany(
                _UPDATE_STATUS,
                [(s.status, s.us, s.us if s.status in TERMINAL else None, s.execution_id, s.writer) for s in updates],
            )
            if cursor.rowcount != len(updates):
                counts = (connection.execute(_COUNT_FENCED, (s.execution_id, s.writer)) for s in updates)
                fenced = sum(cursor.fetchone()[0] for cursor in counts)

        # In the commit that ends an execution, so that nobody can be asked for, or send, what nobody will take.
        ended = [self.statuses[execution_id] for execution_id in self.ends]
        if ended:
            connection.executemany(_CANCEL_INTERRUPTS, [(s.us, s.execution_id, s.writer) for s in ended])
            connection.executemany(
                _REFUSE_INBOX,
                [(f"the execution was already {s.status}", s.us, s.execution_id, s.writer) for s in ended],
            )

        return fenced

    def _write_acks(self, connection: sqlite3.Connection) -> None:
        if not self.acks:
            return

        connection.executemany(_ACK, [(a.outcome, a.detail, a.us, a.row_id) for a in self.acks.values()])
        refused = [{"row": a.row_id} for a in self.acks.values() if a.outcome == "rejected"]
        if refused:
            connection.executemany(_RELEASE_ANSWER, refused)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


_UPSERT_EXECUTION = f"""
    INSERT INTO executions (id, writer, status, started_us, updated_us, finished_us, {", ".join(INFO_COLUMNS)})
    VALUES (?, ?, ?, ?, ?, ?, coalesce(?, ''){", ?" * (len(INFO_COLUMNS) - 1)})
    ON CONFLICT (id) DO UPDATE SET writer = excluded.writer, status = excluded.status,
        updated_us = excluded.updated_us, finished_us = excluded.finished_us, definition = excluded.definition,
        entrypoint = coalesce(excluded.entrypoint, executions.entrypoint)
"""

# An id that is declared again after it was closed is a new question, earlier answers do not count for it. One
# that is still waiting was only loaded again: an answer that came meanwhile stays the first.
_UPSERT_INTERRUPT = """
    INSERT INTO interrupts (id, execution_id, status, type, record, opened_us, expires_us)
    VALUES (?, ?, 'waiting', ?, ?, ?, ?)
    ON CONFLICT (id, execution_id) DO UPDATE SET status = 'waiting', type = excluded.type, record = excluded.record,
        opened_us = excluded.opened_us, expires_us = excluded.expires_us, closed_us = NULL, response = NULL,
        actor = NULL, answer_row = CASE WHEN interrupts.status = 'waiting' THEN interrupts.answer_row END
"""

_CLOSE_INTERRUPT = """
    UPDATE interrupts SET status = ?, response = ?, actor = ?, closed_us = ? WHERE id = ? AND execution_id = ?
"""

_UPDATE_STATUS = """
    UPDATE executions SET status = ?, updated_us = ?, finished_us = ?
    WHERE id = ? AND writer = ? AND finished_us IS NULL
"""

_COUNT_FENCED = "SELECT count(*) FROM executions WHERE id = ? AND writer <> ?"

_OWNED = "(SELECT id FROM executions WHERE id = ? AND writer = ?)"

_CANCEL_INTERRUPTS = f"""
    UPDATE interrupts SET status = 'cancelled', closed_us = ? WHERE execution_id = {_OWNED} AND status = 'waiting'
"""

_REFUSE_INBOX = f"""
    UPDATE inbox SET outcome = 'rejected', detail = ?, acked_us = ?
    WHERE execution_id = {_OWNED} AND (outcome IS NULL OR outcome = 'early')
"""

_ACK = "UPDATE inbox SET outcome = ?, detail = ?, acked_us = ? WHERE id = ?"

# A refused answer settled nothing, so the next one may.
_RELEASE_ANSWER = """
    UPDATE interrupts SET answer_row = NULL
    WHERE id = (SELECT target FROM inbox WHERE id = :row) AND answer_row = :row
        AND execution_id = (SELECT execution_id FROM inbox WHERE id = :row)
"""
