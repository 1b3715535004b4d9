"""The newest events that are no longer in the journal: published history, read backwards in widening windows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flowdeck_devtools.core.history import LINE_COLUMNS, line_of

__all__ = ["newest_published"]

_HOURS = (1, 24, 24 * 30, None)


def newest_published(root: Path, count: int, wanted: Callable[[bytes], bool]) -> list[bytes]:
    """Return the ``count`` newest wanted events of the published files, oldest first, as journal lines.

    Raises:
        DuckDBMissing: There are such files, and DuckDB is not installed.
    """
    from flowdeck.layout import Layout
    from flowdeck_sinks.store.parts import parquet_select, visible_sources

    files = [source.path for source in visible_sources(Layout(root)) if source.kind != "segment"]
    if not files or count <= 0:
        return []

    from flowdeck_sinks.store import connect

    with connect(root) as connection:
        kept: list[bytes] = []
        for hours in _HOURS:
            since = f"WHERE ts > hours_ago({hours})" if hours else ""
            found = connection.execute(
                f"SELECT {LINE_COLUMNS} FROM ({parquet_select(files)}) {since} ORDER BY ts DESC, writer, wseq DESC"
            )
            names = [column[0] for column in found.description]
            kept = []
            while len(kept) < count and (rows := found.fetchmany(1000)):
                lines = (line_of(dict(zip(names, row, strict=True))) for row in rows)
                kept += [line for line in lines if wanted(line)]
            if len(kept) >= count:
                break

    return kept[:count][::-1]
