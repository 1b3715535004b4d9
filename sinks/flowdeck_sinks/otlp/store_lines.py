"""Every event of a store behind a cursor ``{writer: wseq}``: journal segments, parts and day files, each once.

Segments are read as bytes. What the publisher has moved to Parquet since is read with SQL (this needs the extra
``duckdb``, and only then). ``(writer, wseq)`` names an event for good, so it does not matter where it lies now or in
how many files it stands: whatever is not beyond the cursor is passed over. Events of one writer come in order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import msgspec

from flowdeck.layout import Layout, StoreError
from flowdeck_sinks.otlp.journal_lines import FRESH_NS, JournalLines, Lines, changed_ns
from flowdeck_sinks.store._duckdb import require_duckdb
from flowdeck_sinks.store.parts import PublishedFile, parquet_select, published_files

__all__ = ["ROWS", "Lines", "StoreLines", "by_writer", "row_line"]

log = logging.getLogger("flowdeck.sinks.otlp")

ROWS: Final = 2048
"""Rows fetched at once."""


class StoreLines:
    """Reads on from a cursor. One thread at a time.

    Args:
        layout: the store.
        position: the cursor; events up to it are passed over. Kept up to date by :meth:`read`.
    """

    def __init__(self, layout: Layout, position: dict[str, int]) -> None:
        self.layout = layout
        self.position = position
        self.unreadable = ""
        """Why published files cannot be read; empty while they can."""
        self._journal = JournalLines(layout, position, self._moved)
        self._contents: dict[str, dict[str, int]] = {}
        """Per published file the last number of each writer in it."""
        self._done: set[int] = set()
        """The publisher's numbers whose events are all behind the cursor."""
        self._looked_at: list[int] = []
        """When the directories had last changed at the last look, unless that was too young to tell."""
        self._saw: list[int] = []
        self._published: Iterator[Lines] | None = None

    def read(self) -> Lines | None:
        """Return about a megabyte of further events of a writer; ``None`` when there are no more for now.

        Raises:
            OSError: a file cannot be read.
        """
        if self._published is None:
            self._published = self._from_published()

        lines = next(self._published, None)
        if lines is not None:
            return lines

        self._published = None
        self._journal.look()
        for writer in list(self._journal.segments):
            texts = self._journal.read(writer)
            if texts:
                return Lines(writer, texts)

        return None

    @property
    def damaged(self) -> int:
        """Lines that are no events, passed over."""
        return self._journal.damaged

    def ahead(self) -> int:
        """Return about how many events lie behind the cursor in the journal."""
        return self._journal.ahead()

    def close(self) -> None:
        """Close the open segments."""
        self._journal.close()

    def skip_to_now(self, besides: str = "") -> None:
        """Move the cursor behind everything that is in the store now, but for what the writer ``besides`` wrote."""
        self._journal.look()
        files = published_files(self.layout)
        if files:
            try:
                self._look_into(files)
            except StoreError as problem:
                self.unreadable = f"published files of the store cannot be read: {problem}"

        for content in self._contents.values():
            for writer, last in content.items():
                self.position[writer] = max(last, self.position.get(writer, 0))

        for writer in self._journal.segments:
            if writer != besides:
                self._journal.skip(writer)

    # -- what the publisher has moved ----------------------------------------------------------------------------

    def _moved(self) -> bool:
        """Whether the published files have changed since they were last looked at."""
        return [changed_ns(path) for path in (self.layout.parts, self.layout.days)] != self._saw[:2]

    def _from_published(self) -> Iterator[Lines]:
        """Yield the events of Parquet files that are beyond the cursor and not in the journal any more."""
        changed = [changed_ns(path) for path in (self.layout.parts, self.layout.days, self.layout.journal)]
        self._saw = changed
        if changed == self._looked_at:
            return

        self._journal.look()
        try:
            wanted = self._wanted_files()
            if wanted:
                yield from self._rows(wanted)
        except StoreError as problem:
            self.unreadable = f"published files of the store cannot be read: {problem}"
            return
        except Exception as problem:
            # Files are merged and removed while we read; what is left is found again at the next round.
            self.unreadable = f"published files of the store cannot be read: {problem}"
            log.info("flowdeck otlp: %s", self.unreadable)
            return

        self.unreadable = ""
        self._looked_at = changed if time.time_ns() - max(changed) > FRESH_NS else []

    def _wanted_files(self) -> list[Path]:
        files = published_files(self.layout)
        standing = self._journal.stems()
        unknown = []
        for file in files:
            if file.path.name in self._contents or (not file.level and file.stem in standing):
                continue

            number = file.stem.rpartition("-")[2]
            if file.level:
                ours = self._done.issuperset(range(file.lo, file.hi + 1))
            else:
                ours = number.isdigit() and int(number) <= self._journal.finished.get(file.writer, 0)

            if ours:  # read as bytes before it was published
                self._contents[file.path.name] = {}
                self._done.update(range(file.lo, file.hi + 1))
            else:
                unknown.append(file)

        if unknown:
            self._look_into(unknown)

        return [file.path for file in files if self._has_more(self._contents.get(file.path.name, {}))]

    def _has_more(self, content: dict[str, int]) -> bool:
        for writer, last in content.items():
            position = self.position.get(writer, 0)
            if last > position and position + 1 < self._journal.limit(writer):
                return True

        return False

    def _look_into(self, files: list[PublishedFile]) -> None:
        """Note up to which number each file holds each writer's events."""
        paths = [file.path for file in files]
        names: dict[str, dict[str, int]] = {path.name: {} for path in paths}
        with _duckdb() as connection:
            rows = connection.execute(
                f"SELECT parse_filename(filename), writer, max(wseq) FROM ({parquet_select(paths, filename=True)}) "
                "GROUP BY ALL"
            ).fetchall()

        for name, writer, last in rows:
            if writer is not None and last is not None:
                names.setdefault(name, {})[writer] = last

        self._contents.update(names)
        for file in files:
            if not self._has_more(names.get(file.path.name, {})):
                self._done.update(range(file.lo, file.hi + 1))

    def _rows(self, files: list[Path]) -> Iterator[Lines]:
        writers = sorted({writer for path in files for writer in self._contents.get(path.name, {})})
        span = ", ".join(
            f"({_text(writer)}, {self.position.get(writer, 0)}, {self._journal.limit(writer)})" for writer in writers
        )
        with _duckdb() as connection:
            cursor = connection.execute(
                f"SELECT e.writer, e.wseq, e.event_id, e.event_type, epoch_us(e.ts), e.source, e.level, e.message, "
                f"e.payload::VARCHAR, e.error::VARCHAR, e.run::VARCHAR, e.meta::VARCHAR "
                f"FROM ({parquet_select(files)}) AS e JOIN (VALUES {span}) AS p(writer, behind, before) "
                f"ON e.writer = p.writer AND e.wseq > p.behind AND e.wseq < p.before ORDER BY e.writer, e.wseq"
            )
            while rows := cursor.fetchmany(ROWS):
                yield from by_writer(row for row in rows if self._is_new(row[0], row[1]))

    def _is_new(self, writer: str, wseq: int) -> bool:
        if wseq <= self.position.get(writer, 0):
            return False  # the same event in two files

        self.position[writer] = wseq
        return True


def by_writer(rows: Iterable[tuple[Any, ...]]) -> Iterator[Lines]:
    """Group rows that begin with their writer; neighbours of one writer stay together, in their order."""
    for writer, group in groupby(rows, key=itemgetter(0)):
        yield Lines(writer, [row_line(row[1:]) for row in group])


@contextmanager
def _duckdb() -> Iterator[Any]:
    connection = require_duckdb().connect(":memory:", config={"threads": 1})
    try:
        yield connection
    finally:
        connection.close()


_encode: Final = msgspec.json.Encoder().encode


def row_line(row: tuple[Any, ...]) -> bytes:
    """Return the journal line of a row: wseq, event_id, event_type, µs, source, level, message, payload, error, run,
    meta; the last four are JSON texts or ``None``."""
    wseq, event_id, event_type, time_us, source, level, message, *documents = row
    payload, error, run, meta = (msgspec.Raw(text.encode()) if text else None for text in documents)
    return _encode(
        {
            "wseq": wseq,
            "event_id": event_id,
            "event_type": event_type,
            "source": source,
            "level": level,
            "message": message,
            "payload": payload,
            "error": error,
            "run": run,
            "meta": meta,
            "timestamp": (time_us or 0) // 1000,
        }
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
