"""JournalTail: follows the bytes of a store's live segments, without SQL, locks or decoding.

A poll costs one ``stat`` of the directory and one ``read`` per open segment. Segments are found when the directory
changes, kept open while their writer holds them, and read to their end when it is done; so rotation, a killed writer
and a removed file lose nothing that was written.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from flowdeck.layout import Layout, is_locked

__all__ = ["JournalTail", "RawBatch"]

READ_BYTES: Final = 1024 * 1024
POLL_BYTES: Final = 8 * 1024 * 1024
"""Most bytes one poll returns (about 10,000 events), so that a long history does not freeze who polls."""
PROBE_SECONDS: Final = 1.0
"""How often a quiet segment is looked at for a writer that is gone."""
FRESH_SECONDS: Final = 0.1
"""A directory's time stamp moves in ticks; changes this young may not show in it yet."""

_HEADER: Final = b'{"flowdeck":"journal"'


class RawBatch(NamedTuple):
    """Whole lines of one writer, in order."""

    writer: str
    lines: list[bytes]
    """Each one JSON object as it stands in the journal, without its newline. Not checked: a line may be damaged."""


class _Followed:
    """One segment being read."""

    __slots__ = ("descriptor", "name", "probe_at", "rest", "skip_line", "writer")

    def __init__(self, path: Path, writer: str, *, from_start: bool) -> None:
        self.name = path.name
        self.writer = writer
        self.rest = b""
        self.probe_at = 0.0
        self.descriptor = os.open(path, os.O_RDONLY)
        self.skip_line = False
        if not from_start:
            size = os.fstat(self.descriptor).st_size
            if size:
                # A line that is half written now began before: it is not part of what follows.
                self.skip_line = os.pread(self.descriptor, 1, size - 1) != b"\n"
                os.lseek(self.descriptor, size, os.SEEK_SET)

    def read(self, limit: int) -> tuple[list[bytes], int, bool]:
        """Return the whole lines that came since the last call, the bytes read, and whether the end was met."""
        chunks = [self.rest]
        taken = 0
        ended = False
        while taken < limit and not ended:
            chunk = os.read(self.descriptor, READ_BYTES)
            ended = len(chunk) < READ_BYTES
            taken += len(chunk)
            chunks.append(chunk)

        if not taken:
            return [], 0, True

        lines = b"".join(chunks).split(b"\n")
        self.rest = lines.pop()
        if lines and self.skip_line:
            self.skip_line = False
            del lines[0]
        if lines and lines[0].startswith(_HEADER):
            del lines[0]
        return lines, taken, ended

    def sealed(self) -> bool:
        """Whether the writer has let go of the segment."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False

        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return True

    def close(self) -> None:
        os.close(self.descriptor)


class JournalTail:
    """Follows every segment of a store, present and to come.

    Not thread-safe: one thread polls. Lines of one writer come in order; writers are not ordered against each other.

    Args:
        store: The store's directory, or its layout.
        from_start: Begin with the oldest segment instead of with what is written from now on.

    Raises:
        StoreError: There is no store, or it cannot be read.
    """

    def __init__(self, store: str | os.PathLike[str] | Layout, from_start: bool = False) -> None:
        self.layout = store if isinstance(store, Layout) else Layout.open(store)
        self.torn = 0
        """Lines that were cut off by a killed writer or a full disk, and are skipped."""
        self.lines = 0
        """Lines returned so far."""
        self._open: dict[str, _Followed] = {}
        self._waiting: deque[tuple[str, str]] = deque()
        self._seen: set[str] = set()
        self._directory = os.fspath(self.layout.journal)
        self._directory_time = -1
        self._look(from_start=from_start)

    def poll(self, max_bytes: int = POLL_BYTES) -> list[RawBatch]:
        """Return what was written since the last call; an empty list when nothing was. Never waits.

        Args:
            max_bytes: About how much to return; the rest comes with the next calls.
        """
        self._look(from_start=True)
        batches: list[RawBatch] = []
        budget = max_bytes
        # A writer seals a segment before it begins the next, and both stand here in that order.
        for followed in list(self._open.values()):
            budget -= self._read(followed, budget, batches)
            if budget <= 0:
                return batches

        while budget > 0 and self._waiting:
            writer, name = self._waiting.popleft()
            opened = self._follow(writer, name, from_start=True)
            if opened is not None:
                budget -= self._read(opened, budget, batches)

        return batches

    def close(self) -> None:
        """Close the open segments. Idempotent."""
        for followed in self._open.values():
            followed.close()
        self._open.clear()
        self._waiting.clear()

    def __enter__(self) -> JournalTail:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _look(self, *, from_start: bool) -> None:
        """Find new segments, if the directory changed."""
        try:
            changed = os.stat(self._directory).st_mtime_ns  # noqa: PTH116 (every poll: half the price of a Path)
        except FileNotFoundError:
            return  # deleted; it may come again

        if changed == self._directory_time:
            return

        self._directory_time = changed if time.time_ns() - changed > FRESH_SECONDS * 1e9 else -1
        names = set()
        with suppress(FileNotFoundError):
            names = {entry.name for entry in os.scandir(self._directory)}
        for name in sorted(names - self._seen):
            writer, dash, number = name.removesuffix(".jsonl").rpartition("-")
            if not (dash and name.endswith(".jsonl") and number.isdigit()) or name.startswith("."):
                continue
            self._seen.add(name)
            if from_start:
                self._waiting.append((writer, name))
            elif is_locked(self.layout.journal / name):
                self._follow(writer, name, from_start=False)
        self._seen &= names

    def _follow(self, writer: str, name: str, *, from_start: bool) -> _Followed | None:
        try:
            followed = _Followed(self.layout.journal / name, writer, from_start=from_start)
        except FileNotFoundError:
            return None  # removed between listing and opening

        self._open[name] = followed
        return followed

    def _read(self, followed: _Followed, budget: int, batches: list[RawBatch]) -> int:
        """Read one segment; let it go when its writer is done with it. Return the bytes read."""
        taken, ended = self._take(followed, budget, batches)
        now = time.monotonic()
        if taken and followed.probe_at:
            followed.probe_at = now + PROBE_SECONDS
        elif ended and now >= followed.probe_at:
            followed.probe_at = now + PROBE_SECONDS
            if followed.sealed():
                # What was written between the read above and the seal.
                more, ended = self._take(followed, READ_BYTES, batches)
                taken += more
                if ended:
                    self._let_go(followed)

        return taken

    def _take(self, followed: _Followed, limit: int, batches: list[RawBatch]) -> tuple[int, bool]:
        lines, taken, ended = followed.read(limit)
        if lines:
            self.lines += len(lines)
            batches.append(RawBatch(followed.writer, lines))

        return taken, ended

    def _let_go(self, followed: _Followed) -> None:
        if followed.rest:
            self.torn += 1
        followed.close()
        del self._open[followed.name]
