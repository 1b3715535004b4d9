"""``state.db``: what is open now. Its tables, its format number and how a connection to it is opened.

The file holds executions, their interrupts and the inbox through which everything from outside arrives. It
is SQLite in WAL mode: readers never wait, one process writes at a time, and a killed process leaves a file
that the next one opens as it is. Times are microseconds since the Unix epoch; payloads are JSON text.

Every error is a :class:`flowdeck.layout.StoreError` whose message names the mend; :class:`StoreBusy` is the
only kind of its own.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from flowdeck.durable._inputs import INPUT_TABLES
from flowdeck.layout import (
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreIsFile,
    StoreNotFound,
    StorePermission,
    StoreTooNew,
    store_error,
)

__all__ = [
    "FORMAT",
    "MIGRATIONS",
    "StoreBusy",
    "connect",
    "connect_readonly",
    "explain",
    "file_id",
    "is_busy",
    "open_to_write",
    "prepare",
    "state_db_path",
]

FORMAT: Final = 2
"""The format this version writes, kept in ``PRAGMA user_version``. 2 added durable executions; 1 is read and raised."""

APPLICATION_ID: Final = 0x464C4F57
"""``FLOW``: tells a ``state.db`` from any other SQLite file."""


def _add_durable(connection: sqlite3.Connection) -> None:
    for statement in INPUT_TABLES:
        connection.execute(statement)


MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {1: _add_durable}
"""``{n: step}``: ``step(connection)`` turns format n into n + 1, inside the transaction that calls it."""

_ELSEWHERE: Final = "name another store with --store or FLOWDECK_STORE"

_SCHEMA: Final = (
    """
    CREATE TABLE executions (
        id                  TEXT PRIMARY KEY,
        writer              TEXT NOT NULL,     -- the owner: alive while writers/<writer>.lock is held
        status              TEXT NOT NULL,     -- the catalogue's states
        flow_name           TEXT NOT NULL,
        entrypoint          TEXT,              -- module:flow, when the flow can be imported again
        definition          TEXT,              -- fingerprint of the blueprint
        run_id              TEXT,
        root_run_id         TEXT,
        parent_execution_id TEXT,
        task_id             TEXT,
        tenant_id           TEXT,
        user_id             TEXT,
        started_us          INTEGER NOT NULL,
        updated_us          INTEGER NOT NULL,
        finished_us         INTEGER            -- null while it is open
    ) WITHOUT ROWID
    """,
    "CREATE INDEX executions_started ON executions(started_us)",
    "CREATE INDEX executions_open ON executions(started_us) WHERE finished_us IS NULL",
    """
    CREATE TABLE interrupts (
        id           TEXT NOT NULL,
        execution_id TEXT NOT NULL,
        status       TEXT NOT NULL,            -- waiting, resumed, cancelled, expired
        type         TEXT NOT NULL,
        record       TEXT NOT NULL,            -- the whole interrupt record as JSON
        opened_us    INTEGER NOT NULL,
        expires_us   INTEGER,
        closed_us    INTEGER,
        response     TEXT,                     -- JSON
        actor        TEXT,
        answer_row   INTEGER,                  -- the inbox row that won; null until somebody answered
        PRIMARY KEY (id, execution_id)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX interrupts_waiting ON interrupts(opened_us) WHERE status = 'waiting'",
    "CREATE INDEX interrupts_opened ON interrupts(opened_us)",
    "CREATE INDEX interrupts_of ON interrupts(execution_id, status)",
    """
    CREATE TABLE inbox (
        id           INTEGER PRIMARY KEY AUTOINCREMENT,
        execution_id TEXT NOT NULL,
        kind         TEXT NOT NULL,            -- resume, emit, intervene, cancel, start, timer
        target       TEXT,
        payload      TEXT NOT NULL,            -- JSON
        dedup_key    TEXT NOT NULL,
        actor        TEXT,
        created_us   INTEGER NOT NULL,
        outcome      TEXT,                     -- null until the owner applied or refused it
        detail       TEXT,
        acked_us     INTEGER,
        UNIQUE (execution_id, dedup_key)
    )
    """,
    # "early" rows wait for something that does not exist yet, so the next owner has to see them again.
    "CREATE INDEX inbox_pending ON inbox(execution_id, id) WHERE outcome IS NULL OR outcome = 'early'",
    *INPUT_TABLES,
)


class StoreBusy(StoreError):
    """Another process kept ``state.db`` locked for longer than the caller was willing to wait."""


def state_db_path(store: str | os.PathLike[str]) -> Path:
    """Return the ``state.db`` of a store folder; a path that ends in ``.db`` is taken as it is."""
    path = Path(store).expanduser().absolute()
    return path if path.suffix == ".db" else path / "state.db"


def connect(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """Open an existing ``state.db`` for writing, in autocommit mode.

    Args:
        path: The file; :func:`prepare` has created it.
        busy_timeout: Seconds to wait for another writer before ``database is locked`` is raised.

    Raises:
        sqlite3.Error: As SQLite reports it; :func:`explain` turns it into a :class:`StoreError`.
    """
    # mode=rw: a file that vanished must be an error here, not a new empty database without tables.
    connection = _open(path, "mode=rw", busy_timeout)
    try:
        # NORMAL survives a killed process. Only a power cut can take the last moments, and never the
        # file's integrity.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_size_limit = 4194304")
    except BaseException:
        connection.close()
        raise

    return connection


def open_to_write(path: Path, busy_timeout: float, *, full: bool = False) -> sqlite3.Connection:
    """Open a ``state.db``, made or migrated where that is needed. ``full``: commits survive a power cut.

    Raises:
        StoreError: it cannot be made or opened.
    """
    prepare(path, busy_timeout)
    connection = connect(path, busy_timeout)
    if full:
        connection.execute("PRAGMA synchronous = FULL")

    return connection


def connect_readonly(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """Open ``state.db`` for reading only; works in a folder that the caller may not write to.

    Raises:
        StoreError: Missing, not permitted, busy, damaged or too new.
    """
    if not path.exists():
        raise _missing(path)

    try:
        return _open_checked(path, "mode=ro", busy_timeout)
    except StoreError:
        # A reader of a WAL database needs its -shm file. Where it may not create one, and nothing is in the
        # log that could be missed, the file alone is the whole truth.
        log = path.with_name(path.name + "-wal")
        if os.access(path.parent, os.W_OK) or (log.exists() and log.stat().st_size > 0):
            raise

    return _open_checked(path, "mode=ro&immutable=1", busy_timeout)


def prepare(path: Path, busy_timeout: float) -> None:
    """Create ``state.db`` with mode 0600, or bring an older one up to :data:`FORMAT`. Idempotent, race-free.

    Raises:
        StoreNotFound: The store folder is not there.
        StoreTooNew: A newer Flowdeck wrote the file.
        StoreDamaged: The file is not a ``state.db``.
        StoreBusy: Another process holds it for longer than ``busy_timeout`` seconds.
        StorePermission, StoreFull, StoreIsFile: As their names say.
    """
    if path.is_dir():
        raise StoreDamaged(f"{path} is a directory; move it away, or {_ELSEWHERE}.")

    if not path.exists():
        _create_empty(path)
    elif not (os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK)):
        raise store_error(PermissionError(errno.EACCES, "not writable", str(path)), path.parent)

    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            with closing(connect(path, busy_timeout)) as connection:
                if _format_of(connection, path) < FORMAT:
                    connection.execute("PRAGMA journal_mode = WAL")
                    _upgrade(connection, path)

                return

        except sqlite3.Error as error:
            # The change into WAL mode does not wait for others by itself.
            if not is_busy(error) or time.monotonic() >= deadline:
                raise explain(error, path) from error

        time.sleep(0.01)


def _create_empty(path: Path) -> None:
    """Make an empty private file, if there is none.

    Under another name first: closing a descriptor drops every lock this process has on the file, so ``state.db`` itself
    must never be opened by anything but SQLite.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        # SQLite gives -wal and -shm the mode of the main file, so this one mode keeps all three private.
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()

    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(path) from error
    except OSError as error:
        raise store_error(error, path.parent) from error


def file_id(path: Path) -> tuple[int, int] | None:
    """Return what tells this file from another one made later at the same path; ``None`` when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None

    return found.st_dev, found.st_ino


def is_busy(error: BaseException) -> bool:
    """Tell a lock held by somebody else, which passes, from a fault, which may not."""
    return _primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def explain(error: sqlite3.Error, path: Path) -> StoreError:
    """Return the :class:`StoreError` that says what happened to the file and what to do."""
    code = _primary_code(error)
    if is_busy(error):
        return StoreBusy(f"{path} is locked by another process. Try again; if it stays, end the program that holds it.")

    if code == sqlite3.SQLITE_NOTADB:
        return StoreDamaged(f"{path} is not an SQLite file. Move it away, or {_ELSEWHERE}.")

    if code == sqlite3.SQLITE_CORRUPT:
        return StoreDamaged(
            f"{path} is damaged ({error}). Move it away, so that open work registers anew; the event history "
            "beside it is not affected."
        )

    if code == sqlite3.SQLITE_FULL:
        return StoreFull(f"No room for {path}: {error}. Free some space, or {_ELSEWHERE}.")

    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
        if not path.exists():
            return _missing(path)

        return StorePermission(
            f"{path} may not be used: {error}. Give this user (uid {os.geteuid()}) read and write permission on "
            f"the file and its directory, or {_ELSEWHERE}."
        )

    return StoreError(f"{path} cannot be used: {error}. Mend that, or {_ELSEWHERE}.")


def _open(path: Path, mode: str, busy_timeout: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?{mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=busy_timeout,
    )


def _open_checked(path: Path, mode: str, busy_timeout: float) -> sqlite3.Connection:
    try:
        connection = _open(path, mode, busy_timeout)
        try:
            if _format_of(connection, path) == 0:
                raise _missing(path)
        except BaseException:
            connection.close()
            raise

    except sqlite3.Error as error:
        raise explain(error, path) from error

    return connection


def _upgrade(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read again under the write lock: two processes may have seen an empty file at the same time.
        found = _format_of(connection, path)
        if found == 0:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        else:
            for number in range(found, FORMAT):
                MIGRATIONS[number](connection)

        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _format_of(connection: sqlite3.Connection, path: Path) -> int:
    """Return the format number, 0 for a file nobody has written to; refuse foreign and newer ones."""
    # One snapshot: between two of these questions another process may create the tables.
    own = not connection.in_transaction
    if own:
        connection.execute("BEGIN")
    try:
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        application = int(connection.execute("PRAGMA application_id").fetchone()[0])
        tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    finally:
        if own and connection.in_transaction:
            connection.execute("COMMIT")

    if application != APPLICATION_ID:
        if found or application or tables:
            raise StoreDamaged(f"{path} is an SQLite file of another program. Move it away, or {_ELSEWHERE}.")
        return 0

    if found > FORMAT:
        raise StoreTooNew(
            f"{path} has format {found}, written by a newer Flowdeck; this one reads up to format {FORMAT}. "
            f"Upgrade with `pip install -U flowdeck`, or {_ELSEWHERE}."
        )

    return found


def _primary_code(error: BaseException) -> int:
    # SQLite's extended codes carry the primary one in the low byte.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _missing(path: Path) -> StoreError:
    if path.parent.exists() and not path.parent.is_dir():
        return StoreIsFile(f"The store path {path.parent} is a file, not a directory. Move it, or {_ELSEWHERE}.")

    if not path.parent.is_dir():
        return StoreNotFound(
            f"No Flowdeck store at {path.parent}. Run a flow with --store {path.parent} to create it, or {_ELSEWHERE}."
        )

    return StoreNotFound(
        f"No {path.name} in {path.parent}: no observed execution has registered there yet. Run a flow first, or "
        f"{_ELSEWHERE}."
    )
