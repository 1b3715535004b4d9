"""Parts become days: fewer, larger files. One rename commits; the inputs go later.

Files are merged in the publisher's order, neighbours only, so that the range of numbers in a file's name is exactly
what it stands for, and rows are copied in that order, which is nearly that of time. Sizes grow geometrically (a file is
merged with newer ones that together hold at least half its rows), so a row is rewritten a few times in its life
however often this runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from flowdeck.layout import Layout
from flowdeck_sinks.store._duckdb import as_pattern, quoted, require_duckdb
from flowdeck_sinks.store._keeping import (
    Timing,
    commit,
    exactly,
    keepers_lock,
    log,
    now_ms,
    remove_orphans,
    remove_replaced,
    workbench,
)
from flowdeck_sinks.store._reports import CompactReport
from flowdeck_sinks.store.parts import COMPACTED, PublishedFile, listing, parquet_select, stored_select

__all__ = ["compact"]

FILE_EVENTS: Final = 1_000_000
"""Most rows of a merged file: what a query prunes by, and what one merge rewrites."""
MANY_PARTS: Final = 64
"""So many small files are merged at once; fewer wait for an hour."""
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS


class Sized(NamedTuple):
    """A published file with its number of rows."""

    file: PublishedFile
    rows: int
    bytes: int


def compact(layout: Layout, *, force: bool = False, timing: Timing | None = None) -> CompactReport:
    """Merge small Parquet files into larger ones.

    Args:
        layout: The store.
        force: Merge even a few young files; without it only 64 of them, or those older than an hour.
        timing: For tests.

    Raises:
        DuckDBMissing: DuckDB is not installed.
        OSError: The store cannot be written.
    """
    timing = timing or Timing()
    report = CompactReport()
    with keepers_lock(layout) as won:
        if not won:
            return CompactReport(busy=True)

        remove_orphans(layout)
        report.removed = remove_replaced(layout, timing)[0]
        stretches = _candidates(layout)
        if not stretches:
            return report

        errors = (OSError, ValueError, require_duckdb().Error)
        with workbench(layout) as connection:
            runs = [run for stretch in stretches for run in _sized(connection, stretch, report)]
            for group in [group for run in runs for group in groups(run, force=force)]:
                try:
                    _merge(layout, connection, group, timing, report)
                except errors as error:
                    report.problems.append(f"{group[0].file.path.name} and {len(group) - 1} more: {error}")
                    log.warning("flowdeck: %d files could not be merged: %s", len(group), error)

    return report


def groups(files: Sequence[Sized], *, force: bool = False, now: int | None = None) -> list[list[Sized]]:
    """Return the runs of neighbouring files that are worth a merge, newest run first.

    From the newest file backwards an older neighbour joins while it holds at most twice the rows gathered so far (any
    neighbour, with ``force``), the sum stays within a million, and both are of one day or older than a week.
    """
    moment = now_ms() if now is None else now
    out: list[list[Sized]] = []
    run: list[Sized] = []
    rows = 0
    for item in [*reversed(files), None]:
        joins = (
            item is not None
            and bool(run)
            and rows + item.rows <= FILE_EVENTS
            and (force or item.rows <= 2 * rows or _closed(item, moment))
            and _together(item, run[-1], moment)
        )
        if item is not None and joins:
            run.append(item)
            rows += item.rows
            continue

        if len(run) > 1 and (force or len(run) >= MANY_PARTS or _old(run, moment)):
            out.append(run[::-1])
        run = [] if item is None else [item]
        rows = 0 if item is None else item.rows

    return out


def _closed(item: Sized, now: int) -> bool:
    """Whether no further events of the file's day will come: its files become one whatever their sizes."""
    return item.file.visible_ms // DAY_MS < now // DAY_MS


def _together(older: Sized, newer: Sized, now: int) -> bool:
    day = newer.file.visible_ms // DAY_MS
    return older.file.visible_ms // DAY_MS == day or day < now // DAY_MS - 7


def _old(run: list[Sized], now: int) -> bool:
    return now - run[-1].file.visible_ms > HOUR_MS


def _candidates(layout: Layout) -> list[list[PublishedFile]]:
    """Return the stretches of neighbours that may be merged, two or more each.

    Left out are files not counted yet and what they were made of, parts whose segment still stands (it would be read
    again without its part) and days whose inputs still stand. Each of them ends a stretch: a merge over it would hide
    it.
    """
    found = listing(layout)
    out = {part for _, part in found.covered} | set(found.waiting)
    out.update(file for file in found.visible if any(newer.hides(file) for newer in found.waiting))
    inputs = {file.lo for file in found.hidden}
    stretches: list[list[PublishedFile]] = [[]]
    for file in sorted([*found.visible, *found.waiting], key=lambda file: file.lo):
        if file in out or file.lo in inputs:
            stretches.append([])
        else:
            stretches[-1].append(file)
    return [stretch for stretch in stretches if len(stretch) > 1]


def _sized(connection: Any, files: Sequence[PublishedFile], report: CompactReport) -> list[list[Sized]]:
    """Return the files with their rows; one that cannot be read is reported and ends a run of neighbours."""
    error = require_duckdb().Error
    try:
        return [_rows_of(connection, files)]
    except error:
        runs: list[list[Sized]] = [[]]
        for file in files:
            try:
                runs[-1] += _rows_of(connection, [file])
            except error as problem:
                report.problems.append(f"{file.path.name}: {str(problem).splitlines()[0]}")
                runs.append([])
        return runs


def _rows_of(connection: Any, files: Sequence[PublishedFile]) -> list[Sized]:
    names = ", ".join(quoted(as_pattern(file.path)) for file in files)
    rows = dict(connection.execute(f"SELECT file_name, num_rows FROM parquet_file_metadata([{names}])").fetchall())
    return [Sized(file, rows[str(file.path)], file.path.stat().st_size) for file in files]


def _merge(layout: Layout, connection: Any, group: list[Sized], timing: Timing, report: CompactReport) -> None:
    rows = sum(item.rows for item in group)
    merged = PublishedFile(
        Path(),
        group[0].file.lo,
        max(item.file.hi for item in group),
        max(item.file.level for item in group) + 1,
        COMPACTED,
        0,
    )
    query = stored_select(parquet_select([item.file.path for item in group]), clustered=True)
    made, _ = commit(connection, query, layout.days, merged, timing, checked=exactly(rows))
    report.merged += len(group)
    report.files += 1
    report.events += rows
    report.bytes_before += sum(item.bytes for item in group)
    report.bytes_after += made.path.stat().st_size
