"""The control plane over PostgreSQL: one writer thread, one watcher, one listener for each process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import psycopg

from flowdeck.durable._batch import Ack, Batch, Change
from flowdeck.durable._watcher import Watched, Watcher, _RawRow
from flowdeck.durable.control import ProblemCallback, StateControl
from flowdeck.durable.postgres.address import Address
from flowdeck.durable.postgres.bell import Bell
from flowdeck.durable.postgres.commits import write_commits
from flowdeck.durable.postgres.link import Link, Session
from flowdeck.durable.postgres.schema import NOW
from flowdeck.durable.statedb import StoreBusy
from flowdeck.execution.store import Commit
from flowdeck.layout import StoreError, boot_id

__all__ = ["LEASE_SECONDS", "PostgresControl", "beat"]

LEASE_SECONDS: Final = 30.0
"""The lease a process takes with its first commit, before its host renews it."""

LINGER_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 0.25

_LOCK: Final = "SELECT FROM executions WHERE id = ANY(%s::text[]) ORDER BY id FOR NO KEY UPDATE"
_BEAT: Final = f"""
    INSERT INTO owners (writer, until_us, boot, lock) VALUES (%s, {NOW} + %s, %s, %s)
    ON CONFLICT (writer) DO UPDATE SET until_us = excluded.until_us
"""
_GONE: Final = "DELETE FROM owners WHERE writer = %s"
# Never shortened: the host may have asked for a longer one.
_PROLONG: Final = " WHERE owners.until_us < excluded.until_us"
# Rows of all executions of this process: of one execution, ids rise in the order in which they were committed (whoever
# writes one holds the execution's row), of several they may not, so there is no "newest" to begin from.
_PENDING: Final = """
    SELECT i.id, i.execution_id, i.kind, i.target, i.payload, i.dedup_key, i.actor, i.created_us
    FROM inbox i JOIN executions e ON e.id = i.execution_id
    WHERE (i.outcome IS NULL OR i.outcome = 'early') AND e.writer = %s ORDER BY i.id
"""


def beat(session: Session, owner: str, seconds: float, boot: str | None, lock: str | None) -> None:
    """Say that a process lives, by the server's clock."""
    session.ask(_BEAT, (owner, round(seconds * 1e6), boot, lock))


class PostgresControl(StateControl):
    """A :class:`~flowdeck.durable.control.StateControl` whose transactions go to PostgreSQL.

    Args:
        address: where the executions are.
        writer: the id of this process, or a callable that returns it.
        lock: the file that is locked for as long as this process lives.
        lease: seconds that a commit prolongs the lease to, when it has run out.
    """

    _database_errors: ClassVar[tuple[type[BaseException], ...]] = (psycopg.Error,)
    _passing_errors: ClassVar[tuple[type[BaseException], ...]] = (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        psycopg.InternalError,
        psycopg.ProgrammingError,
    )

    def __init__(
        self,
        address: Address,
        writer: str | Callable[[], str],
        *,
        lock: Callable[[], str | None] = lambda: None,
        lease: float = LEASE_SECONDS,
        on_problem: ProblemCallback | None = None,
    ) -> None:
        self.address = address
        self.boot = boot_id()
        self.lock = lock
        self.bell = Bell(address)
        self._watcher: PostgresWatcher
        self.lease = lease
        self._beaten = -lease
        super().__init__(Path(str(address)), writer, on_problem=on_problem)

    def _new_handle(self) -> Any:
        return Link(self.address)

    def _new_watcher(self) -> PostgresWatcher:
        self._beaten = -self.lease
        return PostgresWatcher(self, self._writer, self._problem)

    def make_durable(self, durability: str) -> None:
        # Every commit waits for the server's disk, unless its administrator decided otherwise (synchronous_commit).
        self.durability = durability

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self.flush(timeout)
        self._closed = True
        self._handle.stop()
        super().close(max(0.0, deadline - time.monotonic()))
        self.bell.stop()
        if self._beaten > -self.lease:
            with suppress(StoreError):  # what this process still holds is free at once
                self._handle.run(lambda session: session.ask(_GONE, (self.writer,)), begin=None, patience=0.0)

        self._handle.close()

    def forget(self, target: Any) -> None:
        """Deliver nothing more to what was given back; what the same execution has become since is left as it is."""
        self._watcher.forget(target)

    # -- the writer's transactions -------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, connection: Session, changes: Iterable[Change]) -> Iterator[None]:
        """Lock the rows of all executions that are changed, in one order for all processes, and tell who listens."""
        changes = list(changes)
        names = sorted({change.execution_id for change in changes if not isinstance(change, Ack)})
        now = time.monotonic()
        beats = now - self._beaten > self.lease / 3
        with connection.transaction():
            if beats:
                self._first_beat(connection)

            if names:
                connection.ask(_LOCK, (names,))

            yield
            if changes:
                connection.ask("SELECT pg_notify(%s, '')", (self.address.channel,))

        if beats:
            self._beaten = now

    def keep_alive(self, session: Session) -> None:
        """Renew the lease when that is due: this process waits, and commits nothing meanwhile."""
        now = time.monotonic()
        if now - self._beaten > self.lease / 3:
            session.ask(_BEAT + _PROLONG, (self.writer, round(self.lease * 1e6), self.boot, self.lock()))
            self._beaten = now

    def _first_beat(self, connection: Session) -> None:
        connection.ask(
            _BEAT + _PROLONG,
            (self.writer, round(self.lease * 1e6), self.boot, self.lock()),
        )

    def _write_commits(self, connection: Session, commits: Sequence[Commit]) -> dict[int, Exception]:
        return write_commits(connection, commits) if commits else {}

    def _write(self, connection: Any, batch: Batch) -> None:
        try:
            with self._transaction(connection, batch.changes()):
                fenced = batch.write_into(connection)

            self._fenced(fenced)
        except self._passing_errors:
            raise
        except Exception as error:
            changes = list(batch.changes())
            if len(changes) == 1:
                self._lost(error)
                return

            for change in changes:
                single = Batch()
                single.add(change)
                self._write(connection, single)


class PostgresWatcher(Watcher):
    """A :class:`~flowdeck.durable._watcher.Watcher` that is woken by the listener."""

    def __init__(
        self,
        control: PostgresControl,
        writer: Callable[[], str],
        problem: Callable[[str, str], None],
    ) -> None:
        self._control = control
        self._address = control.address
        self._bell = control.bell
        super().__init__(control.path, writer, control.ack, problem)

    def _new_handle(self) -> Any:
        return Link(self._address)

    def watch(self, committed: Iterable[Watched]) -> None:
        super().watch(committed)
        self._bell.ring()

    def forget(self, target: Any) -> None:
        """Deliver nothing more to this opening of an execution."""
        watched = self._open.pop(target.id, None)
        if watched is not None and watched.execution is not target:
            self._open.setdefault(target.id, watched)

    def stop(self, timeout: float) -> None:
        self._stop.set()
        self._handle.stop()
        self._bell.ring()
        super().stop(timeout)

    def _run(self) -> None:
        heard = -1
        looked = idle = time.monotonic()
        while True:
            now = time.monotonic()
            new = [self._new.popleft() for _ in range(len(self._new))]
            count = self._bell.count
            try:
                if new or count != heard or now - looked >= self._bell.poll_seconds:
                    for row in self._handle.run(lambda session, new=new: self._pending(session, new), begin=None):
                        self._deliver(row)

                    heard, looked = count, now

                self._handle.run(self._control.keep_alive, begin=None)
                self._bell.wait(heard, self._bell.poll_seconds)
            except Exception as error:
                if not isinstance(error, StoreBusy):
                    self._problem("watch", f"cannot read the inbox: {error}. It is tried again.")

                self._new.extend(new)
                heard = -1
                self._stop.wait(RETRY_SECONDS)

            if self._open or self._new:
                idle = time.monotonic()

            if (time.monotonic() - idle > LINGER_SECONDS or self._stop.is_set()) and self._ended():
                return

    def _pending(self, session: Session, new: list[Watched]) -> list[_RawRow]:
        """Return what waits for executions of this process; what was handed over before is left out by its id."""
        self._counts["looks"] += 1
        for watched in new:
            watched.active = True

        return list(session.ask(_PENDING, (self._writer(),)).fetchall())
