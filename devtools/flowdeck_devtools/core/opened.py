"""One opened run: its tree, filled from the ring, from history if it began earlier, and from the live end."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from operator import itemgetter

from flowdeck_devtools.core.history import History
from flowdeck_devtools.core.live import LiveStore
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.spool import LineSpool
from flowdeck_devtools.core.trace import Trace
from flowdeck_devtools.core.wire import head

__all__ = ["OpenedRun"]

SLICE_SECONDS = 0.008
LOADING_SLICE_SECONDS = 0.03
"""Longest stretches of work per tick, live and while a run is being opened: a very large run (10 µs a line) loads in
slices and never freezes a keystroke."""


class OpenedRun:
    """A trace and where its lines come from. ``advance`` is called by the user interface on each tick.

    Lines that arrive while older ones are being read wait in the feed, so the tree is built in the journal's order
    and no line counts twice.
    """

    def __init__(
        self,
        root_run_id: str,
        live: LiveStore,
        history: History,
        known: Callable[[str], RunRow | None] | None = None,
    ) -> None:
        self.trace = Trace(root_run_id)
        self.problem: str | None = None
        self._known = known or live.index.rows.get
        self._live = live
        self._feed = live.follow(root_run_id)
        self._backlog = LineSpool()
        self._writers: list[tuple[int, str]] = []
        """From which line of the backlog on who wrote them."""
        self._done = 0
        self._ready = threading.Event()
        row = live.index.rows.get(root_run_id)
        in_ring = row is not None and not row.partial and row.first_position >= live.ring.start
        threading.Thread(
            target=self._read_ring if in_ring else self._read_history,
            args=(row.first_position,) if in_ring and row is not None else (history,),
            name="flowdeck-open-run",
            daemon=True,
        ).start()

    @property
    def loading(self) -> bool:
        """Older lines are still being read or taken in."""
        return not self._ready.is_set() or self._done < len(self._backlog)

    def close(self) -> None:
        self._live.unfollow(self._feed)

    def wait(self, timeout: float) -> bool:
        """Until the older lines have been read (not yet taken in)."""
        return self._ready.wait(timeout)

    def advance(self) -> bool:
        """Take in lines for a slice of time. True when the tree changed."""
        row = self._known(self.trace.root.key)
        self.trace.lost_us = row.last_us if row is not None and row.lost and row.status == "lost" else None
        if not self._ready.is_set():
            return False
        limit_s = LOADING_SLICE_SECONDS if len(self._backlog) else SLICE_SECONDS
        before, until = self.trace.version, time.perf_counter() + limit_s
        while self._done < len(self._backlog):
            self._done += self._take_in(self._done, min(self._done + 256, len(self._backlog)))
            if time.perf_counter() > until:
                return True
        if len(self._backlog):
            self._backlog, self._writers, self._done = LineSpool(), [], 0
        while len(self._feed):
            self.trace.extend(self._feed.take(256))
            if time.perf_counter() > until:
                break
        return self.trace.version != before

    def _take_in(self, begin: int, end: int) -> int:
        at = bisect_right(self._writers, begin, key=itemgetter(0)) - 1
        if at + 1 < len(self._writers):
            end = min(end, self._writers[at + 1][0])
        lines = ((self._writers[at][1], line) for line in map(self._backlog.get, range(begin, end)))
        self.trace.extend((writer, line, head(line)) for writer, line in lines)
        return end - begin

    def _put_back(self, lines: list[tuple[str, bytes]]) -> None:
        """Keep older lines until the tree has taken them in."""
        for writer, line in lines:
            if not self._writers or self._writers[-1][1] != writer:
                self._writers.append((len(self._backlog), writer))
            self._backlog.append(line)

    # -- threads -----------------------------------------------------------------------------------------------

    def _read_ring(self, first_position: int) -> None:
        """The run began within the ring: a byte test per line finds its lines, 0.1 µs each where it fails early."""
        wanted, root = self.trace.root.key.encode(), self.trace.root.key
        found: list[tuple[str, bytes]] = []
        ring = self._live.ring
        begin, lines = ring.slice(first_position, ring.end)
        for offset, line in enumerate(lines):
            if wanted in line:
                one = head(line)
                if one.run is not None and root in (one.run.root_run_id, one.run.run_id):
                    found.append((ring.writer_at(begin + offset), line))
        self._put_back(found)
        self._ready.set()

    def _read_history(self, history: History) -> None:
        self.problem = history.read_run(self.trace.root.key, self._put_back)
        self._ready.set()
