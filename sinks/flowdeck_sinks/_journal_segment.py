"""The journal of one writer on disk: numbering, segments, rotation, and what happens when the disk refuses.

:class:`SegmentLog` is driven by one thread at a time. It never raises: a refusal is kept in :attr:`SegmentLog.failure`
and the caller tries the remaining lines again later. Lines keep their number until they are on disk, so ``wseq`` has a
gap exactly where an event was lost.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Final

from flowdeck.layout import (
    FORMAT,
    SCHEMA,
    Layout,
    StoreError,
    WriterLock,
    boot_id,
    host_name,
    library_version,
)

__all__ = ["Segment", "SegmentLog"]

SEGMENT_BYTES: Final = 8 * 1024 * 1024
"""A SQL scan of a live tail costs 33 CPU-ms per 64 MB, and 0.45 ms per file: 8 MB keeps both low."""
SEGMENT_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.5
"""How often a writer looks whether its segment still stands: a look costs as much as numbering ten lines."""
FILE_MODE: Final = 0o600
WRITE_BYTES: Final = 1024 * 1024
"""Most bytes of one write(2), if one line is not larger: what is joined for it stays in the processor's cache."""
_NUMBER_BYTES: Final = 20
"""About what ``"wseq":n,`` and the newline add to a line."""


class Segment:
    """One open journal file, exclusively locked while open. Never opened again once closed."""

    __slots__ = ("_look_at", "bytes", "descriptor", "lines", "opened", "path", "torn")

    def __init__(self, layout: Layout, writer: str, number: int, first_wseq: int) -> None:
        header = {
            "flowdeck": "journal",
            "format": FORMAT,
            "writer": writer,
            "host": host_name(),
            "boot_id": boot_id(),
            "pid": os.getpid(),
            "library": library_version(),
            "schema": SCHEMA,
            "started_us": time.time_ns() // 1000,
            "first_wseq": first_wseq,
        }
        line = json.dumps(header, separators=(",", ":")).encode() + b"\n"
        self.path = layout.segment_path(writer, number)
        self.lines = 0
        self.opened = time.monotonic()
        self.torn = False
        self._look_at = 0.0
        # Locked and headed under a private name: a segment that can be seen is locked, or its writer is done with it.
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        self.descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, FILE_MODE)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
            if os.write(self.descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))
            temporary.rename(self.path)
        except OSError:
            os.close(self.descriptor)
            with suppress(OSError):
                temporary.unlink()
            raise

        self.bytes = len(line)

    def write(self, data: bytes) -> tuple[int, OSError | None]:
        """Append ``data``; return how many bytes of it are in the file, and what stopped the rest."""
        view = memoryview(data)
        done = 0
        failure = None
        try:
            while done < len(data):
                done += os.write(self.descriptor, view[done:] if done else view)
        except OSError as error:
            failure = error

        self.bytes += done
        return done, failure

    def cut(self, count: int) -> None:
        """Take the last ``count`` bytes off again, as far as the system lets us."""
        with suppress(OSError):
            os.ftruncate(self.descriptor, self.bytes - count)
            self.bytes -= count

    def sync(self) -> None:
        """Force the file to the device."""
        getattr(os, "fdatasync", os.fsync)(self.descriptor)

    def deleted(self) -> bool:
        """Return whether somebody removed the file while it was open; looked at once in half a second."""
        now = time.monotonic()
        if now < self._look_at:
            return False

        self._look_at = now + LOOK_SECONDS
        return os.fstat(self.descriptor).st_nlink == 0

    def close(self) -> None:
        """Close the file, which unlocks it: it is sealed."""
        os.close(self.descriptor)


class SegmentLog:
    """Appends numbered lines for one writer, opening segments as needed.

    Args:
        layout: The store.
        on_lost: Called with (count, bytes, reason) for lines that can never be written.
        segment_bytes: Size at which a segment is sealed.
        segment_seconds: Age at which a segment with events is sealed.
        fsync: Force every append to the device.

    Raises:
        StoreError: The writer's lock cannot be taken.
    """

    def __init__(
        self,
        layout: Layout,
        on_lost: Callable[[int, int, str], None],
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
        fsync: bool = False,
    ) -> None:
        self.layout = layout
        self.failure: OSError | StoreError | None = None
        self.lines = 0
        self.bytes = 0
        self.segments = 0
        self.writes = 0
        self._on_lost = on_lost
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._fsync = fsync
        self._lock = WriterLock(layout)
        self._segment: Segment | None = None
        self._next = 1

    @property
    def writer(self) -> str:
        """The writer's id."""
        return self._lock.writer

    @property
    def open_bytes(self) -> int:
        """Bytes of the open segment; 0 when there is none."""
        return self._segment.bytes if self._segment is not None else 0

    def append(self, lines: Sequence[bytes]) -> int:
        """Write ``lines`` (JSON objects without a number or newline) in order.

        Returns:
            How many leading lines are settled: on disk, or given up and reported. When fewer than all,
            :attr:`failure` says why.
        """
        settled = 0
        sizes = _Sizes(lines)
        while settled < len(lines):
            try:
                segment = self._ready(len(lines[settled]))
            except (OSError, StoreError) as refusal:
                self.failure = refusal
                return settled

            end = sizes.end(settled, min(self._segment_bytes - segment.bytes, WRITE_BYTES))
            data = _numbered(lines if end - settled == len(lines) else lines[settled:end], self._next)
            fresh = segment.lines == 0
            written, error = segment.write(data)
            self.writes += 1
            whole = end - settled if written == len(data) else data.count(b"\n", 0, written)
            settled += whole
            segment.lines += whole
            self.lines += whole
            self.bytes += written
            self._next += whole
            if error is None:
                continue

            # After half a line the file would swallow the next one: cut the half off and leave the file. A line that
            # lacks nothing but its newline would be read here and, written again, in the next segment.
            segment.torn = written > 0 and data[written - 1] != 0x0A
            if segment.torn:
                segment.cut(written - 1 - data.rfind(b"\n", 0, written))
            if error.errno != errno.EFBIG:
                if segment.torn:
                    self.seal()
                self.failure = error
                return settled

            self.seal()
            if fresh and not whole:
                self._on_lost(1, len(lines[settled]), "too_large")
                self.skip(1)
                settled += 1

        self.failure = self._synced()
        return settled

    def skip(self, count: int) -> None:
        """Leave ``count`` numbers unused, so that lost events show as a gap."""
        self._next += count

    def seconds_to_seal(self) -> float:
        """Return how long the open segment may stay open; -1 when there is nothing to seal."""
        if self._segment is None or not self._segment.lines:
            return -1.0

        return max(0.0, self._segment.opened + self._segment_seconds - time.monotonic())

    def seal_if_due(self) -> None:
        """Seal the open segment when it holds events and is old enough."""
        if self.seconds_to_seal() == 0.0:
            self.seal()

    def seal(self) -> None:
        """Close the open segment, if any."""
        if self._segment is not None:
            with suppress(OSError):
                self._segment.close()
            self._segment = None

    def abandon(self) -> None:
        """Drop the copies a forked child inherited; the parent's segment and lock stay as they are."""
        self.seal()

    def close(self) -> None:
        """Seal, and give up the writer's lock."""
        self.seal()
        self._lock.release()

    def _ready(self, size: int) -> Segment:
        """Return a segment that can take at least one more line of ``size`` bytes."""
        segment = self._segment
        if segment is not None:
            if segment.deleted():
                self._on_lost(segment.lines, segment.bytes, "segment_deleted")
                self.seal()
            elif segment.lines and segment.bytes + size > self._segment_bytes:
                self.seal()
            else:
                self.seal_if_due()

        if self._segment is None:
            try:
                self._open()
            except FileNotFoundError:
                Layout.create(self.layout.root)  # somebody deleted the store: go on in a new one
                self._open()

        assert self._segment is not None
        return self._segment

    def _open(self) -> None:
        self._lock.ensure()
        self._segment = Segment(self.layout, self.writer, self.segments + 1, self._next)
        self.segments += 1

    def _synced(self) -> OSError | None:
        if self._fsync and self._segment is not None:
            try:
                self._segment.sync()
            except OSError as error:
                return error

        return None


class _Sizes:
    """Tells how many of some lines fit into a number of bytes."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._lines = lines
        self._count = len(lines)
        self._total = sum(map(len, lines)) + _NUMBER_BYTES * len(lines)
        self._ends: list[int] = []

    def end(self, first: int, room: int) -> int:
        """Return the end of the lines from ``first`` on that ``room`` bytes hold, at least one."""

        if self._total <= room:
            return self._count

        ends = self._ends = self._ends or list(accumulate(map(len, self._lines), initial=0))

        def taken(end: int) -> int:
            return ends[end] - ends[first] + _NUMBER_BYTES * (end - first)

        return max(first + bisect_right(range(first + 1, self._count + 1), room, key=taken), first + 1)


def _numbered(lines: Sequence[bytes], first: int) -> bytes:
    """Return the journal lines of ``lines``: each object gets ``wseq`` as its first key."""
    out: list[bytes] = []
    push = out.append
    for number, line in enumerate(lines, first):
        push(b'{"wseq":%d,' % number)
        push(line[1:])
        push(b"\n")

    return b"".join(out)
