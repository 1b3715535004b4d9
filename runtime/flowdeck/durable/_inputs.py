"""Executions and their input logs as tables of ``state.db``, and how they are read back.

``durable`` holds a narrow row for each execution: who may write (token), how far it is (seq), what wakes it. ``inputs``
holds one row for each commit until the execution ends, then one for all of them: a page holds many small rows, but only
one of two kilobytes, so the merged form is what makes a finished execution small. ``snapshots`` and ``definitions``
are what a replay begins with.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from flowdeck.definition.skeleton import plan_digest
from flowdeck.durable.store import Point, Stored
from flowdeck.errors import ExecutionNotFound, SnapshotError

__all__ = ["INPUT_TABLES", "Found", "find", "header", "history", "read", "read_from"]

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

_PLANS_KEPT: Final = 64
_known: dict[str, bytes] = {}
_PLANS: Final = "SELECT digest, body FROM definitions WHERE digest IN (SELECT value FROM json_each(?))"


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
    return read_from(connection, find(connection, execution_id, at), at)


class Found(NamedTuple):
    """An execution's rows, and who owns it."""

    execution_id: str
    key: int
    token: int
    seq: int
    finished: int
    resource_keys: str
    forked_from: str | None
    forked_at: int | None
    definition: str
    header: bytes
    snapshot_seq: int | None
    snapshot_definition: str | None
    snapshot: bytes | None
    writer: str
    status: str


_FIND: Final = """
    SELECT d.execution_id, d.key, d.token, d.seq, d.finished, d.resource_keys, d.forked_from, d.forked_at,
        h.definition, h.body, s.seq, s.definition, s.body, coalesce(e.writer, ''), coalesce(e.status, '')
    FROM durable d JOIN headers h ON h.key = d.key LEFT JOIN executions e ON e.id = d.execution_id
    LEFT JOIN snapshots s ON s.key = d.key
        AND s.seq = (SELECT max(seq) FROM snapshots WHERE key = d.key AND seq <= coalesce(?, d.seq))
    WHERE d.execution_id = ?
"""


def find(connection: sqlite3.Connection, execution_id: str, at: int | None = None) -> Found:
    """Return an execution's rows, with the last snapshot up to ``at``.

    Raises:
        ExecutionNotFound: there is none of that id.
    """
    row = connection.execute(_FIND, (at, execution_id)).fetchone()
    if row is None:
        raise ExecutionNotFound(f"no durable execution {execution_id!r} in the store")

    return Found(*row)


def header(connection: sqlite3.Connection, execution_id: str) -> dict[str, Any]:
    """Return what an execution began with, its inputs and snapshots unread.

    Raises:
        ExecutionNotFound: there is none of that id.
        SnapshotError: what is stored is damaged.
    """
    row = connection.execute(
        "SELECT h.body FROM durable d JOIN headers h ON h.key = d.key WHERE d.execution_id = ?", (execution_id,)
    ).fetchone()
    if row is None:
        raise ExecutionNotFound(f"no durable execution {execution_id!r} in the store")

    try:
        return msgspec.msgpack.decode(row[0], type=dict[str, Any])
    except msgspec.MsgspecError as exc:
        raise SnapshotError(f"execution {execution_id}: what is stored of it is damaged: {exc}") from exc


def read_from(connection: sqlite3.Connection, found: Found, at: int | None = None) -> Stored:
    """Return what :func:`find` has found, with the inputs after its snapshot; raises as :func:`read` does."""
    execution_id, key, seq, definition = found.execution_id, found.key, found.seq, found.definition
    wanted = seq if at is None else at
    begin, snapshot = 0, None
    try:
        if found.snapshot is not None and found.snapshot_seq is not None and found.snapshot_definition is not None:
            begin, definition = found.snapshot_seq, found.snapshot_definition
            state, extras = _unpack(found.snapshot)
            snapshot = (state, extras)

        batches, ends = _batches(connection, key, begin, wanted)
        if wanted not in ends and wanted != begin:
            raise ValueError(f"execution {execution_id} has no committed point {at}; it has points up to {seq}")

        plans = _plans(connection, _needed(definition, snapshot, batches))
        return Stored(
            execution_id, wanted, _unpack(found.header), definition, plans, snapshot, batches,
            msgspec.json.decode(found.resource_keys), found.forked_from, found.forked_at,
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


def _plans(connection: sqlite3.Connection, needed: list[str]) -> dict[str, bytes]:
    """Return skeletons by digest; they never change, so what was read once whole is not read again."""
    found = {digest: _known[digest] for digest in needed if digest in _known}
    if len(found) < len(needed):
        found = dict(connection.execute(_PLANS, (msgspec.json.encode(needed).decode(),)).fetchall())
        for digest, skeleton in found.items():
            if len(_known) < _PLANS_KEPT and plan_digest(skeleton) == digest:
                _known[digest] = skeleton

    return found


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
