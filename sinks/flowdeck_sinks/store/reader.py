"""SQL over a store from Python: an in-memory DuckDB with the views, which takes no lock and writes no file.

:func:`query` for one question, :class:`Reader` for many, :func:`~flowdeck_sinks.store.connection.connect` for a DuckDB
connection.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final

from flowdeck.layout import StoreError
from flowdeck_sinks.store.connection import QueryRefused, StoreConnection, connect

__all__ = ["QueryRefused", "Reader", "Result", "connect", "newest_runs", "query"]

BATCH_ROWS: Final = 2048
"""Rows fetched at a time: DuckDB's own vector size."""

HOURS: Final = (1, 24, 24 * 30)
"""How far :func:`newest_runs` looks back before it reads all history."""
SMALL_BYTES: Final = 50_000_000
"""A history of this size is read as a whole: that takes as long as looking for less."""


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

    def arrow(self) -> Any:
        """Return the rows as a ``pyarrow.Table``.

        Raises:
            StoreError: pyarrow is not installed.
        """
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Arrow output on a DB-API result", UserWarning)
                return self._connection.to_arrow_table()
        except ImportError:
            raise StoreError("Arrow tables need pyarrow: pip install 'flowdeck[arrow]'") from None
        finally:
            self.close()

    def polars(self) -> Any:
        """Return the rows as a ``polars.DataFrame``.

        Raises:
            StoreError: polars or pyarrow is not installed.
        """
        try:
            import polars  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            raise StoreError("Polars frames need polars: pip install 'flowdeck[arrow]'") from None

        return polars.from_arrow(self.arrow())

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
        self.connection = connect(store, resumable=resumable, threads=threads, read_only=True)
        self.layout = self.connection.layout

    def query(self, sql: str, parameters: Sequence[Any] | dict[str, Any] | None = None) -> Result:
        """Run one query and return its result. The previous result of this reader ends.

        A file that vanishes between listing and opening (it was published or pruned) makes it run again.

        Raises:
            QueryRefused: The statement is not a query.
            duckdb.Error: As DuckDB reports it; ``duckdb.InterruptException`` after :meth:`interrupt`.
        """
        result = Result(self.connection.execute(sql, parameters))
        zoned = [
            name for name, kind in zip(result.columns, result.types, strict=True) if kind == "TIMESTAMP WITH TIME ZONE"
        ]
        if not zoned:
            return result

        # The Python client needs pytz for these. The connection's zone is UTC, so nothing is lost without it.
        names = ", ".join(f'CAST("{name}" AS TIMESTAMP) AS "{name}"' for name in (n.replace('"', '""') for n in zoned))
        inner = sql.strip().rstrip(";")
        return Result(self.connection.execute(f"SELECT * REPLACE ({names}) FROM (\n{inner}\n)", parameters))

    def interrupt(self) -> None:
        """Stop the running query. Called from another thread."""
        self.connection.interrupt()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self.connection.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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


def newest_runs(
    connection: StoreConnection, limit: int, columns: str = "*", condition: str = "true"
) -> StoreConnection:
    """Ask for the newest runs, the newest first, reading only as much history as that takes.

    Args:
        connection: From :func:`connect` (:attr:`Reader.connection`).
        limit: Most runs.
        columns: SQL list of columns of ``runs``.
        condition: SQL condition on them.

    Returns:
        The connection, which has the result.
    """
    order = "ORDER BY started_at DESC NULLS LAST, execution_id DESC"
    for hours in HOURS if connection.size() > SMALL_BYTES else ():
        row = connection.execute(
            f"SELECT count(*) FROM recent_runs({hours}) WHERE started_at > hours_ago({hours}) AND ({condition})"
        ).fetchone()
        if row[0] >= limit:
            recent = f"SELECT * FROM recent_runs({hours}) WHERE started_at > hours_ago({hours}) AND ({condition})"
            return connection.execute(f"SELECT {columns} FROM ({recent}) {order} LIMIT {int(limit)}")

    return connection.execute(f"SELECT {columns} FROM runs WHERE {condition} {order} LIMIT {int(limit)}")
