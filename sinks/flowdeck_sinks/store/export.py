"""Events out of a store into one file that opens anywhere, and back into a store.

===========  =====================================================================================================
``.duckdb``  a table ``events``, the store's views over it, a table ``blobs``; any DuckDB since 1.0 opens it
``.parquet`` the columns of ``events``; blobs lie beside it in ``<file>.blobs/``
``.jsonl``   one event per line in the journal's envelope, with ``writer``; blobs as above
===========  =====================================================================================================
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

from flowdeck.layout import Layout, StoreError, library_version, live_writers
from flowdeck_sinks.store._blobs import named_blobs
from flowdeck_sinks.store._duckdb import as_pattern, quoted, require_duckdb
from flowdeck_sinks.store._importing import import_
from flowdeck_sinks.store._keeping import spilling
from flowdeck_sinks.store._reports import ExportReport
from flowdeck_sinks.store.parts import COPY_OPTIONS, events_select, visible_sources
from flowdeck_sinks.store.views import view_definitions

__all__ = ["ExportRefused", "export", "import_"]

Kind = Literal["duckdb", "parquet", "jsonl"]
Progress = Callable[[float], None]

SUFFIXES: Final[dict[str, Kind]] = {
    ".duckdb": "duckdb",
    ".db": "duckdb",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
POLL_SECONDS: Final = 0.2
_VIEW: Final = re.compile(r"CREATE OR REPLACE (?:VIEW|MACRO) (\w+)")

# epoch_ms() rounds; the envelope's milliseconds are cut, and meta.us has the rest.
_LINE: Final = """SELECT wseq, writer, event_id, event_type, source, level, message, payload, error, run, meta,
  (epoch_us(ts) - ((epoch_us(ts) % 1000) + 1000) % 1000) // 1000 AS timestamp FROM ({events})"""


class ExportRefused(StoreError, ValueError):
    """The target or the condition cannot be used; the message says why."""


def export(
    layout: Layout,
    target: str | os.PathLike[str],
    kind: Kind | None = None,
    *,
    where: str | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Write events to one new file. It appears under its name when it is complete.

    Args:
        layout: The store.
        target: The file; it must not exist.
        kind: What to write; by the suffix of ``target`` when omitted.
        where: SQL condition over the columns of ``events``.
        progress: Called with 0.0 to 1.0, from a thread of its own.

    Raises:
        ExportRefused: The target exists, its kind is unknown, or ``where`` is no condition.
        DuckDBMissing: DuckDB is not installed.
        OSError, duckdb.Error: The file cannot be written, or ``where`` fails.
    """
    path = Path(target).expanduser().absolute()
    chosen = kind or SUFFIXES.get(path.suffix.lower())
    if chosen is None:
        raise ExportRefused(f"{path.name} does not say what to write: end it in .duckdb, .parquet or .jsonl")
    if path.exists():
        raise ExportRefused(f"{path} exists; name a new file")

    with spilling(path.with_name(f".{path.name}.{secrets.token_hex(4)}.spill")) as connection:
        _check(connection, where)
        events = events_select(visible_sources(layout))
        if where:
            events = f"SELECT * FROM ({events}) WHERE ({where}\n)"
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        report = ExportReport(path, chosen)
        try:
            with _reporting(connection, progress):
                writing = {"duckdb": _write_duckdb, "parquet": _write_parquet, "jsonl": _write_jsonl}[chosen]
                report.events = writing(connection, layout, events, temporary)
            if chosen == "duckdb":
                report.blobs = connection.execute("SELECT count(*) FROM written.blobs").fetchone()[0]
                connection.execute("DETACH written")
            else:
                report.blobs = _copy_blobs(connection, layout, chosen, temporary, path)
            temporary.chmod(0o600)
            report.bytes = temporary.stat().st_size
            temporary.rename(path)
        finally:
            for left in (temporary, temporary.with_name(temporary.name + ".wal")):
                with suppress(OSError):
                    left.unlink()

    if progress is not None:
        progress(1.0)
    return report


def _write_duckdb(connection: Any, layout: Layout, events: str, target: Path) -> int:
    connection.execute(f"ATTACH {quoted(target)} AS written (STORAGE_VERSION 'v1.0.0')")
    connection.execute(f"CREATE TABLE written.events AS {events}")
    connection.execute("USE written")
    connection.execute("CREATE TABLE blobs (sha VARCHAR, content BLOB)")
    named = [row[0] for row in connection.execute(named_blobs("FROM events")).fetchall()]
    for sha in named:
        with suppress(FileNotFoundError):
            connection.execute("INSERT INTO blobs VALUES (?, ?)", [sha, (layout.blobs / sha).read_bytes()])
    live = ", ".join(quoted(writer) for writer in live_writers(layout))
    connection.execute(f"CREATE VIEW _live_writers AS SELECT unnest([{live}]::VARCHAR[]) AS writer")
    _create_views(connection, layout)
    connection.execute(
        f"CREATE VIEW _about AS SELECT {quoted(layout.root)} AS root, 'flowdeck {library_version()}' AS built_by"
    )
    (count,) = connection.execute("SELECT count(*) FROM events").fetchone()
    connection.execute("USE memory")
    return int(count)


def _create_views(connection: Any, layout: Layout) -> None:
    """Create the store's views, without those over its files: ``events`` is a table here."""
    duckdb = require_duckdb()
    of_files = as_pattern(layout.root)
    for statement in view_definitions(layout, with_parts=False):
        found = _VIEW.match(statement)
        name = found[1] if found else ""
        if name in ("events", "_live_writers") or of_files in statement:
            continue

        try:
            connection.execute(statement)
        except duckdb.CatalogException:
            if not name.startswith("_"):  # an internal one, over files
                raise


def _write_parquet(connection: Any, layout: Layout, events: str, target: Path) -> int:
    return int(connection.execute(f"COPY ({events}) TO {quoted(target)} ({COPY_OPTIONS})").fetchone()[0])


def _write_jsonl(connection: Any, layout: Layout, events: str, target: Path) -> int:
    lines = _LINE.format(events=events)
    return int(connection.execute(f"COPY ({lines}) TO {quoted(target)} (FORMAT json)").fetchone()[0])


def _copy_blobs(connection: Any, layout: Layout, kind: Kind, written: Path, target: Path) -> int:
    """Copy the blobs the written file names to a directory beside it; return how many."""
    if not any(layout.blobs.iterdir()):
        return 0

    columns = "{payload: 'JSON', error: 'JSON', meta: 'JSON', run: 'JSON'}"
    source = f"read_ndjson({quoted(as_pattern(written))}, columns = {columns})"
    if kind == "parquet":
        source = f"read_parquet({quoted(as_pattern(written))})"
    named = [row[0] for row in connection.execute(named_blobs(f"FROM {source}")).fetchall()]
    beside = target.with_name(target.name + ".blobs")
    copied = 0
    for sha in named:
        with suppress(FileNotFoundError):
            beside.mkdir(0o700, exist_ok=True)
            shutil.copyfile(layout.blobs / sha, beside / sha)
            copied += 1
    return copied


def _check(connection: Any, where: str | None) -> None:
    """Refuse a condition that is more than one."""
    if where is None:
        return

    duckdb = require_duckdb()
    try:
        statements = connection.extract_statements(f"SELECT 1 WHERE ({where}\n)")
    except duckdb.Error as error:
        raise ExportRefused(f"{where!r} is no SQL condition: {str(error).splitlines()[0]}") from None
    if len(statements) != 1 or statements[0].type.name != "SELECT":
        raise ExportRefused(f"{where!r} is more than one SQL condition")


@contextmanager
def _reporting(connection: Any, progress: Progress | None) -> Iterator[None]:
    """Tell how far the connection's query has come while the block runs."""
    if progress is None:
        yield
        return

    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            share = connection.query_progress()
            if share >= 0:
                progress(min(share / 100, 1.0))

    connection.execute("SET enable_progress_bar = true")
    connection.execute("SET enable_progress_bar_print = false")
    watcher = threading.Thread(target=watch, name="flowdeck-export-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
