"""Executions and their input logs as tables of ``state.db``: how commits are written and read back.

``durable`` holds a narrow row for each execution: who may write (token), how far it is (seq), what wakes it. ``inputs``
holds one row for each commit until the execution ends, then one for all of them: a page holds many small rows, but only
one of two kilobytes, so the merged form is what makes a finished execution small. ``snapshots`` and ``definitions``
are what a replay begins with.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from flowdeck.durable.store import Point, Stored
from flowdeck.errors import ExecutionExists, ExecutionFenced, ExecutionNotFound, SnapshotError
from flowdeck.execution.store import Commit

__all__ = ["INPUT_TABLES", "history", "read", "write_commits"]

INPUT_TABLES: Final = (
    """
    CREATE TABLE durable (
        key           INTEGER PRIMARY KEY,    -- its short name in the tables below
        execution_id  TEXT NOT NULL UNIQUE,
        token         INTEGER NOT NULL,       -- rises with every claim; a commit must carry it
        seq           INTEGER NOT NULL,       -- inputs committed; a commit must continue there
        parked        INTEGER NOT NULL,       -- 1: nothing runs, so it may be taken up when there is something to do
        finished      INTEGER NOT NULL DEFAULT 0,
        wake_us       INTEGER,                -- when a parked one has something to do by itself
        blocked       TEXT,                   -- why nobody could take it up
        resource_keys TEXT NOT NULL DEFAULT '[]',
        forked_from   TEXT,
        forked_at     INTEGER
    )
    """,
    "CREATE INDEX durable_active ON durable(key) WHERE finished = 0 AND parked = 0",
    "CREATE INDEX durable_wake ON durable(wake_us) WHERE finished = 0 AND parked = 1 AND wake_us IS NOT NULL",
    """
    CREATE TABLE headers (
        key        INTEGER PRIMARY KEY,
        definition TEXT NOT NULL,
        body       BLOB NOT NULL              -- msgpack: what the execution began with
    )
    """,
    """
    CREATE TABLE inputs (
        id    INTEGER PRIMARY KEY,
        key   INTEGER NOT NULL,
        first INTEGER NOT NULL,               -- inputs before this row
        count INTEGER NOT NULL,
        body  BLOB NOT NULL                   -- commits, each behind its length: msgpack [us, [input, ...]]
    )
    """,
    "CREATE UNIQUE INDEX inputs_of ON inputs(key, first)",
    """
    CREATE TABLE snapshots (
        id         INTEGER PRIMARY KEY,
        key        INTEGER NOT NULL,
        seq        INTEGER NOT NULL,
        base       INTEGER NOT NULL,          -- 1: begins a new definition, so it stays
        definition TEXT NOT NULL,
        body       BLOB NOT NULL              -- msgpack [state, extras]
    )
    """,
    "CREATE UNIQUE INDEX snapshots_of ON snapshots(key, seq)",
    "CREATE TABLE definitions (digest TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE owners (writer TEXT PRIMARY KEY, until_us INTEGER NOT NULL) WITHOUT ROWID",
)

_unpack = msgspec.msgpack.Decoder().decode
_pack = msgspec.msgpack.Encoder().encode

_ADVANCE: Final = """
    UPDATE durable SET seq = ?, parked = ?, wake_us = ?, finished = ? WHERE execution_id = ? AND token = ? AND seq = ?
"""
_CREATE: Final = """
    INSERT INTO durable (execution_id, token, seq, parked, wake_us, finished) VALUES (?, ?, ?, ?, ?, ?)
"""
_APPEND: Final = "INSERT INTO inputs (key, first, count, body) SELECT key, ?, ?, ? FROM durable WHERE execution_id = ?"
_SNAPSHOT: Final = """
    INSERT OR REPLACE INTO snapshots (key, seq, base, definition, body) VALUES (?, ?, ?, ?, ?)
"""


_PLANS: Final = "SELECT digest, body FROM definitions WHERE digest IN (SELECT value FROM json_each(?))"


def write_commits(connection: sqlite3.Connection, commits: Sequence[Commit]) -> dict[int, Exception]:
    """Write commits inside the caller's transaction. Returns why some were refused, by their place.

    A refused one leaves nothing, and later ones of the same execution are refused with it.
    """
    refused: dict[int, Exception] = {}
    lost: set[str] = set()
    for place, commit in enumerate(commits):
        name = commit.execution_id
        if name in lost or not _admit(connection, commit):
            lost.add(name)
            refused[place] = (
                ExecutionExists(f"there is an execution {name} already")
                if commit.header is not None
                else ExecutionFenced(f"execution {name} was taken over by another process")
            )
            continue

        if commit.count:
            connection.execute(_APPEND, (commit.seq, commit.count, _framed(commit.body), name))

        if commit.definitions:
            connection.executemany("INSERT OR IGNORE INTO definitions (digest, body) VALUES (?, ?)", commit.definitions)

        if commit.snapshot is not None or commit.finished or commit.resource_keys is not None:
            _seldom(connection, commit)

    return refused


def _admit(connection: sqlite3.Connection, commit: Commit) -> bool:
    """Advance the execution's row, or create it. ``False``: the commit does not continue what is there."""
    state = (commit.seq + commit.count, commit.parked, commit.wake_us, commit.finished)
    if commit.header is None:
        changed = connection.execute(_ADVANCE, (*state, commit.execution_id, commit.token, commit.seq))
        return changed.rowcount == 1

    known = connection.execute("SELECT 1 FROM durable WHERE execution_id = ?", (commit.execution_id,)).fetchone()
    if known is not None:
        return False

    seq, parked, wake_us, finished = state
    key = connection.execute(_CREATE, (commit.execution_id, commit.token, seq, parked, wake_us, finished)).lastrowid
    connection.execute(
        "INSERT INTO headers (key, definition, body) VALUES (?, ?, ?)", (key, commit.definition, commit.header)
    )
    return True


def _seldom(connection: sqlite3.Connection, commit: Commit) -> None:
    key = _key(connection, commit.execution_id)
    if commit.resource_keys is not None:
        keys = msgspec.json.encode(commit.resource_keys).decode()
        connection.execute("UPDATE durable SET resource_keys = ? WHERE key = ?", (keys, key))

    if commit.snapshot is not None:
        connection.execute("DELETE FROM snapshots WHERE key = ? AND base = 0", (key,))
        fields = (key, commit.seq + commit.count, commit.base, commit.definition, commit.snapshot)
        connection.execute(_SNAPSHOT, fields)

    if commit.finished:
        _merge(connection, key)


def _merge(connection: sqlite3.Connection, key: int) -> None:
    """Make one row of all an ended execution has written; its temporary snapshots are not needed any more."""
    connection.execute("DELETE FROM snapshots WHERE key = ? AND base = 0", (key,))
    rows = connection.execute("SELECT first, count, body FROM inputs WHERE key = ? ORDER BY first", (key,)).fetchall()
    if len(rows) > 1:
        connection.execute("DELETE FROM inputs WHERE key = ?", (key,))
        body = b"".join(row[2] for row in rows)
        total = rows[-1][0] + rows[-1][1] - rows[0][0]
        connection.execute(
            "INSERT INTO inputs (key, first, count, body) VALUES (?, ?, ?, ?)", (key, rows[0][0], total, body)
        )


def _key(connection: sqlite3.Connection, execution_id: str) -> int:
    row = connection.execute("SELECT key FROM durable WHERE execution_id = ?", (execution_id,)).fetchone()
    if row is None:
        raise ExecutionNotFound(f"no durable execution {execution_id!r} in the store")

    return int(row[0])


def read(connection: sqlite3.Connection, execution_id: str, at: int | None = None) -> Stored:
    """Return an execution as it was after ``at`` inputs. One read transaction of the caller's.

    Raises:
        ExecutionNotFound: there is none of that id.
        ValueError: ``at`` is no committed point.
        SnapshotError: what is stored is damaged.
    """
    row = connection.execute(
        "SELECT d.key, d.seq, d.resource_keys, d.forked_from, d.forked_at, h.definition, h.body "
        "FROM durable d JOIN headers h ON h.key = d.key WHERE d.execution_id = ?",
        (execution_id,),
    ).fetchone()
    if row is None:
        raise ExecutionNotFound(f"no durable execution {execution_id!r} in the store")

    key, seq, resource_keys, forked_from, forked_at, definition, header = row
    wanted = seq if at is None else at
    begin, snapshot = 0, None
    found = connection.execute(
        "SELECT seq, definition, body FROM snapshots WHERE key = ? AND seq <= ? ORDER BY seq DESC LIMIT 1",
        (key, wanted),
    ).fetchone()
    try:
        if found is not None:
            begin, definition = found[0], found[1]
            state, extras = _unpack(found[2])
            snapshot = (state, extras)

        batches, ends = _batches(connection, key, begin, wanted)
        if wanted not in ends and wanted != begin:
            raise ValueError(f"execution {execution_id} has no committed point {at}; it has points up to {seq}")

        needed = msgspec.json.encode(_needed(definition, snapshot, batches)).decode()
        plans: dict[str, bytes] = dict(connection.execute(_PLANS, (needed,)).fetchall())
        return Stored(
            execution_id, wanted, _unpack(header), definition, plans, snapshot, batches,
            msgspec.json.decode(resource_keys), forked_from, forked_at,
        )  # fmt: skip
    except msgspec.MsgspecError as exc:
        raise SnapshotError(f"execution {execution_id}: what is stored of it is damaged: {exc}") from exc


def _batches(
    connection: sqlite3.Connection, key: int, begin: int, wanted: int
) -> tuple[list[tuple[int, list[list[Any]]]], set[int]]:
    batches: list[tuple[int, list[list[Any]]]] = []
    ends: set[int] = set()
    rows = connection.execute(
        "SELECT first, body FROM inputs WHERE key = ? AND first + count > ? AND first < ? ORDER BY first",
        (key, begin, wanted),
    )
    for first, body in rows:
        position = int(first)
        for when, records in _objects(body):
            position += len(records)
            if begin < position <= wanted:
                batches.append((when, records))
                ends.add(position)

    return batches, ends


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def _objects(body: bytes) -> Iterable[tuple[int, list[list[Any]]]]:
    """Yield the commits that stand one after the other in ``body``, each behind its length in four bytes.

    Raises:
        SnapshotError: the last one is cut off.
    """
    position = 0
    while position < len(body):
        size = int.from_bytes(body[position : position + 4], "big")
        part = body[position + 4 : position + 4 + size]
        if len(part) < size:
            raise SnapshotError("an input log is cut off")

        when, records = _unpack(part)
        yield when, records
        position += 4 + size


def _needed(definition: str, snapshot: Any, batches: list[tuple[int, list[list[Any]]]]) -> list[str]:
    """Return the digests of the plans a replay of this needs."""
    found = {definition}
    if snapshot is not None:
        found.update(entry[2] for entry in snapshot[1]["children"])

    for _, records in batches:
        found.update(record[7] for record in records if record[0] == "o")

    return sorted(found)


def history(connection: sqlite3.Connection, execution_id: str) -> list[Point]:
    """Return the committed points, oldest first."""
    key = _key(connection, execution_id)
    points: list[Point] = []
    rows = connection.execute("SELECT first, body FROM inputs WHERE key = ? ORDER BY first", (key,))
    for first, body in rows:
        position = int(first)
        for when, records in _objects(body):
            position += len(records)
            points.append(Point(position, when, "".join(record[0].lstrip("!") for record in records)))

    return points
