"""``flowdeck sql``: query the event history, once or in a shell."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError, Stopped
from flowdeck_devtools.cli._options import StoreOption, existing_store
from flowdeck_devtools.cli._stored import Interruptible, look_again, open_reader
from flowdeck_devtools.cli._table import write_csv, write_json, write_table
from flowdeck_devtools.core.text import clean

if TYPE_CHECKING:
    from flowdeck_sinks.store import Reader

__all__ = ["Format", "ask", "sql", "watch"]

_TABLE_LIMIT = 1000
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


class Format(StrEnum):
    """How rows are written."""

    table = "table"
    csv = "csv"
    json = "json"


def sql(
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="[QUERY]", help="One SQL statement (DuckDB), - to read it from stdin, or nothing for a shell."
        ),
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="How the rows are written.")] = Format.table,
    limit: Annotated[
        int | None,
        typer.Option(min=0, help=f"Most rows to write; 0 for all. A table stops at {_TABLE_LIMIT} by default."),
    ] = None,
    watch_s: Annotated[
        float | None,
        typer.Option("--watch", "-w", metavar="SECONDS", min=0.1, help="Ask again and again until Ctrl-C."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Query the event history with SQL.

    The views are events, runs, spans, interrupts, errors and more: flowdeck docs sql, or \\d in the shell. Nothing can
    be written, and no other files can be read.
    """
    root = existing_store(store)
    if query is None and _output.is_terminal(sys.stdin) and _output.is_terminal(sys.stdout):
        if watch_s is not None:
            raise CliError("--watch needs a query; in the shell, write \\watch after one", 2)

        from flowdeck_devtools.cli._sql_shell import shell

        with open_reader(root) as reader:
            shell(reader)
        return

    statement = sys.stdin.read() if query in (None, "-") else str(query)
    if not statement.strip():
        raise CliError('the query is empty; try: flowdeck sql "select event_type, count(*) from events group by 1"', 2)

    with open_reader(root) as reader:
        if watch_s is None:
            ask(reader, statement, format, limit)
        else:
            watch(reader, statement, watch_s, format, limit)


def ask(reader: Reader, statement: str, format: Format = Format.table, limit: int | None = None) -> int:
    """Run a query and write its rows as they come; return how many.

    Raises:
        Stopped: Ctrl-C ended it.
    """
    asking = Interruptible(reader.interrupt)
    result = asking.call(lambda: reader.query(statement))
    return _write(result.columns, result.types, asking.rows(result.batches()), format, limit)


def watch(reader: Reader, statement: str, seconds: float, format: Format, limit: int | None) -> None:
    """Run a query every so many seconds until Ctrl-C; on a terminal in one place, else one answer after the other.

    Raises:
        Stopped: Ctrl-C ended it: there is no other end.
    """
    on_terminal = _output.is_terminal(sys.stdout)
    room = max(1, _output.height() - 5) if on_terminal else None
    pause = threading.Event()
    try:
        while True:
            begun = time.monotonic()
            if on_terminal:
                _output.out(_CLEAR, end="")
                heading = f"every {seconds:g} s, {time.strftime('%H:%M:%S')}   Ctrl-C ends   {statement.strip()}"
                _output.out(_output.paint(clean(heading, limit=_output.width()), "dim", sys.stdout))
            bound = limit if limit is not None or format is not Format.table else room
            look_again(reader)
            ask(reader, statement, format, bound)
            _output.flush()
            pause.wait(max(0.0, seconds - (time.monotonic() - begun)))
    except KeyboardInterrupt:
        raise Stopped("") from None


def _write(
    columns: list[str], types: list[str], rows: Iterator[Sequence[Any]], format: Format, limit: int | None
) -> int:
    if format is Format.table and columns == ["explain_key", "explain_value"]:
        return _write_plan(rows)

    if format is Format.table:
        bound = _TABLE_LIMIT if limit is None else limit or None
        return write_table(columns, rows, width=_output.table_width(), limit=bound)

    chosen = islice(rows, limit) if limit else rows
    if format is Format.csv:
        return write_csv(columns, chosen)

    return write_json(columns, chosen, [kind.upper() == "JSON" for kind in types])


def _write_plan(rows: Iterable[Sequence[Any]]) -> int:
    """A query plan is a drawing of several lines, which a table cell would flatten."""
    count = 0
    for _, drawing in rows:
        count += 1
        for line in str(drawing).splitlines():
            _output.out(clean(line))

    return count
