"""The journal's segments behind a cursor, as bytes. See :mod:`~flowdeck_sinks.otlp.store_lines` for the whole store."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from os import scandir
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from flowdeck.layout import Layout

__all__ = ["FRESH_NS", "JournalLines", "Lines", "changed_ns"]

READ_BYTES: Final = 1024 * 1024
FRESH_NS: Final = 100_000_000
"""A directory's time stamp moves in ticks; a change this young may not show in it yet."""
_NO_LIMIT: Final = sys.maxsize
_NUMBER: Final = b'{"wseq":'


class Lines(NamedTuple):
    """Events of one writer, in order."""

    writer: str
    texts: list[bytes]
    """Journal lines, without their newlines."""


class _Header(msgspec.Struct):
    flowdeck: str
    writer: str = ""
    first_wseq: int = 0


_header: Final = msgspec.json.Decoder(_Header).decode


class _Segment:
    """A segment that is being read."""

    __slots__ = ("descriptor", "number", "rest")

    def __init__(self, path: Path, number: int) -> None:
        self.number = number
        self.rest = b""
        self.descriptor = os.open(path, os.O_RDONLY)

    def lines(self) -> list[bytes]:
        """Return the whole lines that came since; an empty list at the end of what is written."""
        while chunk := os.read(self.descriptor, READ_BYTES):
            lines = (self.rest + chunk).split(b"\n")
            self.rest = lines.pop()
            if lines:
                return lines

        return []


class JournalLines:
    """Reads segments on from a position, which it keeps up to date.

    Args:
        layout: the store.
        position: ``{writer: wseq}``; shared with whoever reads published files.
        moved: whether published files have changed since they were looked at; asked before a gap is jumped over.
    """

    def __init__(self, layout: Layout, position: dict[str, int], moved: Callable[[], bool]) -> None:
        self.damaged = 0
        """Lines without a number: cut off by a killed writer or a full disk."""
        self.segments: dict[str, list[tuple[int, str]]] = {}
        """Per writer the segments that stand in the journal, by number."""
        self.finished: dict[str, int] = {}
        """Per writer the last segment that was read to its end."""
        self._directory = layout.journal
        self._position = position
        self._moved = moved
        self._open: dict[str, _Segment] = {}
        self._listed_at = -1

    def look(self) -> None:
        """Find new segments, if the directory changed."""
        changed = changed_ns(self._directory)
        if changed == self._listed_at:
            return

        self._listed_at = changed if time.time_ns() - changed > FRESH_NS else -1
        found: dict[str, list[tuple[int, str]]] = {}
        try:
            with scandir(self._directory) as entries:
                names = [entry.name for entry in entries]
        except FileNotFoundError:
            names = []

        for name in names:
            writer, dash, number = name.removesuffix(".jsonl").rpartition("-")
            if dash and name.endswith(".jsonl") and number.isdigit() and not name.startswith("."):
                found.setdefault(writer, []).append((int(number), name))

        for segments in found.values():
            segments.sort()

        for writer in self._open:
            found.setdefault(writer, [])  # removed while open: its bytes are still there

        # Writers' ids sort by their start: what was written first is read first.
        self.segments = {writer: found[writer] for writer in sorted(found)}

    def stems(self) -> set[str]:
        """Return the names of the segments that stand, without their suffix."""
        return {name.removesuffix(".jsonl") for segments in self.segments.values() for _, name in segments}

    def read(self, writer: str) -> list[bytes]:
        """Return some lines of a writer beyond the position; an empty list when there are no more for now."""
        while True:
            segment = self._open.get(writer) or self._next_segment(writer)
            if segment is None:
                return []

            # Looked at before reading: a segment is complete once its writer has begun the next one.
            followed = any(number > segment.number for number, _ in self.segments[writer])
            lines = segment.lines()
            if lines:
                fresh = self._beyond(writer, lines)
                if fresh:
                    return fresh

                continue

            if not followed:
                return []

            self.damaged += bool(segment.rest)
            self.finished[writer] = segment.number
            os.close(segment.descriptor)
            del self._open[writer]

    def skip(self, writer: str) -> None:
        """Move the position behind everything a writer has written."""
        segments = self.segments.get(writer)
        if segments:
            self.finished[writer] = segments[-1][0] - 1  # the last one tells how far the writer is
            while self.read(writer):
                pass

    def limit(self, writer: str) -> int:
        """Return the first number of a writer that is to be read from the journal."""
        done = self.finished.get(writer, 0)
        for number, name in self.segments.get(writer, ()):
            if number > done:
                found = _first_wseq(self._directory / name)
                if found is not None:
                    return found

        return _NO_LIMIT

    def ahead(self) -> int:
        """Return how many events lie beyond the position, from the numbers in the newest segments."""
        self.look()
        count = 0
        for writer, segments in self.segments.items():
            if segments:
                path = self._directory / segments[-1][1]
                count += max(0, _last_wseq(path) - self._position.get(writer, 0))

        return count

    def close(self) -> None:
        """Close the open segments."""
        for segment in self._open.values():
            os.close(segment.descriptor)

        self._open.clear()

    def _next_segment(self, writer: str) -> _Segment | None:
        done = self.finished.get(writer, 0)
        for number, name in self.segments[writer]:
            if number > done:
                path = self._directory / name
                first = _first_wseq(path)
                if first is not None and first > self._position.get(writer, 0) + 1 and self._moved():
                    return None  # what lies before it may be in a part by now: look there first

                try:
                    segment = self._open[writer] = _Segment(path, number)
                except FileNotFoundError:
                    return None  # published and removed between listing and opening: it is in a part now

                return segment

        return None

    def _beyond(self, writer: str, lines: list[bytes]) -> list[bytes]:
        """Return the events beyond the position, and move it. Numbers rise, so mostly two of them are looked at."""
        numbered = [text for text in lines if text.startswith(_NUMBER)]
        if len(numbered) != len(lines):
            self.damaged += sum(bool(text) and not text.startswith((_NUMBER, b'{"flowdeck"')) for text in lines)

        position = self._position.get(writer, 0)
        if not numbered or _wseq(numbered[-1]) <= position:
            return []

        if _wseq(numbered[0]) <= position:
            numbered = [text for text in numbered if _wseq(text) > position]

        self._position[writer] = _wseq(numbered[-1])
        return numbered


def _wseq(text: bytes) -> int:
    digits = text[8 : text.find(b",", 8, 40)]
    return int(digits) if digits.isdigit() else 0


def changed_ns(path: Path) -> int:
    """Return when a directory last changed; 0 when it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _last_wseq(path: Path) -> int:
    """Return the number of a segment's last whole line; the one before its first when it has none yet."""
    last = (_first_wseq(path) or 1) - 1
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - READ_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return last

    for line in reversed(lines):
        if line.startswith(_NUMBER):
            return _wseq(line) or last

    return last


def _first_wseq(path: Path) -> int | None:
    """Return the number a segment begins with; ``None`` when it cannot be read."""
    try:
        with path.open("rb") as file:
            return _header(file.readline(65_536)).first_wseq
    except (OSError, msgspec.DecodeError):
        return None
