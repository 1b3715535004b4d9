"""What a store holds, what is wrong with it and how to mend it, what could not be read. Changes nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from flowdeck.layout import Layout, is_locked, library_version, live_writers
from flowdeck_sinks.store._absences import explained_absences
from flowdeck_sinks.store._cursors import read_cursors
from flowdeck_sinks.store._duckdb import DuckDBMissing, require_duckdb
from flowdeck_sinks.store._journal_state import backlog, writer_versions
from flowdeck_sinks.store._keeping import now_ms, workbench
from flowdeck_sinks.store._quarantine import quarantined
from flowdeck_sinks.store._reports import Finding, Quarantined, StoreInfo
from flowdeck_sinks.store.parts import PublishedFile, Source, events_select, is_whole, listing, visible_sources

__all__ = ["doctor", "info", "quarantine"]

BACKLOG_BYTES: Final = 64 * 1024 * 1024
BACKLOG_FILES: Final = 200
LOW_DISK_BYTES: Final = 256 * 1024 * 1024
FUTURE_MS: Final = 60_000
_RANK: Final = {"error": 0, "warning": 1, "note": 2, "ok": 3}


def info(layout: Layout) -> StoreInfo:
    """Return what the store holds. Counting takes DuckDB; without it the counts of events stay 0.

    Raises:
        StoreError: There is no store, or it cannot be read.
    """
    about = layout.describe()
    found = listing(layout)
    published = [*found.visible, *found.waiting]
    segments = [*found.segments, *(path for path, _ in found.covered)]
    out = StoreInfo(
        root=layout.root,
        id=str(about.get("id", "")),
        format=int(about["format"]),
        created_by=str(about.get("created_by", "")),
        created_us=int(about.get("created_us", 0)),
        segments=len(segments),
        segment_bytes=_bytes(segments),
        open_segments=sum(map(is_locked, segments)),
        parts=sum(file.level == 0 for file in published),
        part_bytes=_bytes(file.path for file in published if file.level == 0),
        days=sum(file.level > 0 for file in published),
        day_bytes=_bytes(file.path for file in published if file.level > 0),
        hidden_bytes=_bytes([*(file.path for file in found.hidden), *(path for path, _ in found.covered)]),
        state_bytes=_bytes(layout.root.glob("state.db*")),
        quarantined=len(quarantined(layout)),
        writers=live_writers(layout),
        last_publish_us=_last_publish(layout).get("at_us"),
    )
    blobs = [path for path in layout.blobs.glob("*") if not path.name.startswith(".")]
    out.blobs, out.blob_bytes = len(blobs), _bytes(blobs)
    try:
        _count(layout, out)
    except DuckDBMissing:
        pass
    return out


def doctor(layout: Layout) -> list[Finding]:
    """Return what is wrong with the store, worst first; one finding of level ``ok`` when nothing is.

    Reads every Parquet file's end and two columns of every event: about a second per ten million.

    Raises:
        StoreError: There is no store, or it cannot be read.
    """
    layout.describe()
    findings = [
        *_rights(layout),
        *_disk(layout),
        *_backlog(layout),
        *_publisher(layout),
        *_clock(layout),
        *_versions(layout),
        *_set_aside(layout),
    ]
    try:
        damaged = list(_damaged(layout))
        findings += damaged
        if not damaged:
            findings += _completeness(layout)
    except DuckDBMissing as error:
        findings.append(Finding("warning", "SQL over this store is not possible here", str(error)))
    findings.sort(key=lambda finding: _RANK[finding.level])
    return findings or [Finding("ok", f"{layout.root} is sound", "")]


def quarantine(layout: Layout) -> list[Quarantined]:
    """Return what could not be read, oldest first."""
    return quarantined(layout)


def _count(layout: Layout, out: StoreInfo) -> None:
    sources = [source for source in visible_sources(layout) if source.kind == "segment" or is_whole(source.path)]
    with workbench(layout) as connection:
        events = events_select(sources)
        out.events, oldest, newest = connection.execute(f"SELECT count(*), min(ts), max(ts) FROM ({events})").fetchone()
        out.oldest = oldest.isoformat(timespec="milliseconds") + "Z" if oldest else None
        out.newest = newest.isoformat(timespec="milliseconds") + "Z" if newest else None
        published = [source for source in sources if source.kind != "segment"]
        if published:
            (count,) = connection.execute(f"SELECT count(*) FROM ({events_select(published)})").fetchone()
            size = _bytes(source.path for source in published)
            out.bytes_per_event = size / count if count else None
        last = None
        for cursor in read_cursors(layout):
            if last is None:
                last = connection.execute(
                    f"SELECT writer, max(wseq), count(*) FROM ({events}) WHERE writer IS NOT NULL GROUP BY writer"
                ).fetchall()
            behind = 0
            for writer, highest, count in last:
                behind += min(count, max(0, (highest or 0) - cursor.writers.get(writer, 0)))
            out.cursors[cursor.name] = behind


def _rights(layout: Layout) -> Iterator[Finding]:
    for directory in (layout.root, layout.journal, layout.parts, layout.days, layout.blobs, layout.writers):
        if not directory.exists():
            if directory != layout.days:
                yield Finding("error", f"{directory} is missing", "run any flow with this store; it makes it anew")
        elif not os.access(directory, os.W_OK | os.X_OK):
            yield Finding(
                "warning", f"{directory} may not be written", f"give uid {os.geteuid()} write permission, or read only"
            )
        elif directory.stat().st_mode & 0o077:
            yield Finding("note", f"{directory} is open to other users", f"chmod 700 {directory}")


def _disk(layout: Layout) -> Iterator[Finding]:
    free = shutil.disk_usage(layout.root).free
    if free < LOW_DISK_BYTES:
        yield Finding(
            "error" if free < LOW_DISK_BYTES // 8 else "warning",
            f"only {free // 1024 // 1024} MB are free on the disk of {layout.root}",
            "free space, or: flowdeck store prune --max-age 30",
        )


def _backlog(layout: Layout) -> Iterator[Finding]:
    files, size = backlog(layout)
    if files > BACKLOG_FILES or size > BACKLOG_BYTES:
        yield Finding(
            "warning",
            f"{files} sealed segments ({size // 1024 // 1024} MB) are not published; queries read them line by line",
            "flowdeck store publish",
        )


def _publisher(layout: Layout) -> Iterator[Finding]:
    for problem in _last_publish(layout).get("problems", [])[:5]:
        yield Finding(
            "error", f"the last publisher met a problem: {problem}", "flowdeck store publish shows if it lasts"
        )


def _clock(layout: Layout) -> Iterator[Finding]:
    ahead = [file for file in listing(layout).waiting if file.visible_ms > now_ms() + FUTURE_MS]
    if ahead:
        minutes = (max(file.visible_ms for file in ahead) - now_ms()) // 60_000
        yield Finding(
            "note",
            f"{len(ahead)} files count only in {minutes} minutes: the clock was set back. Nothing is missing meanwhile",
            "",
        )


def _versions(layout: Layout) -> Iterator[Finding]:
    versions = writer_versions(layout)
    if len(versions) > 1:
        told = ", ".join(f"{version} ({count})" for version, count in sorted(versions.items()))
        yield Finding("note", f"writers of different versions are alive: {told}; this is {library_version()}", "")


def _set_aside(layout: Layout) -> Iterator[Finding]:
    found = quarantined(layout)
    if found:
        yield Finding(
            "warning", f"{len(found)} lines or files could not be read and were set aside", "flowdeck store quarantine"
        )


def _damaged(layout: Layout) -> Iterator[Finding]:
    duckdb = require_duckdb()
    with workbench(layout) as connection:
        for source in visible_sources(layout):
            if source.kind == "segment":
                continue

            try:
                connection.execute(f"SELECT count(*) FROM ({events_select([source])})").fetchone()
            except duckdb.Error as error:
                if source.path.exists():
                    yield Finding(
                        "error",
                        f"{source.path.name} cannot be read, and queries over it fail: {str(error).splitlines()[0]}",
                        "flowdeck store publish sets it aside"
                        if not is_whole(source.path)
                        else f"move {source.path} out of the store; its events are lost unless there is a copy",
                    )
    for directory in (layout.parts, layout.days):
        for path in sorted(directory.glob("*.parquet")) if directory.exists() else []:
            if path.name != "_.parquet" and PublishedFile.parse(path) is None:
                yield Finding("warning", f"{path} is not a name of ours and is ignored", "move it out of the store")


def _completeness(layout: Layout) -> Iterator[Finding]:
    """Compare numbers per writer: a gap that no drop report explains is a file that somebody deleted."""
    sources: list[Source] = visible_sources(layout)
    with workbench(layout) as connection:
        connection.execute("CREATE TEMP TABLE explained (writer VARCHAR, wseq BIGINT)")
        known = [[writer, wseq] for writer, wseq in explained_absences(layout).items()]
        if known:
            connection.executemany("INSERT INTO explained VALUES (?, ?)", known)
        rows = connection.execute(
            f"""SELECT e.writer, count(*), count(DISTINCT e.wseq), max(e.wseq) - coalesce(any_value(x.wseq), 0),
              coalesce(sum(CASE WHEN event_type = 'sink.dropped' THEN TRY_CAST(payload ->> '$.count' AS BIGINT) END), 0)
            FROM ({events_select(sources)}) AS e LEFT JOIN explained AS x ON e.writer = x.writer
            WHERE e.writer IS NOT NULL AND e.wseq > coalesce(x.wseq, 0) GROUP BY e.writer"""
        ).fetchall()
    for writer, count, distinct, span, dropped in rows:
        if count > distinct:
            twice = f"{count - distinct} events of writer {writer} are there twice"
            yield Finding("error", twice, "please report this")
        missing = span - distinct
        if missing > dropped:
            gone = f"{missing - dropped} events of writer {writer} are missing: a file was deleted or moved"
            yield Finding("warning", gone, "put the file back, if there is a copy")
        elif missing > 0:
            yield Finding("note", f"writer {writer} had to drop {missing} events; sink.dropped tells when and why", "")


def _last_publish(layout: Layout) -> dict[str, Any]:
    try:
        about = json.loads(layout.publish_json.read_bytes())
    except (OSError, ValueError):
        return {}

    return about if isinstance(about, dict) else {}


def _bytes(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except OSError:
            continue

    return total
