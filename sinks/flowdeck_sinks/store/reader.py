"""SQL over a store from Python: an in-memory DuckDB with the views, which takes no lock and writes no file.

:func:`query` for one question, :class:`Reader` for many, :func:`connect` for a bare DuckDB connection.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final

from flowdeck.layout import Layout, is_locked, reap_writers
from flowdeck_sinks.store._duckdb import as_pattern, quoted, require_duckdb
from flowdeck_sinks.store.catalog import SEED, ensure_catalog
from flowdeck_sinks.store.views import view_definitions

__all__ = ["QueryRefused", "Reader", "Result", "connect", "query"]

BATCH_ROWS: Final = 2048
"""Rows fetched at a time: DuckDB's own vector size."""

VANISHED_TRIES: Final = 4
"""Further tries when a file vanished. Files go in batches, minutes apart, so the second try is already rare."""

_QUERY_WORDS: Final = frozenset({"select", "from", "with", "values", "pivot", "unpivot", "table", "describe", "show"})
_EXPLAIN: Final = re.compile(r"\s*explain\s+(analyze\s+)?(\([^)]*\)\s*)?", re.IGNORECASE)
_COMMENT: Final = re.compile(r"\A(\s+|--[^\n]*(\n|\Z)|/\*.*?\*/)+", re.DOTALL)
_VANISHED: Final = re.compile(r"No such file|Cannot open file|No files found", re.IGNORECASE)


class QueryRefused(ValueError):
    """The SQL does more than read."""


class Result:
    """The answer to a query: column names, their SQL types, and rows fetched as they are asked for.

    Iterate over it for rows (tuples), or over :meth:`batches` for lists of rows.
    """

    def __init__(self, connection: Any, *, closing: Reader | None = None) -> None:
        self._connection = connection
        self._closing = closing
        described = connection.description or []
        self.columns: list[str] = [column[0] for column in described]
        self.types: list[str] = [str(column[1]) for column in described]

    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows in lists of up to 2048."""
        try:
            while rows := self._connection.fetchmany(BATCH_ROWS):
                yield rows
        finally:
            self.close()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for batch in self.batches():
            yield from batch

    @property
    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows, once."""
        return iter(self)

    def close(self) -> None:
        """Let go of the rows not fetched; closes the connection of a one-off query. Idempotent."""
        if self._closing is not None:
            self._closing.close()
            self._closing = None


class Reader:
    """A connection to a store's views that answers queries and nothing else.

    Args:
        store: The store's directory.
        resumable: Executions that ``state.db`` holds as resumable; they are not called lost.
        threads: DuckDB threads; its own choice when omitted.

    Raises:
        StoreError: There is no store, it cannot be read, or DuckDB is missing.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        *,
        resumable: Iterable[str] = (),
        threads: int | None = None,
    ) -> None:
        self.layout = Layout.open(store)
        self._duckdb = require_duckdb()
        self._connection = connect(store, resumable=resumable, threads=threads)

    def query(self, sql: str, parameters: Sequence[Any] | dict[str, Any] | None = None) -> Result:
        """Run one query and return its result. The previous result of this reader ends.

        A file that vanishes between listing and opening (it was published or pruned) makes it run again.

        Raises:
            QueryRefused: The statement is not a query.
            duckdb.Error: As DuckDB reports it; ``duckdb.InterruptException`` after :meth:`interrupt`.
        """
        self._refuse_all_but_queries(sql)
        refresh_writers(self._connection, self.layout)
        for _ in range(VANISHED_TRIES):
            try:
                return self._run(sql, parameters)
            except self._duckdb.IOException as error:
                if not _VANISHED.search(str(error)):
                    raise

        return self._run(sql, parameters)

    def interrupt(self) -> None:
        """Stop the running query. Called from another thread."""
        self._connection.interrupt()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._connection.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, sql: str, parameters: Sequence[Any] | dict[str, Any] | None) -> Result:
        result = Result(self._connection.execute(sql, parameters))
        zoned = [
            name for name, kind in zip(result.columns, result.types, strict=True) if kind == "TIMESTAMP WITH TIME ZONE"
        ]
        if not zoned:
            return result

        # The Python client needs pytz for these. The connection's zone is UTC, so nothing is lost without it.
        names = ", ".join(f'CAST("{name}" AS TIMESTAMP) AS "{name}"' for name in (n.replace('"', '""') for n in zoned))
        inner = sql.strip().rstrip(";")
        return Result(self._connection.execute(f"SELECT * REPLACE ({names}) FROM (\n{inner}\n)", parameters))

    def _refuse_all_but_queries(self, sql: str) -> None:
        kinds = [statement.type.name for statement in self._connection.extract_statements(sql)]
        text = _COMMENT.sub("", sql)
        word = text.lstrip("( ").split(None, 1)[0].lower() if text.strip() else ""
        if kinds == ["EXPLAIN"]:
            # EXPLAIN ANALYZE runs what it explains.
            self._refuse_all_but_queries(_EXPLAIN.sub("", text, count=1))
            return

        pivot = kinds in (["MULTI"], ["CREATE", "SELECT"]) and word in _QUERY_WORDS
        if kinds != ["SELECT"] and not pivot:
            raise QueryRefused(
                "Only one query at a time is run here (SELECT, FROM, WITH, DESCRIBE, EXPLAIN ...), and nothing that "
                "writes or changes settings. To work on a copy, use flowdeck_sinks.store.connect() and "
                "CREATE TABLE ... AS FROM events."
            )


def connect(
    store: str | os.PathLike[str],
    *,
    resumable: Iterable[str] = (),
    threads: int | None = None,
) -> Any:
    """Return an in-memory DuckDB connection with the store's views.

    It sees new events with every query, takes no lock, and cannot reach files outside the store. For SQL you did
    not write yourself use :class:`Reader`, which also refuses ``COPY`` into the store.

    Args:
        store: The store's directory.
        resumable: Executions that ``state.db`` holds as resumable; they are not called lost.
        threads: DuckDB threads; its own choice when omitted.

    Raises:
        StoreError: There is no store, it cannot be read, or DuckDB is missing.
    """
    layout = Layout.open(store)
    duckdb = require_duckdb()
    ensure_catalog(layout)
    settings = {"autoload_known_extensions": "false", "autoinstall_known_extensions": "false"}
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("SET TimeZone = 'UTC'")
    if threads is not None:
        connection.execute(f"SET threads = {int(threads)}")
    connection.execute("CREATE TABLE _dead_writers (writer VARCHAR)")
    connection.execute("CREATE TABLE _resumable (execution_id VARCHAR)")
    kept = [[execution_id] for execution_id in resumable]
    if kept:
        connection.executemany("INSERT INTO _resumable VALUES (?)", kept)
    refresh_writers(connection, layout)
    for statement in view_definitions(layout, with_parts=(layout.parts / SEED).exists(), in_memory=True):
        connection.execute(statement)
    allowed = {f"{layout.root}/", f"{as_pattern(layout.root)}/"}  # both are compared as text
    connection.execute(f"SET allowed_directories = [{', '.join(map(quoted, allowed))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def refresh_writers(connection: Any, layout: Layout) -> None:
    """Tell the views of a :func:`connect` connection which writers were killed since the last look."""
    reap_writers(layout)
    # What could not be removed (another user's store) is listed instead.
    try:
        dead = [path.stem for path in layout.writers.glob("*.lock") if not is_locked(path)]
    except OSError:
        dead = []
    connection.execute("DELETE FROM _dead_writers")
    if dead:
        connection.executemany("INSERT INTO _dead_writers VALUES (?)", [[writer] for writer in dead])


def query(
    store: str | os.PathLike[str],
    sql: str,
    parameters: Sequence[Any] | dict[str, Any] | None = None,
    *,
    resumable: Iterable[str] = (),
) -> Result:
    """Ask one question; the connection closes with the result.

    Raises:
        StoreError, QueryRefused, duckdb.Error: As :class:`Reader`.
    """
    reader = Reader(store, resumable=resumable)
    try:
        result = reader.query(sql, parameters)
    except BaseException:
        reader.close()
        raise

    result._closing = reader
    return result
