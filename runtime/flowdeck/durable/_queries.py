"""The questions :class:`~flowdeck.durable.client.ControlClient` puts to ``state.db``, and how rows become objects."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from flowdeck.durable._rows import (
    AmbiguousExecution,
    AmbiguousInterrupt,
    DurableInfo,
    ExecutionRow,
    InboxEntry,
    InterruptRow,
)
from flowdeck.durable._values import decode, full

__all__ = [
    "Query",
    "durable_info",
    "executions",
    "find_execution",
    "find_interrupt",
    "inbox",
    "interrupts",
    "resumable",
]

CANDIDATES: Final = 6
"""How many fitting ids are looked for; one more than are shown."""

_EXECUTIONS: Final = """
    SELECT e.id, e.writer, e.status, e.flow_name, e.entrypoint, e.definition, e.run_id, e.root_run_id,
        e.parent_execution_id, e.task_id, e.tenant_id, e.user_id, e.started_us, e.updated_us, e.finished_us,
        (SELECT count(*) FROM interrupts i WHERE i.execution_id = e.id AND i.status = 'waiting')
    FROM executions e
"""

_INTERRUPTS: Final = """
    SELECT i.id, i.execution_id, coalesce(e.flow_name, ''), coalesce(e.writer, ''), i.status,
        i.answer_row IS NOT NULL OR i.status = 'resumed', i.type, i.record, i.opened_us, i.expires_us, i.closed_us,
        i.response, i.actor
    FROM interrupts i LEFT JOIN executions e ON e.id = i.execution_id
"""

_INBOX: Final = """
    SELECT id, execution_id, kind, target, payload, dedup_key, actor, created_us, outcome, detail, acked_us FROM inbox
"""

_SHORT_ID: Final = """
    SELECT id, execution_id FROM interrupts WHERE {state} AND {fit} ORDER BY opened_us LIMIT ?
"""


class Query:
    """A SELECT that conditions are added to."""

    def __init__(self, select: str, convert: Callable[[tuple[Any, ...]], Any]) -> None:
        self._select = select
        self._convert = convert
        self._conditions: list[str] = []
        self._values: list[Any] = []

    def where(self, condition: str, *values: Any, given: bool = True) -> None:
        """Add a condition with its values, unless the caller of the caller has not ``given`` it."""
        if given:
            self._conditions.append(condition)
            self._values += values

    def rows(self, connection: sqlite3.Connection, order: str, limit: int) -> list[Any]:
        """Run it and return the converted rows."""
        conditions = f" WHERE {' AND '.join(self._conditions)}" if self._conditions else ""
        text = f"{self._select}{conditions} ORDER BY {order} LIMIT ?"
        return [self._convert(row) for row in connection.execute(text, (*self._values, limit))]


def executions() -> Query:
    """Select :class:`ExecutionRow` from ``executions e``."""
    return Query(_EXECUTIONS, lambda row: ExecutionRow(*row))


def interrupts() -> Query:
    """Select :class:`InterruptRow` from ``interrupts i``."""
    return Query(_INTERRUPTS, _interrupt_row)


def inbox() -> Query:
    """Select :class:`InboxEntry` from ``inbox``."""
    return Query(_INBOX, lambda row: InboxEntry(*(*row[:4], _value(row[4]), *row[5:])))


def find_execution(connection: sqlite3.Connection, wanted: str) -> ExecutionRow | None:
    """Return the execution that ``wanted`` means: see :meth:`ControlClient.find_execution`.

    Raises:
        AmbiguousExecution: Several fit.
    """
    if not wanted:
        return None

    tries = (
        ("e.id = ?", (wanted,)),
        ("e.finished_us IS NULL AND (substr(e.id, 1, ?) = ? OR substr(e.id, -?) = ?)", (len(wanted), wanted) * 2),
        ("substr(e.id, 1, ?) = ? OR substr(e.id, -?) = ?", (len(wanted), wanted) * 2),
    )
    for condition, values in tries:
        query = executions()
        query.where(f"({condition})", *values)
        found: list[ExecutionRow] = query.rows(connection, "e.started_us DESC", CANDIDATES)
        if len(found) > 1:
            shown = [row.id for row in found[: CANDIDATES - 1]]
            raise AmbiguousExecution(wanted, shown + ["..."] * (len(found) == CANDIDATES))

        if found:
            return found[0]

    return None


def resumable(connection: sqlite3.Connection) -> list[str]:
    """Return the open executions whose state is stored; none in a file of format 1."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'durable'").fetchone() is None:
        return []

    rows = connection.execute(
        "SELECT e.id FROM executions e JOIN durable d ON d.execution_id = e.id "
        "WHERE e.finished_us IS NULL AND d.finished = 0"
    )
    return [row[0] for row in rows]


def durable_info(connection: sqlite3.Connection, execution_id: str) -> DurableInfo | None:
    """Return what is committed of an execution; ``None`` when it is not durable, or the file is of format 1."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'durable'").fetchone() is None:
        return None

    row = connection.execute(
        "SELECT seq, token, parked, finished, wake_us, blocked, resource_keys, forked_from, forked_at, "
        "(SELECT coalesce(sum(length(body)), 0) FROM inputs i WHERE i.key = d.key) + "
        "(SELECT coalesce(sum(length(body)), 0) FROM snapshots s WHERE s.key = d.key) "
        "FROM durable d WHERE execution_id = ?",
        (execution_id,),
    ).fetchone()
    if row is None:
        return None

    return DurableInfo(row[0], row[1], bool(row[2]), bool(row[3]), row[4], row[5], decode(row[6]), *row[7:])


def find_interrupt(connection: sqlite3.Connection, wanted: str) -> InterruptRow | None:
    """Return the interrupt that ``wanted`` means: see :meth:`ControlClient.get_interrupt`.

    Raises:
        AmbiguousInterrupt: Several fit.
    """
    if not wanted:
        return None

    keys = _exact(connection, wanted) or _shortened(connection, wanted)
    if not keys:
        return None

    if len(keys) > 1:
        shown = [f"{execution_id}/{interrupt_id}" for interrupt_id, execution_id in keys[: CANDIDATES - 1]]
        raise AmbiguousInterrupt(wanted, shown + ["..."] * (len(keys) == CANDIDATES))

    query = interrupts()
    query.where("i.id = ? AND i.execution_id = ?", *keys[0])
    found: list[InterruptRow] = query.rows(connection, "i.id", 1)
    return found[0] if found else None


def _exact(connection: sqlite3.Connection, wanted: str) -> list[tuple[str, str]]:
    same = connection.execute("SELECT id, execution_id, status FROM interrupts WHERE id = ?", (wanted,)).fetchall()
    waiting = [row for row in same if row[2] == "waiting"]
    if same:
        return [(row[0], row[1]) for row in waiting or same][:CANDIDATES]

    execution_id, slash, interrupt_id = wanted.partition("/")
    if not slash:
        return []

    statement = "SELECT id, execution_id FROM interrupts WHERE id = ? AND execution_id = ?"
    return connection.execute(statement, (interrupt_id, execution_id)).fetchall()


def _shortened(connection: sqlite3.Connection, wanted: str) -> list[tuple[str, str]]:
    # Ids of one process begin alike, so a person tells them apart by their ends.
    begins = "substr(id, 1, ?) = ?"
    ends = "substr(id, -?) = ?"
    for state in ("status = 'waiting'", "status <> 'waiting'"):
        for fit in (begins, ends):
            statement = _SHORT_ID.format(state=state, fit=fit)
            keys = connection.execute(statement, (len(wanted), wanted, CANDIDATES)).fetchall()
            if keys:
                return keys

    return []


def _interrupt_row(row: tuple[Any, ...]) -> InterruptRow:
    record = _value(row[7])
    record = full(row[1], row[0], record) if isinstance(record, dict) else {"payload": record}
    assignees = record.get("assignees")
    names = [str(name) for name in assignees] if isinstance(assignees, list) else []
    response = None if row[11] is None else _value(row[11])
    middle = bool(row[5]), row[6], record.get("payload"), record.get("schema"), names
    return InterruptRow(*(*row[:5], *middle, *row[8:11], response, row[12], record))


def _value(text: str) -> Any:
    try:
        return decode(text)
    except ValueError:
        # One row that somebody spoiled by hand must not hide the others.
        return text
