"""Commits of durable executions on their way into ``state.db``.

The fence comes first: an execution's row is advanced if token and sequence are those the commit names. What the
admitted ones carry is then written together, a statement for each kind of row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from flowdeck.errors import ExecutionExists, ExecutionFenced
from flowdeck.execution.store import Commit

__all__ = ["refusal", "write_commits"]

MERGE_BYTES: Final = 1_000
"""An ended execution's rows become one if they hold more: a page takes many small rows, but only one of two
kilobytes."""

_ADVANCE: Final = """
    UPDATE durable SET seq = ?, parked = ?, wake_us = ?, finished = ? WHERE execution_id = ? AND token = ? AND seq = ?
"""
_CREATE: Final = """
    INSERT INTO durable (execution_id, token, seq, parked, wake_us, finished, resource_keys)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (execution_id) DO NOTHING
"""
_HEAD: Final = "INSERT INTO headers (key, definition, body) VALUES (?, ?, ?)"
_BEGIN: Final = "INSERT INTO inputs (key, first, count, body) VALUES (?, ?, ?, ?)"
_APPEND: Final = "INSERT INTO inputs (key, first, count, body) SELECT key, ?, ?, ? FROM durable WHERE execution_id = ?"
_DEFINE: Final = "INSERT OR IGNORE INTO definitions (digest, body) VALUES (?, ?)"
_RESOURCES: Final = "UPDATE durable SET resource_keys = ? WHERE execution_id = ?"
_FORGET: Final = """
    DELETE FROM snapshots WHERE base = 0 AND key = (SELECT key FROM durable WHERE execution_id = ?)
"""
_SNAPSHOT: Final = """
    INSERT OR REPLACE INTO snapshots (key, seq, base, definition, body)
    SELECT key, ?, ?, ?, ? FROM durable WHERE execution_id = ?
"""
_SIZE: Final = """
    SELECT i.key, count(*), sum(length(i.body)) FROM durable d JOIN inputs i ON i.key = d.key WHERE d.execution_id = ?
"""


def write_commits(connection: sqlite3.Connection, commits: Sequence[Commit]) -> dict[int, Exception]:
    """Write commits inside the caller's transaction. Returns why some were refused, by their place.

    A refused one leaves nothing, and later ones of the same execution are refused with it.
    """
    refused: dict[int, Exception] = {}
    lost: set[str] = set()
    heads: list[tuple[Any, ...]] = []
    begun: list[tuple[Any, ...]] = []
    inputs: list[tuple[Any, ...]] = []
    definitions: dict[str, bytes] = {}
    seldom: list[Commit] = []
    for place, commit in enumerate(commits):
        name = commit.execution_id
        if name not in lost:
            if commit.header is not None:
                key = _created(connection, commit)
                if key:
                    heads.append((key, commit.definition, commit.header))
                    if commit.count:
                        begun.append((key, commit.seq, commit.count, _framed(commit.body)))
            else:
                key = _advanced(connection, commit)
                if key and commit.count:
                    inputs.append((commit.seq, commit.count, _framed(commit.body), name))

            if key:
                definitions.update(commit.definitions)
                if commit.snapshot is not None or commit.finished or commit.resource_keys is not None:
                    seldom.append(commit)

                continue

        lost.add(name)
        refused[place] = refusal(commit)

    for statement, rows in ((_HEAD, heads), (_BEGIN, begun), (_APPEND, inputs), (_DEFINE, definitions.items())):
        if rows:
            connection.executemany(statement, rows)

    for commit in seldom:
        _write_seldom(connection, commit)

    return refused


def refusal(commit: Commit) -> Exception:
    """Return why a commit does not continue what the store holds."""
    if commit.header is not None:
        return ExecutionExists(f"there is an execution {commit.execution_id} already")

    return ExecutionFenced(f"execution {commit.execution_id} was taken over by another process")


def _created(connection: sqlite3.Connection, commit: Commit) -> int:
    """Create the execution's row and return its key; 0 when there is one already."""
    names = _names(commit.resource_keys or ())
    fields = (commit.token, commit.seq + commit.count, commit.parked, commit.wake_us, commit.finished, names)
    made = connection.execute(_CREATE, (commit.execution_id, *fields))
    return int(made.lastrowid or 0) if made.rowcount == 1 else 0


def _advanced(connection: sqlite3.Connection, commit: Commit) -> int:
    """Advance the execution's row; 0 when the commit does not continue what is there."""
    state = (commit.seq + commit.count, commit.parked, commit.wake_us, commit.finished)
    return connection.execute(_ADVANCE, (*state, commit.execution_id, commit.token, commit.seq)).rowcount


def _names(keys: tuple[str, ...]) -> str:
    return msgspec.json.encode(keys).decode()


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def _write_seldom(connection: sqlite3.Connection, commit: Commit) -> None:
    name = commit.execution_id
    if commit.resource_keys is not None and commit.header is None:
        connection.execute(_RESOURCES, (_names(commit.resource_keys), name))

    if commit.snapshot is not None or commit.finished:
        connection.execute(_FORGET, (name,))

    if commit.snapshot is not None:
        fields = (commit.seq + commit.count, commit.base, commit.definition, commit.snapshot)
        connection.execute(_SNAPSHOT, (*fields, name))

    if commit.finished:
        key, rows, size = connection.execute(_SIZE, (name,)).fetchone()
        if rows > 1 and size > MERGE_BYTES:
            _merge(connection, key)


def _merge(connection: sqlite3.Connection, key: int) -> None:
    """Make one row of all an ended execution has written."""
    rows = connection.execute("SELECT first, count, body FROM inputs WHERE key = ? ORDER BY first", (key,)).fetchall()
    connection.execute("DELETE FROM inputs WHERE key = ?", (key,))
    body = b"".join(row[2] for row in rows)
    total = rows[-1][0] + rows[-1][1] - rows[0][0]
    connection.execute(_BEGIN, (key, rows[0][0], total, body))
