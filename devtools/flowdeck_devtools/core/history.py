"""Past runs and events, asked of the store by SQL in a thread of its own, always bounded.

DuckDB is imported only here and only when asked for: a window on a small journal never needs it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from flowdeck.layout import Layout
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.resumable import resumable_executions
from flowdeck_devtools.core.status import ENDED, StatusTracker

__all__ = ["LINE_COLUMNS", "History", "RunsPage", "line_of", "published"]

RUNS_LIMIT = 500
LINES_LIMIT = 400_000
READ_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class RunsPage:
    """Runs of the past that a filter lets through; ``last`` when nothing older is left."""

    filter_text: str
    rows: list[RunRow]
    last: bool


class History:
    """Answers two questions: which runs were there, and what belongs to one of them."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.problem: str | None = None
        self._connecting = threading.Lock()
        self._connection: Any = None
        self._users = 0
        self._page: RunsPage | None = None
        self._busy = False

    def start(self) -> None:
        """Nothing to start: threads begin with the first question."""

    def stop(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    def want_runs(self, filter_text: str = "", before_us: int | None = None) -> bool:
        """Ask for a page of runs, the newest first: those a filter lets through, that began before a moment.

        ``take_runs`` gives them when they are there. False while another page is being read.
        """
        if self._busy:
            return False
        self._busy = True
        arguments = (filter_text, before_us)
        threading.Thread(target=self._load_runs, args=arguments, name="flowdeck-history", daemon=True).start()
        return True

    @property
    def busy(self) -> bool:
        """A page of runs is being read."""
        return self._busy

    def take_runs(self) -> RunsPage | None:
        """The page asked for, once; ``None`` while there is none."""
        page, self._page = self._page, None
        return page

    def run_lines(self, root_run_id: str) -> tuple[list[tuple[str, bytes]], str | None]:
        """The journal lines of one run as ``(writer, line)``, oldest first, and what went wrong. Blocks."""
        lines: list[tuple[str, bytes]] = []
        problem = self.read_run(root_run_id, lines.extend)
        return lines, problem

    def read_run(self, root_run_id: str, take: Callable[[list[tuple[str, bytes]]], None]) -> str | None:
        """Hand over the journal lines of one run, oldest first and few at a time; what went wrong, if anything. Blocks.

        All of them at once, as records, were 1.5 kB a line.
        """
        number = 0
        try:
            with self._cursor() as cursor:
                found = cursor.execute(_LINES_SQL, [root_run_id, LINES_LIMIT])
                names = [column[0] for column in found.description]
                while rows := found.fetchmany(READ_AT_ONCE):
                    records = [dict(zip(names, row, strict=True)) for row in rows]
                    take([(str(record["writer"]), line_of(record)) for record in records])
                    number += len(rows)
        except Exception as error:  # any failure of the store is words for the person, not a crash
            self.problem = str(error).partition("\n")[0]
            return self.problem
        return f"only the first {LINES_LIMIT:,} events are shown" if number >= LINES_LIMIT else None

    def definition(self, fingerprint: str) -> Mapping[str, Any] | None:
        """A flow's definition by its fingerprint, the newest declaration of it. Blocks.

        Raises:
            Exception: whatever the store says.
        """
        rows = self._rows(_DEFINITION_SQL, [fingerprint])
        definition = msgspec.json.decode(rows[0]["definition"]) if rows else None
        return definition if isinstance(definition, dict) else None

    def error_groups(self, limit: int = 100) -> list[dict[str, Any]]:
        """The kinds of faults over all runs, the latest first. Blocks.

        Raises:
            Exception: whatever the store says.
        """
        return self._rows("SELECT * FROM error_groups ORDER BY last_at DESC, fingerprint LIMIT ?", [limit])

    def _load_runs(self, filter_text: str, before_us: int | None) -> None:
        try:
            from flowdeck_devtools.filter.sql import compile_sql
            from flowdeck_sinks.store import newest_runs

            resumable = resumable_executions(self.store)
            conditions = ["parent_run_id IS NULL AND run_id IS NOT NULL"]
            if before_us is not None:
                conditions.append(f"started_at < make_timestamp({int(before_us)})")
            if filter_text:
                conditions.append(f"({compile_sql(filter_text, 'runs')})")
            with self._cursor() as cursor:
                cursor.set_resumable(resumable)
                found = newest_runs(cursor, RUNS_LIMIT, condition=" AND ".join(conditions))
                rows = [_run_row(row) for row in _records(found)]
            self._page = RunsPage(filter_text, rows, len(rows) < RUNS_LIMIT)
            self.problem = None
        except Exception as error:
            self.problem = str(error).partition("\n")[0]
            self._page = RunsPage(filter_text, [], True)
        finally:
            self._busy = False

    def _rows(self, sql: str, arguments: list[Any]) -> list[dict[str, Any]]:
        with self._cursor() as cursor:
            return _records(cursor.execute(sql, arguments))

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        """A cursor of a connection that is closed behind its last user: of a large store it holds 150 MB."""
        with self._connecting:
            if self._connection is None:
                from flowdeck_sinks.store import connect

                self._connection = connect(self.store)
            self._users += 1
            cursor = self._connection.cursor()
        try:
            yield cursor
        finally:
            with self._connecting:
                self._users -= 1
                if not self._users:
                    self._connection.close()
                    self._connection = None


def published(store: Path) -> bool:
    """Whether anything of the history has left the journal for the published files."""
    layout = Layout(store)
    return any(next(folder.glob("*.parquet"), None) is not None for folder in (layout.parts, layout.days))


def _records(found: Any) -> list[dict[str, Any]]:
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


LINE_COLUMNS = """writer, wseq, event_id, event_type, source, level, message, epoch_us(ts) // 1000 AS timestamp,
  payload::VARCHAR AS payload, error::VARCHAR AS error, run::VARCHAR AS run, meta::VARCHAR AS meta"""
"""What :func:`line_of` needs of a stored event."""
_LINES_SQL = f"""
SELECT {LINE_COLUMNS}
FROM events WHERE root_run_id = ? ORDER BY writer, wseq LIMIT ?
"""
_DEFINITION_SQL = """
SELECT payload ->> '$.definition' AS definition FROM events
WHERE event_type = 'triggerflow.definition_declared' AND payload ->> '$.fingerprint' = ? ORDER BY ts DESC LIMIT 1
"""
_JSON = ("payload", "error", "run", "meta")


def line_of(row: Mapping[str, Any]) -> bytes:
    """The journal line of a stored event: the columns put back into the wire's form."""
    event = {name: value for name, value in row.items() if name != "writer" and name not in _JSON}
    for name in _JSON:
        text = row[name]
        event[name] = msgspec.Raw(text.encode("utf-8", "replace")) if isinstance(text, str) else None
    if event["meta"] is None:
        event["meta"] = {}
    return msgspec.json.encode(event)


def _run_row(row: Mapping[str, Any]) -> RunRow:
    status = str(row["status"])
    tracker = StatusTracker("running" if status == "lost" else status)
    tracker.at = (int(row["epoch"] or 0), 0)
    parts = [str(part) for part in (row["error_type"], row["error_message"]) if part]
    return RunRow(
        run_id=str(row["root_run_id"] or row["run_id"]),
        kind="workflow_execution",
        name=row["flow_name"] or "",
        execution_id=row["execution_id"],
        started_us=_micros(row["started_at"]),
        ended_us=_micros(row["ended_at"]) if status in ENDED else None,
        last_us=_micros(row["last_at"]) or 0,
        events=int(row["events"] or 0),
        errors=int(row["errors"] or 0),
        error=": ".join(parts) if parts and status == "failed" else None,
        task_id=row["task_id"],
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        writer=row["writer"] or "",
        partial=False,
        lost=status == "lost",
        tracker=tracker,
        steps_done=int(row["steps"] or 0),
    )


def _micros(value: object) -> int | None:
    """A SQL timestamp (UTC, without a zone) as microseconds since the epoch."""
    if not isinstance(value, datetime):
        return None
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    whole = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 1_000_000 + whole.microseconds
