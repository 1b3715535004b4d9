"""One opened run: its tree, filled from the ring, from history if it began earlier, and from the live end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flowdeck_devtools.core.history import History
from flowdeck_devtools.core.live import LiveStore
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.past import Wanted
from flowdeck_devtools.core.spool import LineQueue
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
        self.closed = False
        """It is not kept up to date any more."""
        self._known = known or live.index.rows.get
        self._live = live
        self._feed = live.follow(root_run_id)
        self._backlog = LineQueue()
        self._wanted = Wanted()
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
        return not self._ready.is_set() or len(self._backlog) > 0

    def close(self) -> None:
        """Keep it up to date no more, nor read on in its past; waits for nothing."""
        self.closed = True
        self._live.unfollow(self._feed)
        self._wanted.give_up()

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
        for queue in (self._backlog, self._feed):
            while lines := queue.take(256):
                self.trace.extend((writer, line, head(line)) for writer, line in lines)
                if time.perf_counter() > until:
                    return self.trace.version != before
        return self.trace.version != before

    @property
    def left_out(self) -> int:
        """Events there was no room for, because too many came while nobody looked or the disk is full: open it anew."""
        return self._feed.dropped + self._backlog.dropped

    def _put_back(self, lines: list[tuple[str, bytes]]) -> None:
        """Keep older lines until the tree has taken them in."""
        for writer, line in lines:
            self._backlog.put(writer, line)

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
        self.problem = history.read_run(self.trace.root.key, self._put_back, self._wanted)
        self._ready.set()
