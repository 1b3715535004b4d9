"""Guarded connections to PostgreSQL: opened when needed, opened anew after they broke, never shared over a fork.

A transaction that broke off while it was being committed is not guessed about: the server is asked by the
transaction's number (``pg_xact_status``) as soon as it can be reached again. So a commit is never done twice, and
never given up although it was done.
"""

from __future__ import annotations

import functools
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from flowdeck.durable.postgres.address import Address
from flowdeck.durable.postgres.schema import create
from flowdeck.durable.statedb import StoreBusy
from flowdeck.layout import StoreError, StoreFull, StorePermission

try:
    import psycopg
    from psycopg.types.string import StrDumperUnknown, TextLoader
except ImportError as error:  # pragma: no cover
    raise StoreError("executions in PostgreSQL need the package psycopg: pip install 'flowdeck[postgres]'") from error

if TYPE_CHECKING:
    from psycopg.abc import Buffer

__all__ = ["Link", "Session", "StoreUnreachable", "connect"]

_DEFAULTS: Final = {
    "connect_timeout": 5,
    "application_name": "flowdeck",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""What libpq is told unless the URL says otherwise: a server that is gone is noticed within half a minute."""
IDLE_MS: Final = 5_000
"""A process that is frozen inside a transaction keeps its locks for so long at most."""
STATEMENT_MS: Final = 60_000
PATIENCE: Final = 10.0
"""How long a question that somebody waits for is asked again when the server is away."""
PAUSES: Final = (0.02, 0.5)
READ_ONLY: Final = "25006"

T = TypeVar("T")
Values = Sequence[Any] | Mapping[str, Any]


class StoreUnreachable(StoreBusy):
    """The PostgreSQL server cannot be reached now, or refused for a reason that passes."""


class _Dumper(StrDumperUnknown):
    """PostgreSQL's text cannot hold NUL, an id can: it is written as SUB 0, and SUB as SUB 1."""

    def dump(self, obj: str) -> Buffer | None:
        if "\x00" in obj or "\x1a" in obj:
            obj = obj.replace("\x1a", "\x1a1").replace("\x00", "\x1a0")

        return super().dump(obj)


class _Loader(TextLoader):
    def load(self, data: Buffer) -> Any:
        text = super().load(data)
        if isinstance(text, str) and "\x1a" in text:
            return text.replace("\x1a0", "\x00").replace("\x1a1", "\x1a")

        return text


def connect(address: Address) -> psycopg.Connection[Any]:
    """Open a connection whose statements find our tables, creating them if need be.

    Raises:
        psycopg.Error: as libpq or the server reports it.
        StoreTooNew: a newer Flowdeck made the tables.
    """
    given = psycopg.conninfo.conninfo_to_dict(address.url)
    ours = {key: value for key, value in _DEFAULTS.items() if key not in given}
    connection = psycopg.connect(address.url, autocommit=True, **ours)  # type: ignore[arg-type]
    try:
        connection.adapters.register_dumper(str, _Dumper)
        connection.adapters.register_loader("text", _Loader)
        connection.execute(
            f"SET search_path = {address.schema}; SET idle_in_transaction_session_timeout = {IDLE_MS}; "
            f"SET statement_timeout = {STATEMENT_MS}; SET default_transaction_isolation = 'read committed'; "
            "SET client_min_messages = warning".encode()
        )
        create(connection, address)
    except BaseException:
        connection.close()
        raise

    return connection


@functools.lru_cache(512)
def _spoken(statement: str) -> bytes:
    """Return a statement that is shared with ``state.db`` as PostgreSQL reads it."""
    text = statement.replace("%", "%%")
    text = re.sub(r"substr\(([\w.]+), -\?\)", r"right(\1, ?)", text)
    text = text.replace("SELECT value FROM json_each(?)", "SELECT jsonb_array_elements_text(?::jsonb)")
    text = text.replace("SELECT 1 FROM sqlite_master WHERE name = 'durable'", "SELECT 1")
    text = re.sub(r"(?<![:\w]):([a-z]\w*)", r"%(\1)s", text)
    return text.replace("?", "%s").encode()


class Session:
    """A connection in the hands of one thread. ``execute`` takes the statements that both stores share."""

    def __init__(self, connection: psycopg.Connection[Any], link: Link) -> None:
        self.connection = connection
        self.link = link

    @property
    def in_transaction(self) -> bool:
        return self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE

    def execute(self, statement: str, values: Values = ()) -> psycopg.Cursor[Any]:
        """Run a statement with ``?`` or ``:name`` in it."""
        return self.connection.execute(_spoken(statement), values or None)

    def executemany(self, statement: str, rows: Iterable[Values]) -> psycopg.Cursor[Any]:
        """Run a statement for each row, in one round trip."""
        cursor = self.connection.cursor()
        cursor.executemany(_spoken(statement), rows)
        return cursor

    def each(self, statement: str, rows: Iterable[Values]) -> None:
        """Run a statement of PostgreSQL's own for each row, in one round trip."""
        self.connection.cursor().executemany(statement.encode(), rows)

    def ask(self, statement: str, values: Values = ()) -> psycopg.Cursor[Any]:
        """Run a statement of PostgreSQL's own, with ``%s`` or ``%(name)s`` in it."""
        return self.connection.execute(statement.encode(), values or None)

    @contextmanager
    def transaction(self, begin: str = "BEGIN") -> Iterator[None]:
        """From BEGIN to a commit whose outcome is known.

        Raises:
            psycopg.Error: nothing was done.
        """
        self.ask(begin)
        try:
            yield
            self.commit()
        except BaseException:
            if not self.connection.closed and self.in_transaction:
                with suppress(psycopg.Error):
                    self.ask("ROLLBACK")

            raise

    def commit(self) -> None:
        """Commit; when the connection breaks meanwhile, find out what became of it.

        Raises:
            psycopg.Error: nothing was done.
        """
        number = self.ask("SELECT pg_current_xact_id_if_assigned()::text").fetchone()
        try:
            self.ask("COMMIT")
        except (psycopg.OperationalError, psycopg.InterfaceError):
            if number is None or number[0] is None or not self.connection.closed:
                raise

            if not self.link.was_committed(number[0]):
                raise


class Link:
    """One connection to a store. Thread-safe; a forked child gets one of its own."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connection: psycopg.Connection[Any] | None = None
        self._pid = os.getpid()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        _links.add(self)

    @contextmanager
    def use(self) -> Iterator[Session]:
        """Give the connection. What breaks it makes the next use open another.

        Raises:
            StoreError: for whatever the server reports, inside the block too.
        """
        with self._lock:
            try:
                yield Session(self._current(), self)
            except psycopg.Error as error:
                # One that has become a standby takes no writes: the next connection may find its successor.
                demoted = error.sqlstate == READ_ONLY
                if self._connection is not None and (demoted or not _at_rest(self._connection)):
                    self._drop()

                raise explain(error, self.address) from error
            except BaseException:
                if self._connection is not None and not _at_rest(self._connection):
                    self._drop()

                raise

    def run(self, work: Callable[[Session], T], *, begin: str | None = "BEGIN", patience: float = PATIENCE) -> T:
        """Do ``work`` in a transaction, again for as long as the server is away. ``begin=None``: without one.

        Raises:
            StoreUnreachable: it stayed away.
            StoreError: it refused.
        """
        deadline = time.monotonic() + patience
        pause = PAUSES[0]
        while True:
            try:
                with self.use() as session:
                    if begin is None:
                        return work(session)

                    with session.transaction(begin):
                        return work(session)

            except StoreUnreachable:
                if time.monotonic() + pause > deadline or self._stopped.wait(pause):
                    raise

            pause = min(pause * 2, PAUSES[1])

    def read(self, work: Callable[[Session], T], *, patience: float = PATIENCE) -> T:
        """Do ``work`` over one unchanging view of the store."""
        return self.run(work, begin="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", patience=patience)

    def was_committed(self, number: str) -> bool:
        """Ask, for as long as it takes, what became of a transaction whose COMMIT was not answered."""
        pause = PAUSES[0]
        while True:
            try:
                connection = connect(self.address)
                try:
                    row = connection.execute("SELECT pg_xact_status(%s::xid8)", (number,)).fetchone()
                finally:
                    connection.close()

                if row is not None and row[0] != "in progress":
                    return bool(row[0] == "committed")
            except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError):
                pass  # the server is away; when it is back, it knows
            except psycopg.Error:
                return False  # another server took its place, which never heard of it

            if self._stopped.wait(pause):
                return False

            pause = min(pause * 2, PAUSES[1])

    def stop(self) -> None:
        """Nobody is made to wait for the server any more."""
        self._stopped.set()

    def close(self) -> None:
        """Close the connection. A later use opens another."""
        if self._lock.acquire(timeout=1.0):
            try:
                self._drop()
            finally:
                self._lock.release()

    def _current(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self.address)

        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def _after_fork(self) -> None:
        # libpq knows that it is the parent's and does not say goodbye on its socket.
        self._connection = None
        self._lock = threading.Lock()
        self._pid = os.getpid()


def _at_rest(connection: psycopg.Connection[Any]) -> bool:
    return not connection.closed and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for link in list(_links):
        link._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)


_REFUSED: Final = (
    ("authentication failed", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    ("FATAL: role ", "28000"),
    ("FATAL: database ", "3D000"),
)


def explain(error: psycopg.Error, address: Address) -> StoreError:
    """Return the :class:`StoreError` that says what the server meant, and what to do."""
    said = (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
    # A refused login has no code in psycopg; its words are the server's and do not depend on ours.
    state = error.sqlstate or next((code for words, code in _REFUSED if words in said), "")
    if state in ("28000", "28P01"):
        return StorePermission(f"{address} refused the login: {said}. Mend the user or the password in the URL.")

    if state == "42501":
        return StorePermission(
            f"{address}: {said}. Let this user use the schema {address.schema}, or create it as the owner: "
            f"CREATE SCHEMA {address.schema} AUTHORIZATION <user>."
        )

    if state == "3D000":
        return StoreError(f"{address}: {said}. Create it: createdb <name>.")

    if state == "53100":
        return StoreFull(f"{address}: {said}. Free some space on the server.")

    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | psycopg.InternalError):
        return StoreUnreachable(f"{address} cannot be used now: {said}")

    return StoreError(f"{address} cannot be used: {said}.")
