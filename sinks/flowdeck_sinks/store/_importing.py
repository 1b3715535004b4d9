"""Import: the events of an exported file, or of another store, each once however often it is tried."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from flowdeck.layout import Layout, StoreError, write_file
from flowdeck_sinks.store._absences import explain_absences
from flowdeck_sinks.store._duckdb import as_pattern, quoted
from flowdeck_sinks.store._keeping import TEMPORARY, Timing, commit, keepers_lock, next_number, workbench
from flowdeck_sinks.store._quarantine import damaged_lines, set_aside_lines
from flowdeck_sinks.store._reports import ImportReport
from flowdeck_sinks.store.parts import COMPACTED, PublishedFile, Source, events_select, stored_select, visible_sources
from flowdeck_sinks.store.schema import COLUMNS, journal_lines, line_select

__all__ = ["ImportRefused", "import_"]

CHUNK_ROWS: Final = 500_000
CHUNK_BYTES: Final = 256 * 1024 * 1024
_NO_DELAY: Final = Timing(visible_after_ms=0, keep_ms=0)
"""An imported file stands for nothing, so it may count at once."""

Chunk = tuple[str, float]
"""A query with the schema's columns, and which share of the source it and those before it are."""


class ImportRefused(StoreError, ValueError):
    """The source holds no events, or the store is busy; the message says what to do."""


def import_(
    layout: Layout,
    source: str | os.PathLike[str],
    *,
    progress: Callable[[float], None] | None = None,
) -> ImportReport:
    """Take in the events of an exported file, or of another store's directory. Known event ids are passed over.

    Killed half-way, it has taken in some files' worth; the next call goes on.

    Args:
        layout: The store that takes them in.
        source: ``.duckdb``, ``.parquet``, ``.jsonl``, or a directory.
        progress: Called with 0.0 to 1.0.

    Raises:
        ImportRefused: The source is missing, of another kind or without events, or a publisher is at work.
        StoreError: The source is a store that cannot be read.
        OSError, duckdb.Error: Reading or writing failed; what was taken in before stays.
    """
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise ImportRefused(f"{path} does not exist")
    if path.resolve() == layout.root.resolve():
        raise ImportRefused("a store cannot be imported into itself")

    report = ImportReport(path)
    with keepers_lock(layout) as won:
        if not won:
            raise ImportRefused(f"another process publishes or compacts {layout.root}; try again when it is done")

        with workbench(layout) as connection:
            for chunk, share in _chunks(connection, layout, path, report):
                _take(connection, layout, chunk, report)
                if progress is not None:
                    progress(share)
        report.blobs = _take_blobs(layout, path)
    return report


def _take(connection: Any, layout: Layout, chunk: str, report: ImportReport) -> None:
    """Commit the events of one chunk that the store does not have yet."""
    # Ids first: whole rows are read once more for those that are new, and never held.
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE coming AS SELECT event_id, count(*) AS times FROM ({chunk}) "
        "WHERE event_type IS NOT NULL AND event_id IS NOT NULL GROUP BY event_id"
    )
    (rows,) = connection.execute(f"SELECT count(event_id IS NULL) FROM ({chunk})").fetchone()
    (sound,) = connection.execute("SELECT coalesce(sum(times), 0)::BIGINT FROM coming").fetchone()
    known = f"SELECT event_id FROM ({events_select(visible_sources(layout))})"
    connection.execute(f"DELETE FROM coming WHERE event_id IN ({known})")
    count, most = connection.execute("SELECT count(*), coalesce(max(times), 0) FROM coming").fetchone()
    report.damaged += rows - sound
    report.duplicates += sound - count
    if not count:
        return

    new = f"SELECT * FROM ({chunk}) WHERE event_type IS NOT NULL AND event_id IN (SELECT event_id FROM coming)"
    if most > 1:
        new += " QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY wseq) = 1"
    written_by = f"SELECT writer, max(wseq) FROM ({new}) WHERE writer IS NOT NULL AND wseq IS NOT NULL GROUP BY writer"
    explain_absences(layout, connection.execute(written_by).fetchall())
    number = next_number(layout)
    file = PublishedFile(Path(), number, number, 1, COMPACTED, 0)
    made, written = commit(connection, stored_select(new), layout.days, file, _NO_DELAY)
    report.events += written
    report.files.append(made.path)


def _chunks(connection: Any, layout: Layout, path: Path, report: ImportReport) -> Iterator[Chunk]:
    if path.is_dir():
        yield from _of_store(path)
    elif path.suffix.lower() in (".duckdb", ".db"):
        yield from _of_database(connection, path)
    elif path.suffix.lower() == ".parquet":
        yield from _of_parquet(connection, path)
    elif path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        yield from _of_lines(connection, layout, path, report)
    else:
        raise ImportRefused(f"{path.name} is of no known kind: .duckdb, .parquet, .jsonl or a store's directory")


def _of_store(path: Path) -> Iterator[Chunk]:
    sources: list[Source] = visible_sources(Layout.open(path))
    for number, source in enumerate(sources, 1):
        yield events_select([source]), number / len(sources)


def _of_database(connection: Any, path: Path) -> Iterator[Chunk]:
    connection.execute(f"ATTACH {quoted(path)} AS coming_from (READ_ONLY)")
    tables = connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'coming_from' AND table_name = 'events'"
    ).fetchone()
    if not tables[0]:
        raise ImportRefused(f"{path} has no table 'events'; to take in a store, name its directory")

    columns = connection.execute("SELECT * FROM coming_from.events LIMIT 0").description
    (rows,) = connection.execute("SELECT count(*) FROM coming_from.events").fetchone()
    for first in range(0, rows, CHUNK_ROWS):
        end = first + CHUNK_ROWS
        where = f"rowid >= {first} AND rowid < {end}"
        yield _cast([c[0] for c in columns], f"coming_from.events WHERE {where}"), min(1.0, end / rows)
    connection.execute("DETACH coming_from")


def _of_parquet(connection: Any, path: Path) -> Iterator[Chunk]:
    name = quoted(as_pattern(path))
    columns = [c[0] for c in connection.execute(f"SELECT * FROM read_parquet({name}) LIMIT 0").description]
    (rows,) = connection.execute(f"SELECT count(*) FROM read_parquet({name})").fetchone()
    for first in range(0, rows, CHUNK_ROWS):
        end = first + CHUNK_ROWS
        table = (
            f"read_parquet({name}, file_row_number = true) WHERE file_row_number >= {first} AND file_row_number < {end}"
        )
        yield _cast(columns, table), min(1.0, end / rows)


def _of_lines(connection: Any, layout: Layout, path: Path, report: ImportReport) -> Iterator[Chunk]:
    size = max(1, path.stat().st_size)
    piece = layout.root / f"{TEMPORARY}import" / "lines-000001.jsonl"
    piece.parent.mkdir(0o700, exist_ok=True)
    bad = []
    lines_before = read = 0
    raw = journal_lines(quoted(as_pattern(piece)), writer="VARCHAR")
    renamed = f"(SELECT * REPLACE (coalesce(writer, 'imported') || '-000001.jsonl' AS filename) FROM {raw})"
    try:
        with path.open("rb") as file:
            while data := b"".join(file.readlines(CHUNK_BYTES)):
                read += len(data)
                piece.write_bytes(data)
                chunk = line_select(renamed)
                known = {row[0] for row in connection.execute(f"SELECT wseq FROM ({chunk})").fetchall()}
                (count,) = connection.execute(f"SELECT count(*) FROM ({chunk})").fetchone()
                if count != data.count(b"\n") + (not data.endswith(b"\n")):
                    bad += [(lines_before + number, why, line) for number, why, line in damaged_lines(data, known)]
                lines_before += data.count(b"\n")
                yield chunk, read / size
    finally:
        shutil.rmtree(piece.parent, ignore_errors=True)
    if bad:
        report.damaged += len(bad)
        set_aside_lines(layout, f"import-{path.name}", bad)


def _cast(columns: list[str], table: str) -> str:
    """Return the SELECT of the schema's columns from a table that has some of them."""
    have = {name.lower() for name in columns}
    picked = ", ".join(
        f"{f'TRY_CAST({column.name} AS {column.type})' if column.name in have else f'NULL::{column.type}'} "
        f"AS {column.name}"
        for column in COLUMNS
    )
    return f"SELECT {picked} FROM {table}"


def _take_blobs(layout: Layout, path: Path) -> int:
    """Copy the blobs that came with the source; return how many were new."""
    if path.suffix.lower() in (".duckdb", ".db") and path.is_file():
        return _blobs_of_database(layout, path)

    beside = path / "blobs" if path.is_dir() else path.with_name(path.name + ".blobs")
    taken = 0
    if beside.is_dir():
        for blob in beside.iterdir():
            target = layout.blobs / blob.name
            if len(blob.name) == 64 and not target.exists():
                write_file(target, blob.read_bytes())
                taken += 1
    return taken


def _blobs_of_database(layout: Layout, path: Path) -> int:
    taken = 0
    with workbench(layout) as connection:
        connection.execute(f"ATTACH {quoted(path)} AS coming_from (READ_ONLY)")
        found = connection.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'coming_from' AND table_name = 'blobs'"
        ).fetchone()
        rows = connection.execute("SELECT sha FROM coming_from.blobs").fetchall() if found[0] else []
        for (sha,) in rows:
            target = layout.blobs / str(sha)
            if len(str(sha)) == 64 and str(sha).isalnum() and not target.exists():
                content = connection.execute("SELECT content FROM coming_from.blobs WHERE sha = ?", [sha]).fetchone()
                write_file(target, bytes(content[0]))
                taken += 1
    return taken
