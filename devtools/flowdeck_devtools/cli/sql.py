"""``flowdeck sql``: query the event history."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any, TypeVar

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError, Stopped
from flowdeck_devtools.cli._options import StoreOption, existing_store
from flowdeck_devtools.cli._table import write_csv, write_json, write_table
from flowdeck_devtools.core.text import clean

__all__ = ["Format", "sql"]

T = TypeVar("T")
_TABLE_LIMIT = 1000
_LOOK_S = 0.1
_STOPS_WITHIN_S = 1.0
_STOPPED = "the query was stopped"


class Format(StrEnum):
    """How rows are written."""

    table = "table"
    csv = "csv"
    json = "json"


def sql(
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="One SQL statement (DuckDB), or - to read it from stdin.")
    ],
    format: Annotated[Format, typer.Option("--format", "-f", help="How the rows are written.")] = Format.table,
    limit: Annotated[
        int | None,
        typer.Option(min=0, help=f"Most rows to write; 0 for all. A table stops at {_TABLE_LIMIT} by default."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Query the event history with SQL. The views are events, runs, spans and interrupts."""
    root = existing_store(store)
    statement = sys.stdin.read() if query == "-" else query
    if not statement.strip():
        raise CliError('the query is empty; try: flowdeck sql "select event_type, count(*) from events group by 1"', 2)

    from flowdeck_sinks.store import Reader

    with Reader(root) as reader:
        asking = _Interruptible(reader.interrupt)
        result = asking.call(lambda: reader.query(statement))
        _write(result.columns, result.types, asking.rows(result.batches()), format, limit)


def _write(
    columns: list[str], types: list[str], rows: Iterator[Sequence[Any]], format: Format, limit: int | None
) -> None:
    if format is Format.table and columns == ["explain_key", "explain_value"]:
        _write_plan(rows)
    elif format is Format.table:
        bound = _TABLE_LIMIT if limit is None else limit or None
        write_table(columns, rows, width=_output.table_width(), limit=bound)
    else:
        chosen = islice(rows, limit) if limit else rows
        if format is Format.csv:
            write_csv(columns, chosen)
        else:
            write_json(columns, chosen, [kind.upper() == "JSON" for kind in types])


class _Interruptible:
    """Calls that Ctrl-C can end.

    DuckDB looks for signals only now and then, and not at all while it builds a large join; so it works in a thread,
    and this one waits for Ctrl-C and passes it on.
    """

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt

    def call(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, or raise what it raises.

        Raises:
            Stopped: Ctrl-C came first.
        """
        done: Future[T] = Future()
        threading.Thread(target=_finish, args=(done, work), daemon=True).start()
        try:
            while not done.done():
                # In short waits, as the signal may be given to the other thread. Not by Thread.join: interrupted, it
                # takes the thread for ended in the older Python versions.
                wait([done], _LOOK_S)
        except KeyboardInterrupt:
            self._stop(done)
            raise Stopped(_STOPPED) from None

        return done.result()

    def _stop(self, done: Future[T]) -> None:
        deadline = time.monotonic() + _STOPS_WITHIN_S
        while not done.done() and time.monotonic() < deadline:
            # DuckDB refuses the interrupt of a call that is only beginning, and forgets it when none has begun.
            with suppress(Exception):
                self._interrupt()

            wait([done], _LOOK_S)

        if not done.done():
            # Closing the connection under a running query would crash, and a reader has nothing to clean up.
            _output.note(_STOPPED)
            os._exit(130)

    def rows(self, batches: Iterator[list[tuple[Any, ...]]]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of all batches, each batch fetched so that Ctrl-C can end it."""
        while batch := self.call(lambda: next(batches, None)):
            yield from batch


def _finish(done: Future[T], work: Callable[[], T]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:
        done.set_exception(error)


def _write_plan(rows: Iterable[Sequence[Any]]) -> None:
    """A query plan is a drawing of several lines, which a table cell would flatten."""
    for _, drawing in rows:
        for line in str(drawing).splitlines():
            _output.out(clean(line))
