"""A filtered, pausable view of the ring: which lines a tail shows, without copying one of them."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable

from flowdeck_devtools.core.ring import LineRing

__all__ = ["RingWindow"]

_STEP = 512


class RingWindow:
    """The lines of a ring that pass a filter, by index from the oldest.

    Without a filter it holds nothing of its own. With one it looks at new lines as they come and at old ones from the
    newest backwards, so the screen fills at once and the rest of the ring follows in slices of time.
    """

    def __init__(self, ring: LineRing) -> None:
        self._ring = ring
        self._passes: Callable[[bytes], bool] | None = None
        # Positions: ascending in both, but `_older` is stored newest first because it grows at its old end.
        self._older: list[int] = []
        self._newer: list[int] = []
        self._scanned_from = self._scanned_to = ring.end
        self._frozen: int | None = None

    # -- what is shown -----------------------------------------------------------------------------------------

    def set_filter(self, passes: Callable[[bytes], bool] | None) -> None:
        """Show only lines for which ``passes`` is true; ``None`` shows all."""
        self._passes = passes
        self._older, self._newer = [], []
        self._scanned_from = self._scanned_to = self._limit()

    @property
    def filtered(self) -> bool:
        return self._passes is not None

    @property
    def searching(self) -> bool:
        """Older lines have not all been looked at yet."""
        return self._passes is not None and self._scanned_from > self._ring.start

    @property
    def paused(self) -> bool:
        return self._frozen is not None

    def pause(self, paused: bool) -> None:
        """Freeze what is shown; the ring goes on filling."""
        if paused and self._frozen is None:
            self._frozen = self._ring.end
        elif not paused:
            self._frozen = None

    @property
    def pending(self) -> int:
        """Lines that came since the pause, before any filter."""
        return self._ring.end - self._frozen if self._frozen is not None else 0

    def _limit(self) -> int:
        return self._ring.end if self._frozen is None else min(self._frozen, self._ring.end)

    # -- keeping up --------------------------------------------------------------------------------------------

    def advance(self, limit_s: float = 0.008) -> bool:
        """Look at lines for at most ``limit_s`` seconds. True when what is shown may have changed."""
        if self._passes is None:
            return True
        until = time.perf_counter() + limit_s
        self._forget()
        changed = self._look_ahead(until)
        return self._look_back(until) or changed

    def _look_ahead(self, until: float) -> bool:
        passes, before = self._passes, len(self._newer)
        assert passes is not None
        while self._scanned_to < self._limit():
            first, lines = self._ring.slice(self._scanned_to, min(self._scanned_to + _STEP, self._limit()))
            self._newer.extend(first + offset for offset, line in enumerate(lines) if passes(line))
            self._scanned_to = first + len(lines)
            if not lines or time.perf_counter() > until:
                break
        return len(self._newer) != before

    def _look_back(self, until: float) -> bool:
        passes, before = self._passes, len(self._older)
        assert passes is not None
        while self._scanned_from > self._ring.start:
            first, lines = self._ring.slice(self._scanned_from - _STEP, self._scanned_from)
            for offset in range(len(lines) - 1, -1, -1):
                if passes(lines[offset]):
                    self._older.append(first + offset)
            self._scanned_from = first
            if time.perf_counter() > until:
                break  # one slice is always looked at, however busy the tail is
        return len(self._older) != before

    def _forget(self) -> None:
        """Drop positions that left the ring."""
        start = self._ring.start
        self._scanned_from = max(self._scanned_from, start)
        self._scanned_to = max(self._scanned_to, start)
        while self._older and self._older[-1] < start:
            self._older.pop()
        if self._newer and self._newer[0] < start:
            del self._newer[: bisect_left(self._newer, start)]

    # -- reading -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        if self._passes is None:
            return max(0, self._limit() - self._ring.start)
        return len(self._older) + len(self._newer)

    def position(self, index: int) -> int:
        """The ring position of the line at an index."""
        if self._passes is None:
            return self._ring.start + index
        older = len(self._older)
        return self._older[older - 1 - index] if index < older else self._newer[index - older]

    def index_of(self, position: int) -> int:
        """The index of a position, or of the first shown line after it."""
        if self._passes is None:
            return max(0, min(position - self._ring.start, len(self)))
        older = len(self._older)
        if older == 0 or position > self._older[0]:
            return older + bisect_left(self._newer, position)
        # `_older` descends: what is at or above the position stands at its front.
        return older - bisect_right(self._older, -position, key=lambda one: -one)

    def line(self, index: int) -> bytes | None:
        """The line at an index, ``None`` when there is none (any more)."""
        return self._ring.get(self.position(index)) if 0 <= index < len(self) else None
