"""``flowdeck sql``: query the event history."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError, Stopped
from flowdeck_devtools.cli._options import StoreOption, existing_store
from flowdeck_devtools.cli._table import write_csv, write_json, write_table

__all__ = ["Format", "sql"]

_TABLE_LIMIT = 1000


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

    from flowdeck_sinks.store import query as run_query

    try:
        result = run_query(root, statement)
        rows = iter(result.rows)
        if format is Format.table:
            bound = _TABLE_LIMIT if limit is None else limit or None
            write_table(result.columns, rows, width=_output.table_width(), limit=bound)
            return

        if limit:
            from itertools import islice

            rows = islice(rows, limit)

        if format is Format.csv:
            write_csv(result.columns, rows)
        else:
            write_json(result.columns, rows, [str(kind).upper() == "JSON" for kind in result.types])
    except RuntimeError as error:
        # DuckDB reports Ctrl-C during a query as a RuntimeError of its own.
        if "interrupt" in str(error).lower():
            raise Stopped("the query was stopped") from None

        raise
