"""The execution store over ``state.db``: many executions of many processes on one machine.

Commits go through the control plane's writer thread: all that is ready is one transaction (``BEGIN IMMEDIATE``, group
commit), with the changes the inbox and the lists are made of. Claims and forks are transactions of their own. A process
holds executions under its writer id; it lives while it holds the writer's lock, and counts as stuck when its lease has
run out.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from flowdeck.durable import _inputs
from flowdeck.durable._forking import fork_of
from flowdeck.durable._handle import Handle
from flowdeck.durable._hosted import HostedStore, inbox_row
from flowdeck.durable._work import (
    CLAIM,
    FORGET,
    FORK_ROW,
    OLD,
    PRUNE_BATCH,
    UNUSED_DEFINITIONS,
    WORK,
    transaction,
)
from flowdeck.durable.client import ControlClient
from flowdeck.durable.control import StateControl
from flowdeck.durable.statedb import connect_readonly, open_to_write
from flowdeck.durable.store import Claim, Point, Retention, Stored, Work
from flowdeck.errors import ExecutionBusy, ExecutionError, ExecutionExists
from flowdeck.events.ids import new_id as draw_id
from flowdeck.execution.control import InboxRow
from flowdeck.layout import Layout, is_writer_alive, live_writers

__all__ = ["SqliteStore"]

BUSY_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 0.04
"""Time between two looks at ``PRAGMA data_version``; a look takes microseconds."""
T = TypeVar("T")


class SqliteStore(HostedStore):
    """An :class:`~flowdeck.durable.store.ExecutionStore` over one ``state.db``.

    Args:
        control: the control plane of this process on that file; its thread writes.
        durability: ``exit``, ``process`` or ``full``; see :data:`~flowdeck.durable.store.DURABILITIES`.

    Raises:
        ValueError: an unknown durability, or ``live``, which needs no store.
    """

    def __init__(self, control: StateControl, durability: str = "full") -> None:
        self.path: Path = control.path
        self.layout = Layout(self.path.parent)
        self._writer = Handle(self.path, self._open)
        self._reader = Handle(self.path, lambda: connect_readonly(self.path, BUSY_SECONDS))
        self._client: ControlClient | None = None
        self._lock = threading.Lock()
        self._seen: tuple[int, int] = (0, 0)
        super().__init__(control, durability)

    def close(self, timeout: float) -> None:
        self.control.close(timeout)
        self._writer.close()
        self._reader.close()

    # -- ownership -----------------------------------------------------------------------------------------------

    def _claimed(self, connection: sqlite3.Connection, execution_id: str, token: int | None, force: bool) -> Claim:
        """Take the execution over inside the writer's transaction, and return it: from then on nobody else changes
        it."""
        found = _inputs.find(connection, execution_id)
        writer = found.writer
        if found.finished:
            raise ExecutionError(f"execution {execution_id} is finished ({found.status})")

        if token is not None and token != found.token:
            raise ExecutionBusy(f"execution {execution_id} was taken up by another process just now")

        if not force and self._runs_elsewhere(connection, writer):
            raise ExecutionBusy(
                f"execution {execution_id} is held by the living process {writer}; ask it through the inbox, or "
                "end it first"
            )

        stored = _inputs.read_from(connection, found)  # before the first change: a damaged one stays as it was
        connection.execute(CLAIM, (found.key,))
        if writer != self.owner:
            connection.execute("UPDATE executions SET writer = ? WHERE id = ?", (self.owner, execution_id))

        fields = {name: getattr(stored, name) for name in Stored.__struct_fields__}
        return Claim(**fields, token=found.token + 1, flow_name=stored.header["flow"]["name"])

    def _runs_elsewhere(self, connection: sqlite3.Connection, writer: str) -> bool:
        """Whether another process holds it: it lives, and has not let its lease run out."""
        if not writer or writer == self.owner:
            return False

        lease = connection.execute("SELECT until_us FROM owners WHERE writer = ?", (writer,)).fetchone()
        if lease is not None and lease[0] < _now_us():
            return False

        return self._alive(writer)

    def _alive(self, writer: str) -> bool:
        return is_writer_alive(self.layout, writer)

    def release(self, execution_id: str, token: int, *, blocked: str | None = None) -> bool:
        with self._writer.use() as connection, transaction(connection):
            changed = connection.execute(
                "UPDATE durable SET token = token + 1, blocked = ? "
                "WHERE execution_id = ? AND token = ? AND finished = 0",
                (blocked, execution_id, token),
            )
            if changed.rowcount != 1:
                return False

            connection.execute("UPDATE executions SET writer = '' WHERE id = ?", (execution_id,))
            if blocked is not None:
                connection.execute(
                    "UPDATE executions SET status = 'blocked_version', updated_us = ? WHERE id = ?",
                    (_now_us(), execution_id),
                )

            return True

    def heartbeat(self, seconds: float) -> None:
        with self._writer.use() as connection:
            connection.execute(
                "INSERT INTO owners (writer, until_us) VALUES (?, ?) "
                "ON CONFLICT (writer) DO UPDATE SET until_us = excluded.until_us",
                (self.owner, _now_us() + round(seconds * 1e6)),
            )

    def tokens(self, execution_ids: Collection[str]) -> dict[str, int]:
        with self._reader.use() as connection:
            query = "SELECT execution_id, token FROM durable WHERE execution_id IN (SELECT value FROM json_each(?))"
            return dict(connection.execute(query, (msgspec.json.encode(list(execution_ids)).decode(),)))

    def work(self, flows: Collection[str], *, blocked: bool = False, limit: int = 100) -> list[Work]:
        with self._reader.use() as connection:
            values = {
                "flows": msgspec.json.encode(sorted(flows)).decode(),
                "elsewhere": msgspec.json.encode(self._others(connection)).decode(),
                "me": self.owner,
                "now": _now_us(),
                "blocked": int(blocked),
                "limit": limit,
            }
            return [Work(*row) for row in connection.execute(WORK, values)]

    def _others(self, connection: sqlite3.Connection) -> list[str]:
        """Return the processes that hold what they hold: they live, and their leases have not run out."""
        return [w for w in live_writers(self.layout) if w != self.owner and self._runs_elsewhere(connection, w)]

    def starts(self, names: Collection[str]) -> list[InboxRow]:
        """Return requests to start an execution of these flows (names or entrypoints)."""
        with self._reader.use() as connection:
            rows = connection.execute(
                "SELECT id, execution_id, kind, target, payload, dedup_key, actor, created_us FROM inbox "
                "WHERE (outcome IS NULL OR outcome = 'early') AND kind = 'start' AND outcome IS NULL "
                "AND target IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT 1000",
                (msgspec.json.encode(sorted(names)).decode(),),
            ).fetchall()
            return [inbox_row(row) for row in rows]

    def undelivered(self) -> bool:
        """Whether requests to executions of this process wait to be applied."""
        with self._reader.use() as connection:
            row = connection.execute(
                "SELECT 1 FROM inbox i JOIN executions e ON e.id = i.execution_id "
                "WHERE (i.outcome IS NULL OR i.outcome = 'early') AND i.outcome IS NULL AND e.writer = ? LIMIT 1",
                (self.owner,),
            ).fetchone()
            return row is not None

    def wait_change(self, timeout: float, stop: threading.Event) -> bool:
        """Sleep until another connection has written, at most ``timeout`` seconds; tell whether one has."""
        deadline = time.monotonic() + timeout
        while not stop.is_set():
            with self._reader.use() as connection:
                version = (self._reader.generation, connection.execute("PRAGMA data_version").fetchone()[0])

            if version != self._seen:
                self._seen = version
                return True

            left = deadline - time.monotonic()
            if left <= 0 or stop.wait(min(LOOK_SECONDS, left)):
                return False

        return False

    def _wake_after(self, after_us: int) -> int | None:
        with self._reader.use() as connection:
            row = connection.execute(
                "SELECT min(wake_us) FROM durable "
                "WHERE finished = 0 AND parked = 1 AND wake_us IS NOT NULL AND wake_us > ?",
                (after_us,),
            ).fetchone()
            return None if row[0] is None else int(row[0])

    # -- reading -------------------------------------------------------------------------------------------------

    def load(self, execution_id: str, at: int | None = None) -> Stored:
        return self._read(lambda connection: _inputs.read(connection, execution_id, at))

    def history(self, execution_id: str) -> list[Point]:
        return self._read(lambda connection: _inputs.history(connection, execution_id))

    def _read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        with self._reader.use() as connection:
            connection.execute("BEGIN")
            try:
                return question(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")

    @property
    def client(self) -> ControlClient:
        """The lists and the inbox."""
        with self._lock:
            if self._client is None:
                self._client = ControlClient(self.path)

            return self._client

    # -- asking --------------------------------------------------------------------------------------------------

    def read_inbox(self, execution_id: str) -> list[InboxRow]:
        with self._reader.use() as connection:
            rows = connection.execute(
                "SELECT id, execution_id, kind, target, payload, dedup_key, actor, created_us FROM inbox "
                "WHERE execution_id = ? AND (outcome IS NULL OR outcome = 'early') ORDER BY id",
                (execution_id,),
            ).fetchall()
            return [inbox_row(row) for row in rows]

    def fork(self, execution_id: str, at: int | None = None, *, new_id: str | None = None, actor: str | None) -> str:
        stored = self.load(execution_id, at)
        points = self.history(execution_id)
        beginning = self.load(execution_id, points[0].seq) if points else stored
        new = new_id or draw_id()
        header, snapshot = fork_of(stored, beginning, new, actor)
        with self._writer.use() as connection, transaction(connection):
            if connection.execute("SELECT 1 FROM durable WHERE execution_id = ?", (new,)).fetchone():
                raise ExecutionExists(f"there is an execution {new} already")

            keys = msgspec.json.encode(stored.resource_keys).decode()
            key = connection.execute(
                "INSERT INTO durable (execution_id, token, seq, parked, resource_keys, forked_from, forked_at) "
                "VALUES (?, 1, 0, 0, ?, ?, ?)",
                (new, keys, execution_id, stored.seq),
            ).lastrowid
            fields = (key, stored.definition, header)
            connection.execute("INSERT INTO headers (key, definition, body) VALUES (?, ?, ?)", fields)
            connection.execute(
                "INSERT INTO snapshots (key, seq, base, definition, body) VALUES (?, 0, 1, ?, ?)",
                (key, stored.definition, snapshot),
            )
            connection.execute(FORK_ROW, (new, _now_us(), _now_us(), execution_id))

        return new

    def prune(self, retention: Retention, *, now_us: int | None = None) -> int:
        now = now_us or _now_us()
        before = 0 if retention.days is None else now - round(retention.days * 86_400e6)
        keep = -1 if retention.keep is None else retention.keep
        total = 0
        while True:
            with self._writer.use() as connection, transaction(connection):
                old = [row[0] for row in connection.execute(OLD, (before, keep, keep, PRUNE_BATCH))]
                for statement in FORGET if old else ():
                    connection.execute(statement, (msgspec.json.encode(old).decode(),))

                if len(old) < PRUNE_BATCH:
                    connection.execute(UNUSED_DEFINITIONS)

            total += len(old)
            if len(old) < PRUNE_BATCH:
                return total

    def _open(self) -> sqlite3.Connection:
        return open_to_write(self.path, BUSY_SECONDS, full=self.durability == "full")


def _now_us() -> int:
    return time.time_ns() // 1_000
