"""``flowdeck errors``: faults by kind over all runs, each counted where it began."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._options import JsonOption, StoreOption, existing_store
from flowdeck_devtools.cli._stored import open_reader
from flowdeck_devtools.cli._table import write_json, write_table

__all__ = ["errors"]

_COLUMNS = (
    "fingerprint, error_type, shape, occurrences, propagations, executions, flows, steps, first_at, last_at, "
    "last_message, last_execution_id, last_event_id"
)


def errors(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most kinds to list.")] = 20,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the kinds of faults over all runs, the latest first: how often, where, and the run that met it last.

    Faults are of one kind when class, module and message agree, values and ids in the message aside.
    """
    with open_reader(existing_store(store)) as reader:
        found = reader.query(f"SELECT {_COLUMNS} FROM error_groups ORDER BY last_at DESC, fingerprint LIMIT {limit}")
        columns, rows = found.columns, list(found.rows)
    if as_json:
        write_json(columns, rows)
        return

    if not rows:
        _output.note("no errors")
        return

    records = [dict(zip(columns, row, strict=True)) for row in rows]
    heads = ("error", "message", "times", "runs", "steps", "last", "last run")
    write_table(heads, _lines(records), width=_output.table_width())


def _lines(records: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for one in records:
        last = one["last_at"].isoformat(" ", "seconds") if one["last_at"] is not None else "–"
        steps = ", ".join(one["steps"] or ())
        yield (
            one["error_type"],
            one["shape"],
            one["occurrences"],
            one["executions"],
            steps,
            last,
            one["last_execution_id"],
        )
