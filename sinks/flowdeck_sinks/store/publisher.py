"""Sealed journal segments become Parquet parts, by whoever wins a lock, never by the application itself.

The order of things, each safe to be killed in::

    keepers_lock      one process at a time, without waiting
    remove_orphans    unfinished files of killed predecessors
    remove_replaced   segments whose part has counted for KEEP_MS
    per sealed segment:
        quarantine    its damaged lines, if any
        COPY          to a private name, forced to the device
        rename        to <n>-<n>-0~<stem>@<visible>.parquet: the commit

``python -m flowdeck_sinks.store.publisher STORE`` is the child the journal sink starts: niced, it publishes and
compacts, again whenever enough has gathered, until nothing comes any more and what it replaced is deleted. One of them
serves all writers of a store.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from flowdeck.layout import Layout, StoreError, is_locked, library_version, write_file
from flowdeck_sinks.store._duckdb import as_pattern, quoted, require_duckdb
from flowdeck_sinks.store._journal_state import backlog
from flowdeck_sinks.store._keeping import (
    Timing,
    commit,
    keepers_lock,
    log,
    next_number,
    now_ms,
    remove_orphans,
    remove_replaced,
    try_lock,
    workbench,
)
from flowdeck_sinks.store._quarantine import damaged_lines, set_aside_file, set_aside_lines
from flowdeck_sinks.store._reports import PublishReport
from flowdeck_sinks.store.catalog import ensure_catalog
from flowdeck_sinks.store.parts import PublishedFile, is_whole, listing, stored_select
from flowdeck_sinks.store.schema import journal_select

__all__ = ["keep", "publish", "publish_sealed"]

LIFE_SECONDS: Final = 600.0
"""How long the child stays before it leaves the rest to the next one."""
LOOK_SECONDS: Final = 1.0
"""How often it looks whether a segment was sealed. Queries read what is not published as text, 1.7 ms a MB."""
MERGE_SECONDS: Final = 30.0
"""Least time between two looks at what could be merged, while there is something to publish."""
ENOUGH_BYTES: Final = 1024 * 1024
"""So much is worth a part of its own; less waits for the next round."""
NICENESS: Final = 10


def publish(layout: Layout, *, timing: Timing | None = None) -> PublishReport:
    """Turn every sealed segment into a part and delete what is no longer needed. Never waits.

    Raises:
        DuckDBMissing: DuckDB is not installed.
        OSError: The store cannot be written.
    """
    with keepers_lock(layout) as won:
        if not won:
            return PublishReport(busy=True)

        with workbench(layout) as connection:
            report = publish_sealed(layout, connection, timing or Timing())
        if report.segments:
            ensure_catalog(layout)  # plain clients find the Parquet files through it
        note(layout, report)
        return report


def publish_sealed(layout: Layout, connection: Any, timing: Timing) -> PublishReport:
    """Do the work of :func:`publish`; the caller holds the lock."""
    report = PublishReport()
    report.orphans = remove_orphans(layout)
    set_aside_damaged(layout, report)
    report.removed, report.waiting, found = remove_replaced(layout, timing)
    errors = (OSError, ValueError, require_duckdb().Error)
    number = next_number(layout)
    published_before = {file.stem for file in found.waiting if file.level == 0}
    for path in found.segments:
        if path.stem in published_before or is_locked(path):
            continue

        try:
            published = _publish_segment(layout, connection, path, number, timing, report)
        except errors as error:
            report.problems.append(f"{path.name}: {error}")
            log.warning("flowdeck: %s could not be published: %s", path, error)
            continue

        number += published
        report.waiting += published

    return report


def set_aside_damaged(layout: Layout, report: PublishReport) -> None:
    """Move Parquet files that are not whole to the quarantine: one would fail every query. Needs the lock.

    A part whose segment still stands is made again by the same publisher.
    """
    found = listing(layout)
    for file in [*found.visible, *found.waiting, *found.hidden]:
        if not is_whole(file.path) and file.path.exists():
            moved = set_aside_file(layout, file.path, "not a whole Parquet file")
            report.quarantined += 1
            report.problems.append(f"{file.path.name} is not a whole Parquet file and was moved to {moved}")


def keep(layout: Layout, *, timing: Timing | None = None) -> None:
    """Publish and compact until nothing is left to do: the whole life of a publisher child.

    Where another child lives it does so once: whoever started this one may have asked for it.
    """
    from flowdeck_sinks.store.compaction import compact

    timing = timing or Timing()
    merge_at = time.monotonic()
    end = merge_at + LIFE_SECONDS
    with try_lock(layout.keeper_lock) as won:
        while True:
            report = publish(layout, timing=timing)
            merged = 0
            if not report.waiting or time.monotonic() >= merge_at:
                merged = compact(layout, timing=timing).files
                merge_at = time.monotonic() + MERGE_SECONDS
            if not won or report.busy or not (report.waiting or merged) or time.monotonic() > end:
                return

            _wait_for_work(layout, timing, gathering=not report.problems)


def _wait_for_work(layout: Layout, timing: Timing, gathering: bool) -> None:
    """Wait until what was replaced may be deleted or, if that is looked for, enough has gathered. The store is free.

    Writers do not know this process, so it looks: one listing of three directories.
    """
    due = time.monotonic() + (timing.visible_after_ms + timing.keep_ms) / 1000 + 0.1
    pause = threading.Event()
    while (left := due - time.monotonic()) > 0:
        pause.wait(min(left, LOOK_SECONDS) if gathering else left)
        if gathering and backlog(layout)[1] >= ENOUGH_BYTES:
            return


def note(layout: Layout, report: PublishReport) -> None:
    """Keep what was done in ``publish.json``, for the doctor and the TUI."""
    about = {
        "at_us": time.time_ns() // 1000,
        "pid": os.getpid(),
        "library": library_version(),
        "duckdb": require_duckdb().__version__,
        "segments": report.segments,
        "events": report.events,
        "removed": report.removed,
        "waiting": report.waiting,
        "quarantined": report.quarantined,
        "problems": report.problems[:20],
    }
    write_file(layout.publish_json, json.dumps(about).encode() + b"\n")


def _publish_segment(
    layout: Layout, connection: Any, path: Path, number: int, timing: Timing, report: PublishReport
) -> int:
    """Publish one sealed segment as part ``number``; return how many numbers were used."""
    data = path.read_bytes()
    headed = data.startswith(b'{"flowdeck"')
    lines = data.count(b"\n") + (not data.endswith(b"\n") and bool(data)) - headed
    if not lines:
        return _drop_empty(path, timing, report)

    select = journal_select(quoted(as_pattern(path)))

    def set_damaged_aside(rows: int) -> None:
        if rows != lines:
            known = {row[0] for row in connection.execute(f"SELECT wseq FROM ({select})").fetchall()}
            damaged = damaged_lines(data, known)
            if damaged:
                set_aside_lines(layout, path.name, damaged)
                report.quarantined += len(damaged)

    file = PublishedFile(path, number, number, 0, path.stem, 0)
    part, count = commit(
        connection, stored_select(select, ordered=True), layout.parts, file, timing, checked=set_damaged_aside
    )
    report.segments += 1
    report.events += count
    report.bytes += part.path.stat().st_size
    return 1


def _drop_empty(path: Path, timing: Timing, report: PublishReport) -> int:
    """Delete a segment without events, unless a reader may just have listed it."""
    if now_ms() - path.stat().st_mtime_ns // 1_000_000 > timing.keep_ms:
        path.unlink()
        report.removed += 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the publisher child on the store named by the only argument."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        print("usage: python -m flowdeck_sinks.store.publisher STORE", file=sys.stderr)
        return 2

    os.nice(NICENESS)
    try:
        keep(Layout.open(given[0]))
    except (OSError, StoreError) as error:
        print(error, file=sys.stderr)
        return 1

    return 0


if __name__ == "__main__":
    sys.exit(main())
