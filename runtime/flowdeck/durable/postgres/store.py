"""The execution store over PostgreSQL: executions of many machines. Passive: nothing runs in it, it keeps and fences.

A process holds executions under its writer id for as long as its lease runs by the server's clock. The lock of a
process on the same machine is looked at, too: what a killed one held is free at once. What fences is the token of each
execution, never the lease: who lost the one and still writes is refused.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec

from flowdeck.durable import _inputs
from flowdeck.durable._forking import fork_of
from flowdeck.durable._hosted import HostedStore, inbox_row
from flowdeck.durable._work import FORK_ROW, PRUNE_BATCH
from flowdeck.durable.client import ControlClient
from flowdeck.durable.control import ProblemCallback
from flowdeck.durable.postgres.address import Address, parse
from flowdeck.durable.postgres.client import PostgresClient
from flowdeck.durable.postgres.control import LEASE_SECONDS, PostgresControl, beat
from flowdeck.durable.postgres.link import Link, Session
from flowdeck.durable.postgres.owners import dead_here, is_alive
from flowdeck.durable.postgres.schema import NOW
from flowdeck.durable.store import Claim, Point, Retention, Stored, Work
from flowdeck.errors import ExecutionBusy, ExecutionError, ExecutionExists, ExecutionFenced, ExecutionNotFound
from flowdeck.events.ids import new_id as draw_id
from flowdeck.execution.control import InboxRow

__all__ = ["PostgresStore", "open_postgres"]

# Three ways to have something to do, each over an index of its own.
_WORK: Final = f"""
    WITH found(key, why) AS (
        SELECT key, 'lost' FROM durable WHERE finished = 0 AND parked = 0 AND (blocked IS NULL OR %(blocked)s)
        UNION ALL
        SELECT key, 'timer' FROM durable
            WHERE finished = 0 AND parked = 1 AND wake_us IS NOT NULL AND wake_us <= {NOW}
            AND (blocked IS NULL OR %(blocked)s)
        UNION ALL
        SELECT d.key, 'inbox' FROM inbox i JOIN durable d ON d.execution_id = i.execution_id
            WHERE (i.outcome IS NULL OR i.outcome = 'early') AND i.outcome IS NULL AND d.finished = 0 AND d.parked = 1
            AND (d.blocked IS NULL OR %(blocked)s)
        UNION ALL
        SELECT key, 'blocked' FROM durable WHERE %(blocked)s AND finished = 0 AND blocked IS NOT NULL
    ), taken AS MATERIALIZED (
        SELECT writer FROM owners WHERE until_us > {NOW} AND writer <> ALL(%(dead)s::text[]) AND writer <> %(me)s
    )
    SELECT DISTINCT ON (d.key) d.execution_id, e.flow_name, e.entrypoint, d.token,
        CASE WHEN f.why = 'lost' AND e.writer = '' THEN 'released' ELSE f.why END
    FROM found f JOIN durable d ON d.key = f.key JOIN executions e ON e.id = d.execution_id
    WHERE e.flow_name = ANY(%(flows)s::text[]) AND e.writer NOT IN (SELECT writer FROM taken)
        AND (f.why <> 'lost' OR e.writer <> %(me)s)
    ORDER BY d.key LIMIT %(limit)s
"""
_WAITS: Final = """
    SELECT token, parked = 1 AND NOT EXISTS (
        SELECT FROM inbox i WHERE i.execution_id = d.execution_id AND i.outcome IS NULL
    ) FROM durable d WHERE execution_id = %s FOR NO KEY UPDATE
"""
_INBOX: Final = "SELECT id, execution_id, kind, target, payload, dedup_key, actor, created_us FROM inbox WHERE"
_OLD: Final = """
    SELECT id FROM executions e WHERE finished_us IS NOT NULL AND (finished_us < %s OR id IN (
        SELECT id FROM executions WHERE finished_us IS NOT NULL ORDER BY finished_us DESC OFFSET %s
    )) ORDER BY finished_us LIMIT %s FOR UPDATE SKIP LOCKED
"""
_KEYS: Final = "(SELECT key FROM durable WHERE execution_id = ANY(%s::text[]))"
_FORGET: Final = (
    f"DELETE FROM inputs WHERE key IN {_KEYS}",
    f"DELETE FROM snapshots WHERE key IN {_KEYS}",
    f"DELETE FROM headers WHERE key IN {_KEYS}",
    "DELETE FROM durable WHERE execution_id = ANY(%s::text[])",
    "DELETE FROM interrupts WHERE execution_id = ANY(%s::text[])",
    "DELETE FROM inbox WHERE execution_id = ANY(%s::text[])",
    "DELETE FROM executions WHERE id = ANY(%s::text[])",
)
EVERYTHING: Final = 2**62
WORKER_SECONDS: Final = 1.0
"""How long a worker's look is repeated while the server is away; the worker itself comes again."""


def open_postgres(
    url: str | os.PathLike[str] | Address,
    writer: str | Callable[[], str],
    durability: str = "full",
    *,
    lock: Callable[[], str | None] = lambda: None,
    lease: float = LEASE_SECONDS,
    on_problem: ProblemCallback | None = None,
) -> PostgresStore:
    """Open a PostgreSQL store, creating its schema if need be.

    Args:
        url: see :mod:`~flowdeck.durable.postgres.address`.
        writer: the id of this process, or a callable that returns it.
        durability: ``full`` or ``process`` (the same here: every commit waits for the server), or ``exit``.
        lock: returns the file that is locked for as long as this process lives.
        lease: seconds, until a host renews it.
        on_problem: see :func:`flowdeck.durable.open_control`.

    Raises:
        StoreError: the server cannot be used.
    """
    address = parse(url)
    link = Link(address)
    link.run(lambda session: None, begin=None)
    control = PostgresControl(address, writer, lock=lock, lease=lease, on_problem=on_problem)
    return PostgresStore(control, durability, link)


class PostgresStore(HostedStore):
    """An :class:`~flowdeck.durable.store.ExecutionStore` over PostgreSQL; see :func:`open_postgres`."""

    control: PostgresControl

    def __init__(self, control: PostgresControl, durability: str = "full", link: Link | None = None) -> None:
        self.path = self.address = control.address
        self._link = link or Link(control.address)
        self._client: PostgresClient | None = None
        self._lock = threading.Lock()
        self._heard = -1
        super().__init__(control, durability)

    def close(self, timeout: float) -> None:
        self.control.close(timeout)
        self._link.stop()
        self._link.close()
        if self._client is not None:
            self._client.close()

    # -- ownership -----------------------------------------------------------------------------------------------

    def _claimed(self, connection: Session, execution_id: str, token: int | None, force: bool) -> Claim:
        registered: Any = connection.ask(
            "SELECT writer, status FROM executions WHERE id = %s FOR NO KEY UPDATE", (execution_id,)
        ).fetchone()
        held: Any = connection.ask(
            "SELECT token, finished FROM durable WHERE execution_id = %s FOR NO KEY UPDATE", (execution_id,)
        ).fetchone()
        if held is None:
            raise ExecutionNotFound(f"no durable execution {execution_id!r} in {self.address}")

        present, finished = held
        writer, status = registered or ("", "")
        if finished:
            raise ExecutionError(f"execution {execution_id} is finished ({status})")

        if token is not None and token != present:
            raise ExecutionBusy(f"execution {execution_id} was taken up by another process just now")

        if not force and self._runs_elsewhere(connection, writer):
            raise ExecutionBusy(
                f"execution {execution_id} is held by the living process {writer}; ask it through the inbox, or "
                "end it first"
            )

        shared: Any = connection
        stored = _inputs.read(shared, execution_id)  # before the first change: a damaged one stays as it was
        connection.ask(
            "UPDATE durable SET token = token + 1, parked = 0, blocked = NULL WHERE execution_id = %s", (execution_id,)
        )
        if writer != self.owner:
            connection.ask("UPDATE executions SET writer = %s WHERE id = %s", (self.owner, execution_id))

        fields = {name: getattr(stored, name) for name in Stored.__struct_fields__}
        return Claim(**fields, token=int(present) + 1, flow_name=stored.header["flow"]["name"])

    def _runs_elsewhere(self, session: Session, writer: str) -> bool:
        return bool(writer) and writer != self.owner and is_alive(session, writer)

    def release(self, execution_id: str, token: int, *, blocked: str | None = None) -> bool:
        def work(session: Session) -> bool:
            session.ask("SELECT FROM executions WHERE id = %s FOR NO KEY UPDATE", (execution_id,))
            changed = session.ask(
                "UPDATE durable SET token = token + 1, blocked = %s "
                "WHERE execution_id = %s AND token = %s AND finished = 0",
                (blocked, execution_id, token),
            )
            if changed.rowcount != 1:
                return False

            session.ask("UPDATE executions SET writer = '' WHERE id = %s", (execution_id,))
            if blocked is not None:
                session.ask(
                    "UPDATE executions SET status = 'blocked_version', updated_us = %s WHERE id = %s",
                    (_now_us(), execution_id),
                )

            self._tell(session)
            return True

        return self._link.run(work)

    def give_back(self, execution_id: str, token: int) -> bool:
        """Give an execution that waits up, so that any process may go on; not if it stirs or was asked something.

        Raises:
            ExecutionFenced: another process has taken it over.
        """

        def work(session: Session) -> bool:
            session.ask("SELECT FROM executions WHERE id = %s FOR NO KEY UPDATE", (execution_id,))
            found: Any = session.ask(_WAITS, (execution_id,)).fetchone()
            if found is None or found[0] != token:
                raise ExecutionFenced(f"execution {execution_id} was taken over by another process")

            if found[1]:
                session.ask("UPDATE durable SET token = token + 1 WHERE execution_id = %s", (execution_id,))
                session.ask("UPDATE executions SET writer = '' WHERE id = %s", (execution_id,))
                self._tell(session)

            return bool(found[1])

        return self._link.run(work)

    def gone(self, writers: Collection[str]) -> set[str]:
        """Return which of these processes are gone: their lease has run out, or they were of this machine and ended."""
        return self._link.run(
            lambda session: {writer for writer in writers if not is_alive(session, writer)},
            begin=None,
            patience=WORKER_SECONDS,
        )

    def _tell(self, session: Session) -> None:
        session.ask("SELECT pg_notify(%s, '')", (self.address.channel,))

    def heartbeat(self, seconds: float) -> None:
        self._link.run(
            lambda session: beat(session, self.owner, seconds, self.control.boot, self.control.lock()), begin=None
        )

    def tokens(self, execution_ids: Collection[str]) -> dict[str, int]:
        query = "SELECT execution_id, token FROM durable WHERE execution_id = ANY(%s::text[])"
        rows = self._link.run(lambda s: s.ask(query, (list(execution_ids),)).fetchall(), begin=None)
        return {str(row[0]): int(row[1]) for row in rows}

    def work(self, flows: Collection[str], *, blocked: bool = False, limit: int = 100) -> list[Work]:
        def look(session: Session) -> list[Work]:
            values = {
                "flows": sorted(flows),
                "dead": dead_here(session),
                "me": self.owner,
                "blocked": blocked,
                "limit": limit,
            }
            return [Work(*row) for row in session.ask(_WORK, values).fetchall()]

        return self._link.run(look, begin=None, patience=WORKER_SECONDS)

    def starts(self, names: Collection[str]) -> list[InboxRow]:
        pending = "(outcome IS NULL OR outcome = 'early') AND outcome IS NULL AND kind = 'start'"
        return self._rows(f"{_INBOX} {pending} AND target = ANY(%s::text[]) ORDER BY id LIMIT 1000", (sorted(names),))

    def undelivered(self) -> bool:
        statement = (
            "SELECT FROM inbox i JOIN executions e ON e.id = i.execution_id "
            "WHERE (i.outcome IS NULL OR i.outcome = 'early') AND i.outcome IS NULL AND e.writer = %s LIMIT 1"
        )
        return self._link.run(
            lambda s: s.ask(statement, (self.owner,)).rowcount == 1, begin=None, patience=WORKER_SECONDS
        )

    def wait_change(self, timeout: float, stop: threading.Event) -> bool:
        deadline = time.monotonic() + timeout
        bell = self.control.bell
        while not stop.is_set():
            # Whoever stops us does not know of the bell, so it is not slept through.
            heard = bell.wait(self._heard, min(0.1, deadline - time.monotonic()))
            if heard != self._heard:
                self._heard = heard
                return True

            if time.monotonic() >= deadline:
                return False

        return False

    def _wake_after(self, after_us: int) -> int | None:
        statement = (
            "SELECT min(wake_us) FROM durable "
            "WHERE finished = 0 AND parked = 1 AND wake_us IS NOT NULL AND wake_us > %s"
        )
        row: Any = self._link.run(
            lambda s: s.ask(statement, (after_us,)).fetchone(), begin=None, patience=WORKER_SECONDS
        )
        return None if row[0] is None else int(row[0])

    # -- reading -------------------------------------------------------------------------------------------------

    def load(self, execution_id: str, at: int | None = None) -> Stored:
        def read(session: Any) -> Stored:
            return _inputs.read(session, execution_id, at)

        return self._link.read(read)

    def history(self, execution_id: str) -> list[Point]:
        def read(session: Any) -> list[Point]:
            return _inputs.history(session, execution_id)

        return self._link.read(read)

    @property
    def client(self) -> ControlClient:
        with self._lock:
            if self._client is None:
                self._client = PostgresClient(self.address)

            return self._client

    def read_inbox(self, execution_id: str) -> list[InboxRow]:
        pending = "execution_id = %s AND (outcome IS NULL OR outcome = 'early')"
        return self._rows(f"{_INBOX} {pending} ORDER BY id", (execution_id,))

    def _rows(self, statement: str, values: tuple[Any, ...]) -> list[InboxRow]:
        rows = self._link.run(lambda s: s.ask(statement, values).fetchall(), begin=None, patience=WORKER_SECONDS)
        return [inbox_row(row) for row in rows]

    # -- forks and retention -------------------------------------------------------------------------------------

    def fork(self, execution_id: str, at: int | None = None, *, new_id: str | None = None, actor: str | None) -> str:
        stored = self.load(execution_id, at)
        points = self.history(execution_id)
        beginning = self.load(execution_id, points[0].seq) if points else stored
        new = new_id or draw_id()
        header, snapshot = fork_of(stored, beginning, new, actor)
        keys = msgspec.json.encode(stored.resource_keys).decode()

        def work(session: Session) -> None:
            made: Any = session.ask(
                "INSERT INTO durable (execution_id, token, seq, parked, resource_keys, forked_from, forked_at) "
                "VALUES (%s, 1, 0, 0, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING key",
                (new, keys, execution_id, stored.seq),
            ).fetchone()
            if made is None:
                raise ExecutionExists(f"there is an execution {new} already")

            session.ask(
                "INSERT INTO headers (key, definition, body) VALUES (%s, %s, %s)", (made[0], stored.definition, header)
            )
            session.ask(
                "INSERT INTO snapshots (key, seq, base, definition, body) VALUES (%s, 0, 1, %s, %s)",
                (made[0], stored.definition, snapshot),
            )
            session.execute(FORK_ROW, (new, _now_us(), _now_us(), execution_id))
            self._tell(session)

        self._link.run(work)
        return new

    def prune(self, retention: Retention, *, now_us: int | None = None) -> int:
        now = now_us or _now_us()
        before = 0 if retention.days is None else now - round(retention.days * 86_400e6)
        keep = EVERYTHING if retention.keep is None else retention.keep

        def work(session: Session) -> int:
            old = [row[0] for row in session.ask(_OLD, (before, keep, PRUNE_BATCH)).fetchall()]
            for statement in _FORGET if old else ():
                session.ask(statement, (old,))

            session.ask(f"DELETE FROM owners WHERE until_us < {NOW} - 86400000000")
            return len(old)

        total = 0
        while True:
            count = self._link.run(work)
            total += count
            if count < PRUNE_BATCH:
                return total


def _now_us() -> int:
    return time.time_ns() // 1_000
