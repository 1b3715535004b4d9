"""A bounded window over the newest journal lines, kept as the bytes they are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

__all__ = ["LineRing"]


class LineRing:
    """The newest lines, addressed by a position that never changes while a line is kept.

    Positions count from 0 over the life of the ring; ``start <= position < end`` are held. Lines leave from the front
    in large steps, so an append costs what extending a list costs. One thread appends; others may read at any time
    through ``get`` and ``slice``, which tolerate a position that has just left.
    """

    def __init__(self, *, max_lines: int = 200_000, max_bytes: int = 32 * 1024 * 1024) -> None:
        self.max_lines = max_lines
        self.max_bytes = max_bytes
        # One tuple, replaced as a whole, so a reader never sees a new list with an old offset.
        self._held: tuple[int, list[bytes]] = (0, [])
        self._writers: tuple[list[int], list[str]] = ([], [])
        self.bytes = 0

    @property
    def start(self) -> int:
        return self._held[0]

    @property
    def end(self) -> int:
        start, lines = self._held
        return start + len(lines)

    def __len__(self) -> int:
        return len(self._held[1])

    @property
    def fill(self) -> float:
        """How full it is, 0 to 1, by whichever bound is nearer."""
        return min(1.0, max(len(self) / self.max_lines, self.bytes / self.max_bytes))

    def extend(self, lines: Sequence[bytes], writer: str = "") -> None:
        start, held = self._held
        since, writers = self._writers
        if not writers or writers[-1] != writer:
            since.append(start + len(held))
            writers.append(writer)
        held.extend(lines)
        self.bytes += sum(map(len, lines))
        if len(held) > self.max_lines or self.bytes > self.max_bytes:
            self._trim(start, held)

    def _trim(self, start: int, held: list[bytes]) -> None:
        """Drop the oldest until a quarter of each bound is free: one copy now instead of one per append."""
        keep_lines, keep_bytes = self.max_lines * 3 // 4, self.max_bytes * 3 // 4
        cut, kept_bytes = max(0, len(held) - keep_lines), self.bytes
        kept_bytes -= sum(map(len, held[:cut]))
        while kept_bytes > keep_bytes and cut < len(held) - 1:  # the newest line stays, whatever its size
            kept_bytes -= len(held[cut])
            cut += 1

        since, writers = self._writers
        first = max(0, bisect_right(since, start + cut) - 1)
        self._writers = (since[first:], writers[first:])
        self._held = (start + cut, held[cut:])
        self.bytes = kept_bytes

    def get(self, position: int) -> bytes | None:
        """The line at a position, ``None`` once it has left."""
        start, lines = self._held
        offset = position - start
        return lines[offset] if 0 <= offset < len(lines) else None

    def writer_at(self, position: int) -> str:
        """Who wrote the line at a position."""
        since, writers = self._writers
        at = bisect_right(since, position) - 1
        return writers[at] if 0 <= at < len(writers) else ""

    def slice(self, begin: int, end: int) -> tuple[int, list[bytes]]:
        """The held lines of ``begin <= position < end`` and the position of the first of them."""
        start, lines = self._held
        low = max(begin - start, 0)
        return start + low, lines[low : max(end - start, 0)]
