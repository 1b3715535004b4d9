"""Lines of one run, put aside in a file without a name: what a tree of 100,000 steps has seen, but not in memory."""

from __future__ import annotations

import os
import tempfile
import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import BinaryIO, overload

__all__ = ["NO_LINES", "LineQueue", "LineSpool", "Lines"]

BUFFER_BYTES = 1024 * 1024
"""What is held in memory before anything goes to the file: a run of everyday size never has one."""


class LineSpool:
    """Numbered lines. One thread appends, any may read; the file is gone with the process, however that ends."""

    def __init__(self) -> None:
        self._ends = array("Q")
        self._before = array("i")
        self._held = bytearray()
        self._written = 0
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, line: bytes, before: int = -1, *, needed: bool = False) -> int:
        """Keep a line; ``before`` is the number of the one it follows in its chain. Gives its own number.

        Raises:
            OSError: The file cannot take what is held, as on a full disk: the line is not kept, those before it are.
                One that is ``needed`` stays in memory then.
        """
        with self._lock:
            if self._held and len(self._held) + len(line) > BUFFER_BYTES:
                try:
                    self._flush()
                except OSError:
                    if not needed:
                        raise
            self._held += line
            self._ends.append(self._written + len(self._held))
            self._before.append(before)
            return len(self._ends) - 1

    def _flush(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="flowdeck-run-", buffering=0)  # noqa: SIM115  # lives as long
        done = 0
        with memoryview(self._held) as held:
            while done < len(held):  # each at its place: what a full disk took in part is written again
                done += os.pwrite(self._file.fileno(), held[done:], self._written + done)
        self._written += done
        self._held = bytearray()

    def get(self, number: int) -> bytes:
        """The line of a number."""
        return self._read(self._ends[number - 1] if number else 0, self._ends[number])

    def _read(self, begin: int, end: int) -> bytes:
        with self._lock:
            written, file = self._written, self._file
            held = bytes(self._held[max(0, begin - written) : end - written]) if end > written else b""
        if begin >= written or file is None:
            return held
        return os.pread(file.fileno(), min(end, written) - begin, begin) + held

    def search(self, marks: Sequence[bytes]) -> list[int]:
        """Numbers of the lines that hold any of some words, in order: read in large pieces, 1 ms a megabyte."""
        found: list[int] = []
        number, end = 0, len(self._ends)
        while number < end:
            begin = self._ends[number - 1] if number else 0
            last = bisect_right(self._ends, begin + BUFFER_BYTES, number + 1, end)  # one line at least
            piece = self._read(begin, self._ends[last - 1])
            hits: set[int] = set()
            for mark in marks:
                at = piece.find(mark)
                while at >= 0:
                    line = bisect_right(self._ends, begin + at, number, last)
                    hits.add(line)
                    at = piece.find(mark, self._ends[line] - begin)
            found.extend(sorted(hits))
            number = last
        return found

    def first(self, last: int) -> int:
        """The number a chain begins with."""
        while (before := self._before[last]) >= 0:
            last = before
        return last

    def chain(self, last: int, limit: int) -> array[int]:
        """Numbers of the chain that ends with ``last``, oldest first, the newest ``limit`` of them."""
        found = array("i")
        while last >= 0 and len(found) < limit:
            found.append(last)
            last = self._before[last]
        found.reverse()
        return found


class LineQueue:
    """Lines and who wrote them, put in by one thread and taken out by another: what waits is in a file, not in memory.

    Args:
        max_bytes: What may be put in between two times that it is empty; further lines are counted and not kept, as
            are those a full disk has no room for.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self.dropped = 0
        """Lines that were not kept."""
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._empty()

    def _empty(self) -> None:
        self._spool = LineSpool()
        self._writers: list[tuple[int, str]] = []
        """From which line on who wrote them."""
        self._taken = self._bytes = 0

    def __len__(self) -> int:
        return len(self._spool) - self._taken

    def put(self, writer: str, line: bytes) -> None:
        with self._lock:
            if self._max_bytes is not None and self._bytes >= self._max_bytes:
                self.dropped += 1
                return
            try:
                number = self._spool.append(line)
            except OSError:  # no fault of whoever puts it in, who reads a journal
                self.dropped += 1
                return
            if not self._writers or self._writers[-1][1] != writer:
                self._writers.append((number, writer))
            self._bytes += len(line)

    def take(self, limit: int) -> list[tuple[str, bytes]]:
        """Remove and return up to ``limit`` lines, oldest first."""
        with self._lock:
            begin = self._taken
            end = min(begin + limit, len(self._spool))
            if begin == end:
                return []
            at = bisect_right(self._writers, begin, key=itemgetter(0)) - 1
            if at + 1 < len(self._writers):
                end = min(end, self._writers[at + 1][0])
            taken = [(self._writers[at][1], self._spool.get(number)) for number in range(begin, end)]
            self._taken = end
            if end == len(self._spool):
                self._empty()
        return taken


class Lines(Sequence[bytes]):
    """Lines of a spool, read when somebody looks at them."""

    __slots__ = ("_numbers", "_spool")

    def __init__(self, spool: LineSpool | None, numbers: Sequence[int]) -> None:
        self._spool, self._numbers = spool, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> Lines: ...
    def __getitem__(self, place: int | slice) -> bytes | Lines:
        if isinstance(place, slice):
            return Lines(self._spool, self._numbers[place])
        number = self._numbers[place]
        assert self._spool is not None
        return self._spool.get(number)

    def __iter__(self) -> Iterator[bytes]:
        return (self[place] for place in range(len(self._numbers)))


NO_LINES = Lines(None, ())
