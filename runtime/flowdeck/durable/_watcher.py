"""The thread that notices new inbox rows and hands them to the executions of this process.

It asks ``PRAGMA data_version`` every 25 ms, which reads no page of the file, and looks at the inbox only when another
connection wrote something. It exists while an execution is open and ends shortly after the last one has.

Exactly once: row ids rise in commit order, so everything above the last id looked at is new. An execution that is
watched from now on gets, once, what lay there for it up to that id. Both are read in one snapshot.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from flowdeck.durable._values import decode
from flowdeck.durable.statedb import connect_readonly, file_id, is_busy
from flowdeck.execution.control import Controlled, InboxRow
from flowdeck.layout import StoreError

__all__ = ["Watcher"]

TICK_SECONDS: Final = 0.025
"""Time between two looks. Measured: 0.1 % of a core."""

LINGER_TICKS: Final = 20
"""Ticks without an open execution after which the thread ends; a program that runs one short flow after another
should not start a thread for each."""

RETRY_SECONDS: Final = 0.5
"""Pause after the file could not be read."""

IDS_PER_QUERY: Final = 500

_COLUMNS = "i.id, i.execution_id, i.kind, i.target, i.payload, i.dedup_key, i.actor, i.created_us"
_PENDING = "(i.outcome IS NULL OR i.outcome = 'early')"
# Only the present owner is handed a row: an execution that was taken over by another process is not ours any
# more.
_FROM = f"SELECT {_COLUMNS} FROM inbox i JOIN executions e ON e.id = i.execution_id AND e.writer = ? WHERE"

_RawRow = tuple[int, str, str, str | None, str, str, str | None, int]


class Watcher:
    """Watches the inbox on behalf of one :class:`~flowdeck.durable.control.StateControl`."""

    def __init__(
        self,
        path: Path,
        writer: Callable[[], str],
        ack: Callable[[int, str, str | None], None],
        problem: Callable[[str, str], None],
    ) -> None:
        self.executions: dict[str, Controlled] = {}
        """The open executions of this process by id. Filled and emptied by the control's callers."""
        self._path = path
        self._writer = writer
        self._ack = ack
        self._problem = problem
        self._new: deque[str] = deque()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._counts = {"delivered": 0, "delivery_failures": 0, "looks": 0}

    def watch(self, execution_ids: Iterable[str]) -> None:
        """Begin to deliver to these executions, whose rows are committed. Starts the thread if there is none."""
        self._new.extend(execution_ids)
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="flowdeck-inbox", daemon=True)
                self._thread.start()

    def stop(self, timeout: float) -> None:
        """End the thread; nothing is delivered afterwards."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def statistics(self) -> dict[str, int]:
        """Return delivered, delivery_failures, looks (reads of the inbox) and watched (open executions)."""
        return {**self._counts, "watched": len(self.executions), "watching": int(self._thread is not None)}

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                self._watch_until_idle()
            except (sqlite3.Error, StoreError) as error:
                if not (isinstance(error, sqlite3.Error) and is_busy(error)):
                    self._problem("watch", f"cannot read the inbox in {self._path}: {error}. It is tried again")
                # What was half delivered when the reading broke off is looked at again from the start.
                self._new.extend(list(self.executions))
                self._stop.wait(RETRY_SECONDS)

            # watch() appends before it takes the lock, so either we see its ids here or it sees no thread.
            with self._lock:
                if self._stop.is_set() or not (self._new or self.executions):
                    self._thread = None
                    return

    def _watch_until_idle(self) -> None:
        # A local of this frame, never of the object: see the note in control.StateControl._run on forks.
        connection = connect_readonly(self._path, busy_timeout=1.0)
        try:
            version = -1
            last_id = 0
            idle = 0
            opened = file_id(self._path)
            while not self._stop.is_set() and idle < LINGER_TICKS:
                if file_id(self._path) != opened:
                    # Somebody put another file there; this one will never change again.
                    self._new.extend(list(self.executions))
                    return

                new = self._take_new()
                now = int(connection.execute("PRAGMA data_version").fetchone()[0])
                if new or now != version:
                    last_id = self._look(connection, new, last_id if version != -1 else None)
                    version = now

                self._stop.wait(TICK_SECONDS)
                idle = 0 if self.executions or self._new else idle + 1
        finally:
            connection.close()

    def _take_new(self) -> list[str]:
        return [self._new.popleft() for _ in range(len(self._new))]

    def _look(self, connection: sqlite3.Connection, new: list[str], last_id: int | None) -> int:
        """Deliver what lies there for ``new`` executions and what came since ``last_id``; return the new last id."""
        self._counts["looks"] += 1
        writer = self._writer()
        connection.execute("BEGIN")
        try:
            top = int(connection.execute("SELECT coalesce(max(id), 0) FROM inbox").fetchone()[0])
            seen = top if last_id is None else last_id
            rows: list[_RawRow] = []
            for start in range(0, len(new), IDS_PER_QUERY):
                ids = new[start : start + IDS_PER_QUERY]
                marks = ",".join("?" * len(ids))
                query = f"{_FROM} {_PENDING} AND i.execution_id IN ({marks}) AND i.id <= ? ORDER BY i.id"
                rows += connection.execute(query, (writer, *ids, seen)).fetchall()

            if top > seen:
                query = f"{_FROM} i.id > ? AND {_PENDING} ORDER BY i.id"
                rows += connection.execute(query, (writer, seen)).fetchall()
        finally:
            connection.execute("COMMIT")

        for row in rows:
            self._deliver(row)

        return top

    def _deliver(self, row: _RawRow) -> None:
        execution = self.executions.get(row[1])
        if execution is None:
            return

        try:
            payload = decode(row[4])
        except ValueError as error:
            self._ack(row[0], "rejected", f"the payload is not JSON: {error}")
            return

        try:
            execution.deliver(InboxRow(row[0], row[1], row[2], row[3], payload, row[5], row[6], row[7]))
            self._counts["delivered"] += 1
        except Exception as error:
            # Not acked: the row stays for whoever owns the execution next, and the sender sees that nobody
            # took it.
            self._counts["delivery_failures"] += 1
            self._problem("delivery", f"execution {row[1]} could not take inbox row {row[0]}: {error!r}")
