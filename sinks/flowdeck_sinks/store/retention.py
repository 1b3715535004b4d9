"""Retention: old events go, by age and by size; what somebody still needs stays.

Kept however old: lifecycle, interrupt, intervention and definition events of executions that have not ended (somebody
may answer after 40 days), the newest declaration of every definition (executions name it by its fingerprint), and
``eval.*`` events (sessions and baselines). A file none of whose rows stay is deleted; one with a few is written anew
beside it and takes its place like any merged file (see :mod:`flowdeck_sinks.store.parts`). Blobs nobody names any more
go with them.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, NamedTuple

from flowdeck.events.catalogue import CATALOGUE, TERMINAL
from flowdeck.layout import Layout, live_writers
from flowdeck_sinks.store._absences import explain_absences
from flowdeck_sinks.store._blobs import remove_unused_blobs
from flowdeck_sinks.store._cursors import read_cursors
from flowdeck_sinks.store._duckdb import as_pattern, quoted, require_duckdb
from flowdeck_sinks.store._keeping import Timing, commit, exactly, keepers_lock, log, now_ms, workbench
from flowdeck_sinks.store._reports import Policy, PruneReport
from flowdeck_sinks.store.parts import (
    COMPACTED,
    PublishedFile,
    events_select,
    listing,
    parquet_select,
    stored_select,
    visible_sources,
)
from flowdeck_sinks.store.publisher import publish_sealed

__all__ = ["prune"]

_EXECUTION: Final = "workflow_execution"
_LIFECYCLE: Final = tuple(
    name for name, spec in CATALOGUE.items() if spec.run_kind == _EXECUTION and spec.transition is not None
)
_KEPT: Final = tuple(
    name
    for name, spec in CATALOGUE.items()
    if name.startswith("triggerflow.") and (spec.run_kind == _EXECUTION or "interrupt" in name or "interven" in name)
)
_ENDING: Final = tuple(name for name in _LIFECYCLE if CATALOGUE[name].transition in TERMINAL)
_DEFINITION: Final = "triggerflow.definition_declared"


class _Old(NamedTuple):
    """What a file holds, counted."""

    rows: int
    removable: int
    kept: int
    """Old, and kept."""
    oldest_staying: datetime.datetime | None
    """The oldest row that is not old."""


def prune(
    layout: Layout,
    policy: Policy,
    *,
    dry_run: bool = False,
    open_executions: Collection[str] | None = None,
    timing: Timing | None = None,
) -> PruneReport:
    """Remove the events the policy does not keep.

    Args:
        layout: The store.
        policy: Age and size, and what is kept all the same.
        dry_run: Only count. Nothing is published for it, so events still in the journal are not looked at.
        open_executions: Executions that ``state.db`` holds for whoever resumes them. They count as open; given, an
            execution of a dead writer that is not among them counts as ended; omitted, every execution without a
            terminal event counts as open.
        timing: For tests.

    Raises:
        DuckDBMissing: DuckDB is not installed.
        OSError: The store cannot be written.
    """
    timing = timing or Timing()
    report = PruneReport(dry_run=dry_run)
    with keepers_lock(layout) as won:
        if not won:
            report.busy = True
            return report

        with workbench(layout) as connection:
            if not dry_run:
                report.problems += publish_sealed(layout, connection, timing).problems
            files, report.waiting = _whole_files(layout)
            report.bytes_before = report.bytes_after = sum(file.path.stat().st_size for file in files)
            cutoff = _cutoff(connection, layout, files, policy)
            if cutoff is None:
                return report

            _prepare(connection, layout, open_executions)
            errors = (OSError, ValueError, require_duckdb().Error)
            for file in files:
                try:
                    _prune_file(layout, connection, file, cutoff, policy, timing, report)
                except errors as error:
                    report.problems.append(f"{file.path.name}: {error}")
                    log.warning("flowdeck: %s could not be pruned: %s", file.path, error)
            if report.events_removed and not dry_run:
                report.blobs_removed = remove_unused_blobs(layout, connection)

    return report


def _whole_files(layout: Layout) -> tuple[list[PublishedFile], int]:
    """Return the visible files that stand for nothing which is still there (it would come back without them), and how
    many others there are."""
    found = listing(layout)
    out = {part for _, part in found.covered}
    inputs = {file.lo for file in found.hidden}
    files = [
        file
        for file in found.visible
        if file not in out and file.lo not in inputs and not any(newer.hides(file) for newer in found.waiting)
    ]
    return files, len(found.visible) + len(found.waiting) - len(files)


def _time_of(file: PublishedFile) -> str:
    """Return the SQL of a row's time: its own, or the file's when it has none or one in the future."""
    stamp = f"make_timestamp({file.visible_ms} * 1000)"
    return f"least(coalesce(ts, {stamp}), {stamp})"


def _cutoff(connection: Any, layout: Layout, files: list[PublishedFile], policy: Policy) -> datetime.datetime | None:
    """Return the time up to which events are old; ``None`` when none are."""
    cutoffs = []
    if policy.max_age_days is not None:
        now = datetime.datetime.fromtimestamp(now_ms() / 1000, datetime.UTC).replace(tzinfo=None)
        cutoffs.append(now - datetime.timedelta(days=policy.max_age_days))
    if policy.max_bytes is not None:
        room = policy.max_bytes - sum(path.stat().st_size for path in layout.journal.glob("*.jsonl"))
        newest = {
            file: connection.execute(
                f"SELECT max({_time_of(file)}) FROM read_parquet({quoted(as_pattern(file.path))})"
            ).fetchone()[0]
            for file in files
        }
        dated = sorted((file for file in files if newest[file]), key=lambda file: newest[file], reverse=True)
        for file in dated:
            room -= file.path.stat().st_size
            if room < 0:
                cutoffs.append(newest[file])
                break
    return max(cutoffs, default=None)


def _prepare(connection: Any, layout: Layout, known_open: Collection[str] | None) -> None:
    """Fill the tables the conditions use: open executions, newest definitions, cursors."""
    connection.execute(f"CREATE TEMP VIEW every_event AS {events_select(visible_sources(layout))}")
    connection.execute(
        f"""CREATE TEMP TABLE open_executions AS
        SELECT execution_id, arg_max(writer, ts) AS writer FROM every_event
        WHERE execution_id IS NOT NULL AND event_type IN {_listed(_LIFECYCLE)} GROUP BY execution_id
        HAVING coalesce(max(coalesce(epoch, 0)) FILTER (event_type IN {_listed(_ENDING)}), -1)
          < max(coalesce(epoch, 0))"""
    )
    if known_open is not None:
        alive = [*known_open, *live_writers(layout)]
        connection.execute("CREATE TEMP TABLE alive AS SELECT unnest(?::VARCHAR[]) AS id", [alive])
        connection.execute(
            "DELETE FROM open_executions WHERE execution_id NOT IN (SELECT id FROM alive) "
            "AND coalesce(writer, '') NOT IN (SELECT id FROM alive)"
        )
        # Whatever the events say, or do not say because some were lost.
        connection.execute("INSERT INTO open_executions SELECT id, NULL FROM alive")
    connection.execute(
        f"""CREATE TEMP TABLE newest_definitions AS
        SELECT arg_max(event_id, ts) AS event_id FROM every_event WHERE event_type = '{_DEFINITION}'
        GROUP BY payload ->> '$.flow_name', payload ->> '$.fingerprint'"""
    )
    connection.execute("CREATE TEMP TABLE cursors (exporter VARCHAR, writer VARCHAR, wseq BIGINT)")
    rows = [[cursor.name, writer, wseq] for cursor in read_cursors(layout) for writer, wseq in cursor.writers.items()]
    if rows:
        connection.executemany("INSERT INTO cursors VALUES (?, ?, ?)", rows)


def _kept(layout: Layout, policy: Policy) -> str:
    """Return the SQL condition under which an old row stays."""
    conditions = [f"(event_type = '{_DEFINITION}' AND event_id IN (SELECT event_id FROM newest_definitions))"]
    if policy.keep_evals:
        conditions.append("starts_with(event_type, 'eval.')")
    if policy.keep_open:
        conditions.append(
            f"(event_type IN {_listed(_KEPT)} AND execution_id IN (SELECT execution_id FROM open_executions))"
        )
    if policy.require_export:
        conditions += [_not_exported(cursor.name) for cursor in read_cursors(layout)]
    return f"coalesce({' OR '.join(conditions)}, false)"


def _not_exported(exporter: str) -> str:
    return (
        f"coalesce(wseq > coalesce((SELECT max(c.wseq) FROM cursors AS c WHERE c.exporter = {quoted(exporter)} "
        "AND c.writer = stored.writer), 0), false)"
    )


def _prune_file(
    layout: Layout,
    connection: Any,
    file: PublishedFile,
    cutoff: datetime.datetime,
    policy: Policy,
    timing: Timing,
    report: PruneReport,
) -> None:
    old = f"{_time_of(file)} <= TIMESTAMP '{cutoff.isoformat(sep=' ')}'"
    kept = _kept(layout, policy)
    stored = f"({parquet_select([file.path])}) AS stored"
    found = _Old(
        *connection.execute(
            f"SELECT count(*), count(*) FILTER ({old} AND NOT {kept}), count(*) FILTER ({old} AND {kept}), "
            f"min({_time_of(file)}) FILTER (NOT {old}) FROM {stored}"
        ).fetchone()
    )
    report.events_kept += found.kept
    _note_oldest(report, found.oldest_staying)
    if not found.removable:
        return

    for cursor in read_cursors(layout):
        missed = connection.execute(
            f"SELECT count(*) FROM {stored} WHERE {old} AND NOT {kept} AND {_not_exported(cursor.name)}"
        ).fetchone()[0]
        if missed:
            report.not_exported[cursor.name] = report.not_exported.get(cursor.name, 0) + missed

    if not report.dry_run:
        taken = connection.execute(
            f"SELECT writer, max(wseq) FROM {stored} WHERE {old} AND NOT {kept} AND writer IS NOT NULL "
            "AND wseq IS NOT NULL GROUP BY writer"
        ).fetchall()
        explain_absences(layout, taken)

    size = file.path.stat().st_size
    staying = found.rows - found.removable
    if not report.dry_run:
        rest = f"SELECT * FROM {stored} WHERE NOT ({old} AND NOT {kept})"
        size -= _remove(layout, connection, file, rest, staying, timing)
    else:
        size -= size * staying // found.rows
    report.files_removed += not staying
    report.files_rewritten += bool(staying)
    report.events_removed += found.removable
    report.bytes_after -= size


def _remove(layout: Layout, connection: Any, file: PublishedFile, rest: str, rows: int, timing: Timing) -> int:
    """Put the rows that stay in the file's place; return the bytes they take."""
    if not rows:
        file.path.unlink()
        return 0

    rewritten = PublishedFile(Path(), file.lo, file.hi, file.level + 1, COMPACTED, 0)
    made, _ = commit(connection, stored_select(rest), layout.days, rewritten, timing, checked=exactly(rows))
    return made.path.stat().st_size


def _note_oldest(report: PruneReport, moment: datetime.datetime | None) -> None:
    if moment is not None:
        text = moment.isoformat(timespec="seconds") + "Z"
        report.oldest = min(report.oldest, text) if report.oldest else text


def _listed(names: Collection[str]) -> str:
    return "(" + ", ".join(quoted(name) for name in names) + ")"
