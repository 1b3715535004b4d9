"""What DevTools asks a store's past, by SQL, answered few rows at a time: in this process, or in one beside it.

DuckDB is imported by the first question and not before: a window on a small journal never needs it. Its code and what
it does not give back kept 65 to 135 MB of a window, and it takes 200 while it reads; so a window has its questions
answered by a child process, which is this module run with ``python -m`` (see :mod:`flowdeck_devtools.core.apart`).
"""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from flowdeck.layout import StoreError
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.status import ENDED, StatusTracker

__all__ = ["LINE_COLUMNS", "GivenUp", "PastReader", "Wanted", "line_of"]

READ_AT_ONCE = 1_000

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
_ERRORS_SQL = "SELECT * FROM error_groups ORDER BY last_at DESC, fingerprint LIMIT ?"
_JSON = ("payload", "error", "run", "meta")


class GivenUp(StoreError):
    """Nobody wants the answer any more."""


class Wanted:
    """Whether an answer is still wanted: whoever asked may give it up from any thread, and it is worked on no more."""

    def __init__(self) -> None:
        self.is_given_up = False
        self._lock = threading.Lock()
        self._end: Callable[[], object] | None = None

    def give_up(self) -> None:
        """Does not wait for the work to end."""
        with self._lock:
            self.is_given_up = True
            if self._end is not None:
                self._end()

    @contextmanager
    def ended_by(self, end: Callable[[], object]) -> Iterator[None]:
        """Work within, which giving up ends by ``end``; that is not called any more behind it.

        Raises:
            GivenUp: It is not wanted any more, before the work has begun.
        """
        with self._lock:
            if self.is_given_up:
                raise GivenUp("nobody wants the answer any more")
            self._end = end
        try:
            yield
        finally:
            with self._lock:
                self._end = None


class PastReader:
    """The questions, each a generator of parts of its answer; any number may be asked at once, by as many threads.

    Raises:
        Exception: each of them whatever the store says.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self._connecting = threading.Lock()
        self._connection: Any = None
        self._users = 0

    def stop(self) -> None:
        """Interrupt what is being asked."""
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    def lines(
        self, root_run_id: str, limit: int, wanted: Wanted | None = None
    ) -> Generator[list[tuple[str, bytes]], None, None]:
        """The journal lines of one run as ``(writer, line)``, oldest first."""
        with self._cursor() as cursor, (wanted or Wanted()).ended_by(cursor.interrupt):
            found = cursor.execute(_LINES_SQL, [root_run_id, limit])
            names = [column[0] for column in found.description]
            while rows := found.fetchmany(READ_AT_ONCE):
                records = [dict(zip(names, row, strict=True)) for row in rows]
                yield [(str(record["writer"]), line_of(record)) for record in records]

    def runs(
        self, filter_text: str, before_us: int | None, limit: int, resumable: Sequence[str]
    ) -> Iterator[list[RunRow]]:
        """The newest root runs that a filter lets through and that began before a moment, the newest first."""
        from flowdeck_devtools.filter.sql import compile_sql
        from flowdeck_sinks.store import newest_runs

        conditions = ["parent_run_id IS NULL AND run_id IS NOT NULL"]
        if before_us is not None:
            conditions.append(f"started_at < make_timestamp({int(before_us)})")
        if filter_text:
            conditions.append(f"({compile_sql(filter_text, 'runs')})")
        with self._cursor() as cursor:
            cursor.set_resumable(resumable)
            found = newest_runs(cursor, limit, condition=" AND ".join(conditions))
            yield [_run_row(row) for row in _records(found)]

    def definition(self, fingerprint: str) -> Iterator[Mapping[str, Any] | None]:
        """A flow's definition by its fingerprint, the newest declaration of it."""
        with self._cursor() as cursor:
            rows = _records(cursor.execute(_DEFINITION_SQL, [fingerprint]))
        definition = msgspec.json.decode(rows[0]["definition"]) if rows else None
        yield definition if isinstance(definition, dict) else None

    def error_groups(self, limit: int) -> Iterator[list[dict[str, Any]]]:
        """The kinds of faults over all runs, the latest first."""
        with self._cursor() as cursor:
            yield _records(cursor.execute(_ERRORS_SQL, [limit]))

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


def line_of(row: Mapping[str, Any]) -> bytes:
    """The journal line of a stored event: the columns put back into the wire's form."""
    event = {name: value for name, value in row.items() if name != "writer" and name not in _JSON}
    for name in _JSON:
        text = row[name]
        event[name] = msgspec.Raw(text.encode("utf-8", "replace")) if isinstance(text, str) else None
    if event["meta"] is None:
        event["meta"] = {}
    return msgspec.json.encode(event)


def _records(found: Any) -> list[dict[str, Any]]:
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


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


def serve(store: Path, asked: BinaryIO, answers: BinaryIO) -> None:
    """Answer questions, one after another, until the asker has hung up.

    A question is ``(name, arguments)``. The parts of its answer are ``("part", value)``, then comes ``("end", None)``,
    or ``("failed", words)``. All are pickles: both ends are this program.
    """
    reader = PastReader(store)
    with suppress(EOFError, BrokenPipeError):
        while True:
            name, arguments = pickle.load(asked)
            try:
                for part in getattr(reader, name)(*arguments):
                    _send(answers, "part", part)
                _send(answers, "end", None)
            except BrokenPipeError:
                raise
            except Exception as error:  # the asker's to tell
                _send(answers, "failed", str(error))


def _send(answers: BinaryIO, kind: str, value: object) -> None:
    pickle.dump((kind, value), answers, pickle.HIGHEST_PROTOCOL)
    answers.flush()


def main(store: str, spill: str) -> None:
    """Serve on standard input and output; ``spill`` is a folder to make, for what memory does not hold."""
    Path(spill).mkdir(0o700)
    tempfile.tempdir = spill  # DuckDB's folder comes to lie in it, and the asker can remove it if this is killed
    try:
        # The answers have the output for themselves: what a library prints goes where errors go.
        with os.fdopen(os.dup(1), "wb") as stream:
            os.dup2(2, 1)
            serve(Path(store), sys.stdin.buffer, stream)
    finally:
        shutil.rmtree(spill, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
