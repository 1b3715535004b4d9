"""The ``sqlite`` environment: one database, with a time limit, a row limit and nothing attached.

``config``: ``path`` (``:memory:`` by default). ``policy``: ``workspace_roots`` and the other path rules, ``read_only``,
``allow_create``, ``allow_update`` and ``allow_delete`` (rows and tables), ``timeout_seconds``, ``max_rows``,
``max_output_bytes``. It reaches no network and runs no command, so what forbids these holds anyway.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from flowdeck.environments.paths import allowed_path
from flowdeck.environments.requirement import Handle, Requirement
from flowdeck.errors import ExecutionEnvironmentRefused, ExecutionEnvironmentTimeout

__all__ = ["MAX_ROWS", "Sqlite", "SqliteProvider"]

MAX_ROWS: Final = 10_000
MAX_BYTES: Final = 256 * 1024 * 1024
"""Of one value, and of one result unless ``max_output_bytes`` says less."""
TIMEOUT_SECONDS: Final = 30.0
_READS: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE,
     sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT}
)  # fmt: skip
_NEVER: Final = frozenset({sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH})
_CHANGES: Final = {
    "allow_create": frozenset(
        {sqlite3.SQLITE_INSERT, *(getattr(sqlite3, name) for name in dir(sqlite3) if name.startswith("SQLITE_CREATE_"))}
    ),
    "allow_update": frozenset({sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_ALTER_TABLE}),
    "allow_delete": frozenset(
        {sqlite3.SQLITE_DELETE, *(getattr(sqlite3, name) for name in dir(sqlite3) if name.startswith("SQLITE_DROP_"))}
    ),
}
"""What each policy key allows. SQLite asks about them one by one."""
_CATALOG: Final = frozenset({"sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_sequence"})
"""Tables SQLite itself writes on behalf of other statements; it refuses direct writes."""
_PRAGMAS: Final = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"})


class Sqlite:
    """The resource of a ``sqlite`` environment. Calls take turns."""

    def __init__(self, path: str, policy: Mapping[str, Any]) -> None:
        self.path = path
        self._policy = policy
        self._read_only = bool(policy.get("read_only"))
        self._timeout = float(policy.get("timeout_seconds") or TIMEOUT_SECONDS)
        self._max_rows = int(policy.get("max_rows") or MAX_ROWS)
        self._max_bytes = int(policy.get("max_output_bytes") or MAX_BYTES)
        denied = [codes for name, codes in _CHANGES.items() if policy.get(name) is False]
        self._denied = frozenset().union(*denied)
        self._turn = threading.Lock()
        mode = "ro" if self._read_only else "rwc"
        name = ":memory:" if path == ":memory:" else f"file:{quote(path)}?mode={mode}"
        self._connection = sqlite3.connect(
            name, uri=path != ":memory:", check_same_thread=False, isolation_level=None, timeout=self._timeout
        )
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BYTES)
        self._connection.row_factory = sqlite3.Row
        self._connection.set_authorizer(self._authorise)

    def _authorise(self, code: int, first: str | None, second: str | None, *_: Any) -> int:
        if code in _NEVER or (code == sqlite3.SQLITE_FUNCTION and (second or "").lower() == "load_extension"):
            return sqlite3.SQLITE_DENY

        if code == sqlite3.SQLITE_PRAGMA:
            return sqlite3.SQLITE_OK if (first or "").lower() in _PRAGMAS else sqlite3.SQLITE_DENY

        if code in self._denied and first not in _CATALOG:
            return sqlite3.SQLITE_DENY

        return sqlite3.SQLITE_DENY if self._read_only and code not in _READS else sqlite3.SQLITE_OK

    async def query(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Run one statement and return ``{columns, rows, row_count, truncated}``; rows are dicts.

        Raises:
            ExecutionEnvironmentTimeout: it took too long and was interrupted.
            ExecutionEnvironmentRefused: the policy does not allow it.
            sqlite3.Error: the database refuses it.
        """
        limit = self._timeout if timeout is None else min(timeout, self._timeout)
        call = _Query(self._connection)
        work = asyncio.get_running_loop().run_in_executor(None, self._query, call, sql, parameters, limit)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            call.stop()
            work.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody waits for it any more
            raise
        except sqlite3.DatabaseError as problem:
            denied = getattr(problem, "sqlite_errorcode", None) == sqlite3.SQLITE_AUTH
            if denied or "not authorized" in str(problem) or "prohibited" in str(problem):
                raise ExecutionEnvironmentRefused(
                    f"the query is not allowed ({problem}): no ATTACH, no extensions, no settings{self._forbids}"
                ) from problem

            raise

    @property
    def _forbids(self) -> str:
        kept = [f"{name} is False" for name in _CHANGES if self._policy.get(name) is False]
        return "".join(f", and its policy says {each}" for each in (["read_only"] if self._read_only else kept))

    def _query(self, call: _Query, sql: str, parameters: Any, limit: float) -> dict[str, Any]:
        """In a thread, when it is its turn; the time it waited for that does not count."""
        with self._turn:
            alarm = threading.Timer(limit, call.stop)
            alarm.daemon = True
            alarm.start()
            try:
                call.begin()
                return self._rows(sql, parameters)
            except sqlite3.OperationalError as problem:
                if call.stopped:
                    raise ExecutionEnvironmentTimeout(
                        f"the query took longer than {limit} s and was interrupted"
                    ) from problem

                raise
            finally:
                alarm.cancel()
                call.end()

    def _rows(self, sql: str, parameters: Any) -> dict[str, Any]:
        cursor = self._connection.execute(sql, parameters)
        kept: list[dict[str, Any]] = []
        size, cut = 0, False
        try:
            columns = [each[0] for each in cursor.description or ()]
            for row in cursor:
                size += sum(len(each) if isinstance(each, str | bytes) else 8 for each in row)
                cut = len(kept) >= self._max_rows or size > self._max_bytes
                if cut:
                    break

                kept.append(dict(row))
        finally:
            cursor.close()

        changed = cursor.rowcount if not columns else len(kept)
        return {"columns": columns, "rows": kept, "row_count": changed, "truncated": cut}

    def ping(self) -> None:
        """Raise unless the database answers."""
        with self._turn:
            self._connection.execute("SELECT 1").fetchone()

    def close(self) -> None:
        self._connection.interrupt()  # what runs ends with the environment
        with self._turn:
            self._connection.close()


class SqliteProvider:
    """Makes :class:`Sqlite` resources."""

    kind = "sqlite"
    policy_keys = frozenset(
        {"workspace_roots", "path_allowlist", "path_denylist", "read_only", *_CHANGES, "timeout_seconds", "max_rows",
         "max_output_bytes", "network_mode", "allowed_cmd_prefixes"}
    )  # fmt: skip

    async def async_ensure(
        self, *, requirement: Requirement, policy: Mapping[str, Any], existing_handle: Handle | None = None
    ) -> Mapping[str, Any]:
        path = str(requirement["config"].get("path") or ":memory:")
        if path != ":memory:":
            path = str(allowed_path(path, policy, "database"))

        return {"resource": await asyncio.to_thread(Sqlite, path, policy), "meta": {"path": path}}

    async def async_health_check(self, handle: Handle) -> str:
        await asyncio.to_thread(handle["resource"].ping)
        return "ready"

    async def async_release(self, handle: Handle) -> None:
        handle["resource"].close()  # here: at the interpreter's exit there are no threads to be had


class _Query:
    """One query and the one right to interrupt it: only while it runs, never the next one's."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.stopped = False
        self._connection = connection
        self._runs = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        with self._lock:
            if self.stopped:
                raise sqlite3.OperationalError("interrupted")

            self._runs = True

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            if self._runs:
                self._connection.interrupt()

    def end(self) -> None:
        with self._lock:
            self._runs = False
