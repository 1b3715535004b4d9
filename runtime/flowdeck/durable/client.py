"""What is open, and how it is answered, from any process: the CLI, the TUI, a web handler.

Reading never waits for a writer. Writing adds one row to the inbox; only the process that owns the execution acts on
it. Who is first is decided here, in one transaction: the answer that is accepted marks the interrupt, every later one
is told ``conflict`` (or ``duplicate``, when it carries the same dedup key and value).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

from flowdeck.durable import _inputs
from flowdeck.durable._handle import Handle
from flowdeck.durable._queries import (
    Query,
    durable_info,
    executions,
    find_execution,
    find_interrupt,
    inbox,
    interrupts,
    resumable,
)
from flowdeck.durable._requests import Request, strict_json
from flowdeck.durable._rows import (
    AmbiguousExecution,
    AmbiguousInterrupt,
    AnswerResult,
    DurableInfo,
    ExecutionRow,
    InboxEntry,
    InterruptRow,
)
from flowdeck.durable._watcher import ring
from flowdeck.durable.postgres.address import address_of
from flowdeck.durable.statedb import connect_readonly, open_to_write, prepare, state_db_path
from flowdeck.durable.store import Point
from flowdeck.errors import ExecutionNotFound
from flowdeck.events.ids import new_id
from flowdeck.layout import Layout, StoreNotFound, is_writer_alive

__all__ = [
    "KINDS",
    "AmbiguousExecution",
    "AmbiguousInterrupt",
    "AnswerResult",
    "ControlClient",
    "DurableInfo",
    "ExecutionRow",
    "InboxEntry",
    "InterruptRow",
]

KINDS: Final = frozenset({"resume", "emit", "intervene", "cancel", "start", "timer"})
"""What an inbox row can ask for."""

POLL_SECONDS: Final = 0.01
"""Pause between two looks while :meth:`ControlClient.wait_outcome` waits; a look takes some microseconds."""

T = TypeVar("T")


class ControlClient:
    """Reads and answers over a store's ``state.db``. Thread-safe and fork-safe.

    A store in which no execution registered yet is empty, not an error; the file is picked up when it appears.

    Args:
        store_path: The store folder, the path of a ``state.db``, or the URL of a PostgreSQL store.
        busy_timeout: Seconds a write waits for other writers.

    Raises:
        StoreError: There is no usable store at the path; the message names the mend. Every method raises it too when
            the file is damaged, locked for too long, or not permitted.
    """

    def __new__(cls, store_path: Any, **options: Any) -> ControlClient:
        if cls is ControlClient and address_of(store_path) is not None:
            from flowdeck.durable.postgres.client import PostgresClient

            return super().__new__(PostgresClient)

        return super().__new__(cls)

    def __init__(self, store_path: str | os.PathLike[str], *, busy_timeout: float = 5.0) -> None:
        self.path: Path = state_db_path(store_path)
        self.layout = Layout(self.path.parent)
        self._busy_timeout = busy_timeout
        self._reader = Handle(self.path, lambda: connect_readonly(self.path, busy_timeout))
        self._writer = Handle(self.path, self._open_writer)
        if self.path == Path(store_path).expanduser().absolute():
            connect_readonly(self.path, busy_timeout).close()
        else:
            Layout.open(store_path)
            self.version()

    @property
    def place(self) -> str:
        """Where the executions are, for messages."""
        return str(self.path.parent)

    def close(self) -> None:
        """Close the connections. A later call opens them again."""
        self._reader.close()
        self._writer.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- reading -------------------------------------------------------------------------------------------------

    def list_executions(
        self,
        *,
        status: str | Iterable[str] | None = None,
        flow_name: str | None = None,
        task_id: str | None = None,
        open_only: bool = False,
        before_us: int | None = None,
        limit: int = 100,
    ) -> list[ExecutionRow]:
        """Return executions, the latest started first. ``before_us``: only those that started earlier (for paging)."""
        wanted = [status] if isinstance(status, str) else list(status or ())
        query = executions()
        query.where(f"e.status IN ({','.join('?' * len(wanted))})", *wanted, given=bool(wanted))
        query.where("e.flow_name = ?", flow_name, given=flow_name is not None)
        query.where("e.task_id = ?", task_id, given=task_id is not None)
        query.where("e.finished_us IS NULL", given=open_only)
        query.where("e.started_us < ?", before_us, given=before_us is not None)
        return self._rows(query, "e.started_us DESC", limit)

    def get_execution(self, execution_id: str) -> ExecutionRow | None:
        """Return one execution by its whole id."""
        query = executions()
        query.where("e.id = ?", execution_id)
        return next(iter(self._rows(query, "e.id", 1)), None)

    def find_execution(self, wanted: str) -> ExecutionRow | None:
        """Return the execution of this id, or the only one whose id begins, or else ends, with it; open ones first.

        Raises:
            AmbiguousExecution: Several fit.
        """
        return self._look(lambda connection: find_execution(connection, wanted), None)

    def durable_info(self, execution_id: str) -> DurableInfo | None:
        """Return what is committed of an execution; ``None`` when it is not durable."""
        return self._look(lambda connection: durable_info(connection, execution_id), None)

    def resumable(self) -> list[str]:
        """Return the open executions whose state is stored, so that somebody can go on with them."""
        return self._look(resumable, [])

    def history(self, execution_id: str) -> list[Point]:
        """Return the committed points of a durable execution, oldest first; it can be forked from any.

        Raises:
            ExecutionNotFound: It is not durable.
        """
        return self._look(lambda connection: _inputs.history(connection, execution_id), [])

    def stored_state(self, execution_id: str, at: int | None = None) -> dict[str, Any]:
        """Return the state of a durable execution after ``at`` inputs (by default all), in the form of ``save()``.

        Raises:
            ExecutionNotFound: It is not durable.
            ValueError: ``at`` is no committed point.
            SnapshotError: What is stored cannot be read: a class of a value is gone, or the file is damaged.
        """
        from flowdeck.execution.replica import replay

        stored = self._look(lambda connection: _inputs.read(connection, execution_id, at), None)
        if stored is None:
            raise ExecutionNotFound(f"no durable execution {execution_id!r} in {self.place}")

        replica = replay(stored.header, stored.plans, stored.definition, stored.snapshot, stored.batches)
        return replica.dump(0, stored.resource_keys)

    def list_interrupts(
        self,
        *,
        open_only: bool = True,
        execution_id: str | None = None,
        before_us: int | None = None,
        limit: int = 1_000,
    ) -> list[InterruptRow]:
        """Return interrupts, the longest open first; with ``open_only=False`` the closed ones too, latest first."""
        query = interrupts()
        query.where("i.status = 'waiting'", given=open_only)
        query.where("i.execution_id = ?", execution_id, given=execution_id is not None)
        query.where("i.opened_us < ?", before_us, given=before_us is not None)
        return self._rows(query, "i.opened_us" if open_only else "i.opened_us DESC", limit)

    def get_interrupt(self, interrupt_id: str) -> InterruptRow | None:
        """Return the interrupt of this id, or the only one whose id begins, or else ends, with it.

        Open interrupts go before closed ones. ``execution/interrupt`` names one where an id is used twice.

        Raises:
            AmbiguousInterrupt: Several fit.
        """
        return self._look(lambda connection: find_interrupt(connection, interrupt_id), None)

    def list_inbox(
        self, *, execution_id: str | None = None, pending_only: bool = False, limit: int = 1_000
    ) -> list[InboxEntry]:
        """Return inbox rows with their outcomes, the latest first."""
        query = inbox()
        query.where("execution_id = ?", execution_id, given=execution_id is not None)
        query.where("(outcome IS NULL OR outcome = 'early')", given=pending_only)
        return self._rows(query, "id DESC", limit)

    def owner_alive(self, writer: str) -> bool:
        """Tell whether the process that owns an execution still holds its writer lock."""
        return is_writer_alive(self.layout, writer)

    def version(self) -> int:
        """Return a number that changes whenever another connection wrote to ``state.db``; a look of microseconds."""
        return self._look(lambda connection: int(connection.execute("PRAGMA data_version").fetchone()[0]), 0)

    # -- writing -------------------------------------------------------------------------------------------------

    def answer(self, interrupt_id: str, value: Any, actor: str | None, dedup_key: str | None = None) -> AnswerResult:
        """Answer an interrupt; the first accepted answer wins.

        The value is checked against the interrupt's JSON Schema first. ``outcome`` is ``None`` when the answer is
        accepted, and the owner applies it within 250 ms if it lives (:meth:`wait_outcome`), else when the execution is
        taken up again. A refusal leaves the interrupt open for another answer.

        Args:
            interrupt_id: As for :meth:`get_interrupt`.
            value: JSON data.
            actor: Who answers; kept with the answer.
            dedup_key: A repetition with the same key and value is ``duplicate`` instead of ``conflict``.

        Raises:
            AmbiguousInterrupt: Several fit.
            StoreError: The answer could not be written.
        """
        interrupt = self.get_interrupt(interrupt_id)
        if interrupt is None:
            return AnswerResult(None, "unknown", f"no interrupt {interrupt_id!r} in {self.place}")

        return self.put_inbox("resume", interrupt.execution_id, interrupt.id, value, actor, dedup_key)

    def put_inbox(
        self,
        kind: str,
        execution_id: str,
        target: str | None,
        payload: Any,
        actor: str | None,
        dedup_key: str | None = None,
    ) -> AnswerResult:
        """Ask something of an execution.

        ``resume`` answers the interrupt ``target``; one that does not exist yet is accepted and kept. ``timer`` says
        that the time of the interrupt ``target`` has come: it expires now, whatever its own time. ``emit`` sends the
        event ``target``; ``intervene`` offers the payload at the point ``target``; ``cancel`` ends the run. ``start``
        asks whoever serves the flow ``target`` to run it under this execution id, once. All but ``start`` need an
        execution that is registered and not finished.

        Raises:
            ValueError: ``kind`` is none of these, or ``resume`` without a target.
            StoreError: The row could not be written.
        """
        if kind not in KINDS:
            raise ValueError(f"inbox kind {kind!r} is not one of {', '.join(sorted(KINDS))}")
        if kind in ("resume", "timer") and not target:
            raise ValueError(f"an inbox row of kind {kind!r} needs the interrupt id as its target")

        try:
            text = strict_json(payload)
        except (TypeError, ValueError, RecursionError) as error:
            return AnswerResult(None, "rejected", f"the value is not JSON: {error}")

        return self._submit(Request(kind, execution_id, target, text, actor, dedup_key or new_id()))

    def _submit(self, request: Request) -> AnswerResult:
        if request.kind == "start":
            prepare(self.path, self._busy_timeout)
        elif not self.path.exists():
            return AnswerResult(None, "unknown", f"no execution {request.execution_id!r} in {self.place}")

        with self._writer.use() as connection:
            result = request.submit(connection)

        ring(self.path)
        return result

    def wait_outcome(self, row_id: int, timeout: float) -> AnswerResult:
        """Wait at most ``timeout`` seconds until the owner has acted on an inbox row.

        Returns the outcome, ``None`` in it when nobody took the row in time (it stays in the inbox).
        """
        deadline = time.monotonic() + timeout
        seen = -1
        while True:
            version = self.version()
            if version != seen:
                seen = version
                found = self._look(lambda connection: connection.execute(_OUTCOME, (row_id,)).fetchone(), None)
                if found is None:
                    return AnswerResult(None, "unknown", f"no inbox row {row_id}")
                if found[0] is not None:
                    return AnswerResult(row_id, found[0], found[1])

            left = deadline - time.monotonic()
            if left <= 0:
                return AnswerResult(row_id, None, "the owner of the execution has not taken it yet")

            time.sleep(min(POLL_SECONDS, left))

    # -- connections ---------------------------------------------------------------------------------------------

    def _open_writer(self) -> sqlite3.Connection:
        return open_to_write(self.path, self._busy_timeout)

    def _stored_header(self, execution_id: str) -> dict[str, Any]:
        """Return what a durable execution began with, of whatever format; what became of it is not read.

        Raises:
            ExecutionNotFound: It is not durable.
            SnapshotError: What is stored is damaged.
        """
        found = self._look(lambda connection: _inputs.header(connection, execution_id), None)
        if found is None:
            raise ExecutionNotFound(f"no durable execution {execution_id!r} in {self.place}")

        return found

    def _look(self, question: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        try:
            with self._reader.use() as connection:
                return question(connection)
        except StoreNotFound:
            # Nobody registered yet, or whoever does has not finished creating the file.
            return nothing

    def _rows(self, query: Query, order: str, limit: int) -> list[Any]:
        return self._look(lambda connection: query.rows(connection, order, limit), [])


_OUTCOME: Final = "SELECT outcome, detail FROM inbox WHERE id = ?"
