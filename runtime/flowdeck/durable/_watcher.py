"""The thread that notices new inbox rows and hands them to the executions of this process.

It asks ``PRAGMA data_version`` every 40 ms, which reads no page of the file, and looks at the inbox only when another
connection wrote something. Whoever writes to the inbox from this process :func:`rings <ring>`, so that nobody waits for
the next look: a server answers its own runs at once. It exists while an execution is open and ends shortly after the
last one has.

Exactly once, in the order of ids: ids rise in commit order, so everything above the last id looked at is new. An
execution that is watched from now on gets first what lay there for it up to that id, read in the same snapshot.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from flowdeck.durable._handle import Handle
from flowdeck.durable._signal import Signal
from flowdeck.durable._values import decode
from flowdeck.durable.statedb import StoreBusy, connect_readonly, file_id
from flowdeck.execution.control import Controlled, InboxRow

__all__ = ["Watched", "Watcher", "ring"]

TICK_SECONDS: Final = 0.04
"""Time between two looks. Measured: 0.4 % of a core on a small virtual machine, nearly all of it the waking up."""

LINGER_TICKS: Final = 20
"""Ticks without an open execution after which the thread ends; a program that runs one short flow after another
should not start a thread for each."""

READ_SECONDS: Final = 1.0
"""How long one look waits for a lock; in WAL mode only recovery after a crash takes one."""

RETRY_SECONDS: Final = 0.5
"""Pause after the file could not be read."""

IDS_PER_QUERY: Final = 500

_COLUMNS = "i.id, i.execution_id, i.kind, i.target, i.payload, i.dedup_key, i.actor, i.created_us"
_PENDING = "(i.outcome IS NULL OR i.outcome = 'early')"
# Only the present owner is handed a row: an execution that was taken over by another process is not ours any
# more.
_FROM = f"SELECT {_COLUMNS} FROM inbox i JOIN executions e ON e.id = i.execution_id AND e.writer = ? WHERE"

_RawRow = tuple[int, str, str, str | None, str, str, str | None, int]


_watchers: dict[str, weakref.WeakSet[Watcher]] = {}


def ring(path: Path) -> None:
    """Let the watchers this process has on a file look now. Where there is none, nothing happens."""
    for watcher in list(_watchers.get(os.path.realpath(path), ())):
        watcher.look_now()


class Watched:
    """An execution and how far the inbox was handed to it. One object per opening, so a reload starts afresh."""

    __slots__ = ("active", "execution", "last_id")

    def __init__(self, execution: Controlled) -> None:
        self.execution = execution
        self.active = False
        """Set by the watcher once the execution's row is committed."""
        self.last_id = 0
        """Id of the last row that was handed over."""


class Watcher:
    """Watches the inbox on behalf of one :class:`~flowdeck.durable.control.StateControl`."""

    def __init__(
        self,
        path: Path,
        writer: Callable[[], str],
        ack: Callable[[int, str, str | None], None],
        problem: Callable[[str, str], None],
    ) -> None:
        self._path = path
        self._writer = writer
        self._ack = ack
        self._problem = problem
        self._handle: Any = self._new_handle()
        self._file: tuple[int, int] | None = None
        self._last_id: int | None = None
        """Id of the newest row at the last look; ``None`` before the first."""
        self._open: dict[str, Watched] = {}
        self._new: deque[Watched] = deque()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._rung = Signal()
        self._thread: threading.Thread | None = None
        self._counts = {"delivered": 0, "delivery_failures": 0, "looks": 0}
        _watchers.setdefault(os.path.realpath(path), weakref.WeakSet()).add(self)

    def _new_handle(self) -> Any:
        return Handle(self._path, lambda: connect_readonly(self._path, READ_SECONDS))

    def add(self, execution: Controlled) -> Watched:
        """Take an execution in. Nothing is delivered before :meth:`watch` names it."""
        watched = self._open[execution.id] = Watched(execution)
        return watched

    def remove(self, execution_id: str) -> None:
        """Deliver nothing more to an execution."""
        self._open.pop(execution_id, None)

    def watch(self, committed: Iterable[Watched]) -> None:
        """Begin to deliver to these, whose rows are committed. Starts the thread if there is none."""
        self._new.extend(committed)
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                thread = threading.Thread(target=self._run, name="flowdeck-inbox", daemon=True)
                # Refused while the interpreter shuts down, when nobody could act on an answer any more.
                with suppress(RuntimeError):
                    thread.start()
                    self._thread = thread

    def look_now(self) -> None:
        """Do not wait for the next tick. From any thread; never waits."""
        self._rung.set()

    def stop(self, timeout: float) -> None:
        """End the thread; nothing is delivered afterwards."""
        self._stop.set()
        self._rung.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def statistics(self) -> dict[str, int]:
        """Return delivered, delivery_failures, looks (reads of the inbox), watched (open executions) and watching."""
        return {**self._counts, "watched": len(self._open), "watching": int(self._thread is not None)}

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        version: tuple[int, int] | None = None
        idle = 0
        while True:
            new = [self._new.popleft() for _ in range(len(self._new))]
            try:
                with self._handle.use() as connection:
                    now = self._handle.generation, int(connection.execute("PRAGMA data_version").fetchone()[0])
                    rows = self._look(connection, new) if new or now != version else []

                version = now
                for row in rows:
                    self._deliver(row)

                self._rung.wait(TICK_SECONDS)
            except Exception as error:
                if not isinstance(error, StoreBusy):
                    self._problem("watch", f"cannot read the inbox: {error}. It is tried again.")
                # What was not handed over when the reading broke off is looked for again.
                self._new.extend(list(self._open.values()))
                self._stop.wait(RETRY_SECONDS)

            idle = 0 if self._open or self._new else idle + 1
            if (idle >= LINGER_TICKS or self._stop.is_set()) and self._ended():
                return

    def _ended(self) -> bool:
        # watch() appends before it takes the lock, so either we see its executions here or it sees no thread.
        with self._lock:
            if self._new and not self._stop.is_set():
                return False

            self._handle.close()
            self._thread = None
            return True

    def _look(self, connection: sqlite3.Connection, new: list[Watched]) -> list[_RawRow]:
        """Return what lies there for ``new`` ones, then what came for anybody since the last look."""
        self._counts["looks"] += 1
        if self._file != (found := file_id(self._path)):
            # Another file than before: the ids of its rows have nothing to do with those of the former.
            self._file = found
            self._last_id = None
            for watched in list(self._open.values()):
                watched.last_id = 0

        for watched in new:
            watched.active = True

        ids = [watched.execution.id for watched in new]
        writer = self._writer()
        connection.execute("BEGIN")
        try:
            top = int(connection.execute("SELECT coalesce(max(id), 0) FROM inbox").fetchone()[0])
            seen = top if self._last_id is None else self._last_id
            rows: list[_RawRow] = []
            for start in range(0, len(ids), IDS_PER_QUERY):
                some = ids[start : start + IDS_PER_QUERY]
                marks = ",".join("?" * len(some))
                query = f"{_FROM} {_PENDING} AND i.execution_id IN ({marks}) AND i.id <= ? ORDER BY i.id"
                rows += connection.execute(query, (writer, *some, seen)).fetchall()

            if top > seen:
                query = f"{_FROM} i.id > ? AND {_PENDING} ORDER BY i.id"
                rows += connection.execute(query, (writer, seen)).fetchall()
        finally:
            if connection.in_transaction:
                connection.execute("COMMIT")

        self._last_id = top
        return rows

    def _deliver(self, row: _RawRow) -> None:
        watched = self._open.get(row[1])
        # One that is not active yet gets the row when it is; a row that was handed over is not handed over again.
        if watched is None or not watched.active or row[0] <= watched.last_id:
            return

        watched.last_id = row[0]
        try:
            payload = decode(row[4])
        except ValueError as error:
            self._ack(row[0], "rejected", f"the payload is not JSON: {error}")
            return

        try:
            watched.execution.deliver(InboxRow(row[0], row[1], row[2], row[3], payload, row[5], row[6], row[7]))
            self._counts["delivered"] += 1
        except Exception as error:
            # Not acked: the row stays for whoever owns the execution next, and the sender sees that nobody took it.
            self._counts["delivery_failures"] += 1
            self._problem("delivery", f"execution {row[1]} could not take inbox row {row[0]}: {error!r}")
