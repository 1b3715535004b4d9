"""The newest lines of a journal, read backwards, so that the cost follows what is asked for and not the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from heapq import heappush, heappushpop
from pathlib import Path

from flowdeck_devtools.core.wire import head

__all__ = ["newest_lines"]

_BLOCK = 256 << 10
_HEADER = b'{"flowdeck":'


def newest_lines(journal: Path, count: int, wanted: Callable[[bytes], bool]) -> list[bytes]:
    """Return the ``count`` newest wanted event lines of all segments, oldest first; a torn last line is left out."""
    if count <= 0:
        return []

    kept: list[tuple[int, int, bytes]] = []
    order = 0
    for changed_us, path in _segments(journal):
        # Segments come newest first: once enough is kept, one last written before it all adds nothing.
        if len(kept) == count and changed_us < kept[0][0]:
            break

        for line in _backwards(path):
            if not wanted(line):
                continue

            order -= 1  # lines of one microsecond keep the order they were written in
            entry = (head(line).time_us, order, line)
            if len(kept) < count:
                heappush(kept, entry)
            elif heappushpop(kept, entry) is entry:
                break

    return [line for _, _, line in sorted(kept)]


def _segments(journal: Path) -> list[tuple[int, Path]]:
    found = []
    for path in journal.glob("*.jsonl"):
        try:
            state = path.stat()
        except FileNotFoundError:
            continue  # it was made into a part a moment ago

        if state.st_size:
            found.append((state.st_mtime_ns // 1000, path))

    return sorted(found, reverse=True)


def _backwards(path: Path) -> Iterator[bytes]:
    """Yield the complete event lines of a segment from the last to the first."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        rest = b""
        complete = False
        while position > 0:
            start = max(0, position - _BLOCK)
            file.seek(start)
            parts = (file.read(position - start) + rest).split(b"\n")
            if not complete:
                parts.pop()  # what follows the last newline: nothing, or a line still being written
                complete = bool(parts)

            position = start
            rest = parts.pop(0) if start and parts else b""
            yield from (line for line in reversed(parts) if line and not line.startswith(_HEADER))
