"""The ``sqlite`` environment: one database, with a time limit, a row limit and nothing attached.

``config``: ``path`` (``:memory:`` by default). ``policy``: ``workspace_roots`` and the other path rules, ``read_only``,
``timeout_seconds``, ``max_rows``.
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
TIMEOUT_SECONDS: Final = 30.0
_READS: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE,
     sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT}
)  # fmt: skip
_NEVER: Final = frozenset({sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH})
_PRAGMAS: Final = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"})


class Sqlite:
    """The resource of a ``sqlite`` environment. Calls take turns."""

    def __init__(self, path: str, policy: Mapping[str, Any]) -> None:
        self.path = path
        self._read_only = bool(policy.get("read_only"))
        self._timeout = float(policy.get("timeout_seconds") or TIMEOUT_SECONDS)
        self._max_rows = int(policy.get("max_rows") or MAX_ROWS)
        self._turn = threading.Lock()
        mode = "ro" if self._read_only else "rwc"
        name = ":memory:" if path == ":memory:" else f"file:{quote(path)}?mode={mode}"
        self._connection = sqlite3.connect(
            name, uri=path != ":memory:", check_same_thread=False, isolation_level=None, timeout=self._timeout
        )
        self._connection.row_factory = sqlite3.Row
        self._connection.set_authorizer(self._authorise)

    def _authorise(self, code: int, first: str | None, second: str | None, *_: Any) -> int:
        if code in _NEVER or (code == sqlite3.SQLITE_FUNCTION and (second or "").lower() == "load_extension"):
            return sqlite3.SQLITE_DENY

        if code == sqlite3.SQLITE_PRAGMA:
            return sqlite3.SQLITE_OK if (first or "").lower() in _PRAGMAS else sqlite3.SQLITE_DENY

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
        work = asyncio.get_running_loop().run_in_executor(None, self._query, sql, parameters, limit)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._connection.interrupt()
            raise
        except sqlite3.DatabaseError as problem:
            if "not authorized" in str(problem) or "prohibited" in str(problem):
                raise ExecutionEnvironmentRefused(
                    f"the query is not allowed ({problem}): no ATTACH, no extensions, no settings"
                    + (", and this database is read-only" if self._read_only else "")
                ) from problem

            raise

    def _query(self, sql: str, parameters: Any, limit: float) -> dict[str, Any]:
        """In a thread, when it is its turn; the time it waited for that does not count."""
        with self._turn:
            late = threading.Event()

            def interrupt() -> None:
                late.set()
                self._connection.interrupt()

            alarm = threading.Timer(limit, interrupt)
            alarm.daemon = True
            alarm.start()
            try:
                return self._rows(sql, parameters)
            except sqlite3.OperationalError as problem:
                if late.is_set():
                    raise ExecutionEnvironmentTimeout(
                        f"the query took longer than {limit} s and was interrupted"
                    ) from problem

                raise
            finally:
                alarm.cancel()
                alarm.join()  # or it might interrupt the next one

    def _rows(self, sql: str, parameters: Any) -> dict[str, Any]:
        cursor = self._connection.execute(sql, parameters)
        try:
            rows = cursor.fetchmany(self._max_rows + 1)
            columns = [each[0] for each in cursor.description or ()]
        finally:
            cursor.close()

        kept = [dict(row) for row in rows[: self._max_rows]]
        changed = cursor.rowcount if not columns else len(kept)
        return {"columns": columns, "rows": kept, "row_count": changed, "truncated": len(rows) > self._max_rows}

    def ping(self) -> None:
        """Raise unless the database answers."""
        with self._turn:
            self._connection.execute("SELECT 1").fetchone()

    def close(self) -> None:
        with self._turn:
            self._connection.close()


class SqliteProvider:
    """Makes :class:`Sqlite` resources."""

    kind = "sqlite"

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
