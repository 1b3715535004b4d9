"""What a merged Parquet file says about the executions it does not hold from beginning to end.

A store of ten million events has a hundred open executions, and finding them would read all history. So whoever merges
files puts the lifecycle events of executions that began or ended elsewhere, or have not ended, into the new file's
metadata (key :data:`KEY`): a few hundred bytes each. A reader takes those and looks at the events only of files without
the key. It is a copy for speed; nothing depends on it being there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from flowdeck_sinks.store._duckdb import quoted
from flowdeck_sinks.store._views_runs import ENDING, LIFECYCLE, RUN_NEEDS
from flowdeck_sinks.store.schema import COLUMNS

__all__ = ["KEY", "load_unfinished", "unfinished_option", "with_unfinished"]

KEY: Final = "flowdeck.unfinished"
MOST: Final = 5_000
"""With more of them in one file it gets no key: the metadata is read whenever the file is."""

_FIELDS: Final = (*(name for name in RUN_NEEDS if name != "error"), "wseq")
_STRUCTURE: Final = json.dumps([{column.name: column.type for column in COLUMNS if column.name in _FIELDS}])
_BEGINNING: Final = "triggerflow.execution_started"


def unfinished_option(connection: Any, events: str) -> str:
    """Return the option that COPY needs to put the key into a file of ``events``: `` , KV_METADATA {...}``.

    Args:
        connection: Any DuckDB connection that can run ``events``.
        events: A query that yields the schema's columns.

    Returns:
        An empty text when there are too many such executions.
    """
    fields = ", ".join(f"{name}: {name}" for name in _FIELDS)
    # Of each execution the first and the last event that moved its status, by epoch and seq.
    row = connection.execute(f"""
WITH moves AS (
  SELECT *, greatest(coalesce(epoch, 0), 0)::HUGEINT * {2**62} + greatest(coalesce(seq, 0), 0) AS moment
  FROM ({events}) WHERE event_type IN {LIFECYCLE} AND execution_id IS NOT NULL
), partial AS (
  SELECT execution_id, max(moment) AS last_moment, min(moment) AS first_moment FROM moves GROUP BY execution_id
  HAVING NOT (bool_or(event_type = '{_BEGINNING}') AND
    coalesce(max(coalesce(epoch, 0)) FILTER (event_type IN {ENDING}), -1) >= max(coalesce(epoch, 0)))
)
SELECT count(DISTINCT execution_id), to_json(list({{{fields}}}))::VARCHAR
FROM moves SEMI JOIN partial ON moves.execution_id = partial.execution_id
  AND (moves.moment IN (partial.first_moment, partial.last_moment) OR moves.event_type IN {ENDING})
""").fetchone()
    if row is None or row[0] > MOST:
        return ""

    return f", KV_METADATA {{'{KEY}': {quoted(row[1] or '[]')}}}"


def load_unfinished(connection: Any, files: Sequence[Path], known: Iterable[Path]) -> set[Path]:
    """Bring the table ``_unfinished`` up to the keys in ``files``; return the files that have one.

    Args:
        connection: It has that table: ``file``, then the schema's columns.
        files: The files that count now.
        known: Those whose keys the table holds.
    """
    held = set(known)
    gone = held - set(files)
    if gone:
        connection.execute("DELETE FROM _unfinished WHERE file IN (SELECT unnest(?))", [[str(path) for path in gone]])
    new = [path for path in files if path not in held]
    if new:
        names = ", ".join(quoted(path) for path in new)
        keys = (
            f"SELECT file_name, decode(value) AS value FROM parquet_kv_metadata([{names}]) WHERE decode(key) = '{KEY}'"
        )
        columns = ", ".join(("file", *_FIELDS))
        connection.execute(
            f"INSERT INTO _unfinished ({columns}) SELECT file_name, {', '.join(f'u.{name}' for name in _FIELDS)} "
            f"FROM (SELECT file_name, unnest(from_json(value, {quoted(_STRUCTURE)})) AS u FROM ({keys}))"
        )
        held |= {Path(row[0]) for row in connection.execute(f"SELECT file_name FROM ({keys})").fetchall()}
    return held - gone


def with_unfinished(rest: str, lifecycle: str) -> str:
    """Return the body of ``_stored_lifecycle``: the table ``_unfinished``, and the lifecycle events of the ``rest``.

    Args:
        rest: A query that yields the events of all other files.
        lifecycle: The SELECT of lifecycle events from ``_stored``.
    """
    columns = ", ".join(column.name for column in COLUMNS)
    others = lifecycle.replace("FROM _stored", f"FROM ({rest})", 1)
    return f"SELECT {columns} FROM _unfinished UNION ALL SELECT {columns} FROM ({others})"
