"""``flowdeck runs``: the runs of a store, newest first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._options import JsonOption, StoreOption, existing_store
from flowdeck_devtools.cli._stored import open_reader
from flowdeck_devtools.cli._table import write_json, write_table
from flowdeck_devtools.core.text import day_time, duration

__all__ = ["runs"]

_COLUMNS = (
    "execution_id, flow_name, status, started_at, ended_at, duration_ms, steps, waits, errors, events, "
    "error_type, error_message, run_id, root_run_id, parent_run_id, task_id, writer, resumable"
)
_MOST_OPEN = 1000


def runs(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most runs to list.")] = 20,
    filter: Annotated[str, typer.Option(metavar="EXPR", help="Only matching: 'status:failed flow:re* last:1h'.")] = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the newest runs with their status, and every older one that is still open.

    A run is lost when its process is gone and nothing is stored to go on from; one that somebody can go on with stays
    running or waiting, with (resumable) behind it.
    """
    root = existing_store(store)
    condition = _condition(filter)

    from flowdeck_sinks.store import newest_runs

    with open_reader(root) as reader:
        newest = newest_runs(reader.connection, limit, _COLUMNS, condition)
        columns = [column[0] for column in newest.description]
        rows = newest.fetchall()
        listed = {row[0] for row in rows}
        older = f"SELECT {_COLUMNS} FROM recent_runs(0) WHERE {condition} LIMIT {_MOST_OPEN}"
        open_ones = reader.connection.execute(older).fetchall()
        rows += [row for row in open_ones if row[0] not in listed]

    if as_json:
        write_json(columns, rows)
        return

    records = [dict(zip(columns, row, strict=True)) for row in rows]
    if not records:
        _output.note("no run matches" if filter else "no runs yet; try: flowdeck demo")
        return

    heads = ("execution", "flow", "status", "started", "took", "steps", "waits", "errors", "error")
    write_table(heads, _lines(records), width=_output.table_width())


def _condition(text: str) -> str:
    if not text.strip():
        return "true"

    from flowdeck_devtools.filter import FilterError, compile_sql

    try:
        return compile_sql(text, "runs")
    except FilterError as error:
        raise CliError(f"--filter: {error}", 2, error.docs) from None


def _lines(records: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    now_us = int(time.time() * 1e6)
    for record in records:
        started: datetime | None = record["started_at"]
        started_us = int(started.replace(tzinfo=UTC).timestamp() * 1e6) if started else None
        yield (
            record["execution_id"],
            record["flow_name"],
            record["status"] + (" (resumable)" if record["resumable"] else ""),
            day_time(started_us, now_us) if started_us is not None else "–",
            duration(record["duration_ms"] * 1000 if record["duration_ms"] is not None else None),
            record["steps"],
            record["waits"],
            record["errors"],
            _error(record),
        )


def _error(record: Mapping[str, Any]) -> str:
    if not record["error_type"] or record["status"] != "failed":
        return ""

    return f"{record['error_type']}: {record['error_message']}"
