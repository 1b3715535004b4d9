"""The live end of a store: a thread that follows the journal into a ring of lines and an index of runs.

Nothing is decoded here but the head of each line (1 µs). The user interface reads what it shows at its own pace; no
message is sent per event, and there is no lock: one thread writes, and what others read is replaced as a whole or only
grows.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

import msgspec

from flowdeck.layout import Layout, StoreError, live_writers
from flowdeck_devtools.core.clock import Clock, SystemClock
from flowdeck_devtools.core.index import RunIndex
from flowdeck_devtools.core.ring import LineRing
from flowdeck_devtools.core.spool import LineQueue
from flowdeck_devtools.core.wire import Head, decode, head

__all__ = ["EAGER_BYTES", "LiveStore", "RateMeter", "TraceFeed"]

EAGER_BYTES = 24 * 1024 * 1024
"""A journal up to this size is read whole at the start, which makes everything live and exact without a query."""
CAUGHT_UP_BYTES = 1024 * 1024
"""A look that brings less than this has reached the end of the journal, even one that is being written fast."""
POLL_SECONDS = 0.04
IDLE_POLL_SECONDS = 0.05
QUIET_POLL_SECONDS = 0.15
"""Between looks once nothing came for a while. A look that finds nothing costs 0.1 ms, most of it for waking up."""
QUIET_AFTER_SECONDS = 5.0
LIVENESS_SECONDS = 2.0
MAX_FEED_BYTES = 512 * 1024 * 1024
"""What may wait to be taken in of an opened run nobody looks at, in a file."""
TAKEN_AT_ONCE = 4_096
FLOOD_PER_SECOND = 2_000


_decode_head = msgspec.json.Decoder(Head).decode


class Tail(Protocol):
    """What is needed of a journal tail."""

    def poll(self) -> Sequence[Batch]: ...


class Batch(Protocol):
    @property
    def writer(self) -> str: ...

    @property
    def lines(self) -> list[bytes]: ...


class RateMeter:
    """Events per second over the last seconds, and a history of it for a sparkline."""

    def __init__(self, *, buckets: int = 12, step_s: float = 1.0) -> None:
        self.step_s = step_s
        self.history: deque[int] = deque([0] * buckets, maxlen=buckets)
        self._since = 0.0
        self._count = 0
        self.per_second = 0.0

    def add(self, number: int, now: float) -> None:
        """Count events at monotonic time ``now``; call it with 0 to let time pass."""
        if self._since == 0.0:
            self._since = now
        elapsed = now - self._since
        if elapsed >= self.step_s:
            self.per_second = self._count / elapsed
            steps = min(int(elapsed / self.step_s), self.history.maxlen or 1)
            self.history.extend([0] * (steps - 1))
            self.history.append(self._count)
            self._since, self._count = now, 0
        self._count += number


class TraceFeed(LineQueue):
    """Lines of one root run, collected from the moment it was opened, whether anybody looks at it or not."""

    def __init__(self, root_run_id: str) -> None:
        super().__init__(MAX_FEED_BYTES)
        self.root_run_id = root_run_id


class LiveStore:
    """Follows one store. Start it, read its attributes, stop it.

    Args:
        store: The store's directory; it may not exist yet.
        clock: Time source.
        open_tail: Makes the tail; by default ``flowdeck_sinks.store.tail.JournalTail``.
    """

    def __init__(
        self,
        store: Path,
        *,
        clock: Clock | None = None,
        open_tail: Callable[[Path, bool], Tail] | None = None,
        max_lines: int = 200_000,
        eager_bytes: int | None = None,
        words: Callable[[], str] | None = None,
        also: Sequence[Path] = (),
    ) -> None:
        self.stores = (store, *also)
        self.origin: dict[str, Path] = {}
        """Which store a writer belongs to, where there are several."""
        self.eager_bytes = EAGER_BYTES if eager_bytes is None else eager_bytes
        self.words = words
        """Says what is looked at, where it is no store that lives: a file, a pipe, a replay."""
        self.store = store
        self.clock = clock or SystemClock()
        self.ring = LineRing(max_lines=max_lines)
        self.index = RunIndex()
        self.rate = RateMeter()
        self.problem: str | None = None
        """Why nothing can be read, in words for the person looking; ``None`` when all is well."""
        self.missing = True
        """No store there yet."""
        self.total = 0
        """Lines read since the start."""
        self.writers_alive = 0
        self.from_start = False
        """The journal was small enough to be read from its beginning."""
        self.caught_up = threading.Event()
        """Set once what was there at the start has been read."""
        self.read_at = self.clock.monotonic()
        """Monotonic time of the last successful look at the journal."""
        self.came: Callable[[], None] = _nothing
        """Called from the thread when lines came."""
        self._open_tail = open_tail or _journal_tail
        self._tail: Tail | None = None
        self._writers: set[str] = set()
        self._feeds: tuple[TraceFeed, ...] = ()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._liveness_at = 0.0
        self._came_at = 0.0
        self._backlog: list[tuple[int, int, str, bytes]] = []
        self._latest: dict[str, int] = {}

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="flowdeck-live", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def follow(self, root_run_id: str) -> TraceFeed:
        """Collect the lines of one run from now on. Give it back with ``unfollow``."""
        feed = TraceFeed(root_run_id)
        self._feeds = (*self._feeds, feed)
        return feed

    def unfollow(self, feed: TraceFeed) -> None:
        self._feeds = tuple(one for one in self._feeds if one is not feed)

    @property
    def flooding(self) -> bool:
        """More comes than anybody reads: views may draw half as often."""
        return self.rate.per_second > FLOOD_PER_SECOND

    def stale_for(self) -> float:
        """Seconds since the journal was last looked at; more than a few mean the disk or the thread hangs."""
        return max(0.0, self.clock.monotonic() - self.read_at)

    # -- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            quiet = self.clock.monotonic() - self._came_at > QUIET_AFTER_SECONDS
            wait = QUIET_POLL_SECONDS if quiet else IDLE_POLL_SECONDS
            try:
                if self._tail is None and not self._attach():
                    wait = 0.5
                elif self.poll_once():
                    self.came()
                    wait = POLL_SECONDS
            except (OSError, StoreError, ImportError) as error:
                self._tail = None
                self.problem = str(error)
                self.caught_up.set()
                wait = 1.0
            self._stopping.wait(wait)

    def _attach(self) -> bool:
        layouts = [Layout(store) for store in self.stores]
        there = [one for one in layouts if one.store_json.exists() or one.store_json.parent.is_file()]
        if not there:
            self.missing = True
            self.read_at = self.clock.monotonic()
            self.caught_up.set()
            return False

        for layout in there:
            layout.describe()  # raises with the mend in words: too new, damaged, a file, no permission
        self.missing = False
        self.from_start = sum(map(_journal_bytes, there)) <= self.eager_bytes
        if len(self.stores) == 1:
            self._tail = self._open_tail(self.store, self.from_start)
        else:
            from flowdeck_devtools.core.several import SeveralTails

            tails = {one.root: self._open_tail(one.root, self.from_start) for one in there}
            self._tail = SeveralTails(tails, self.origin)
        self.problem = None
        return True

    def poll_once(self) -> int:
        """Take what is new. The number of lines read; also called directly by tests, without the thread."""
        if self._tail is None and not self._attach():
            return 0
        assert self._tail is not None
        batches = self._tail.poll()
        taken = sum(len(batch.lines) for batch in batches)
        caught_up = self.caught_up.is_set()
        if self.from_start and not caught_up:
            self._gather(batches)
        else:
            for batch in batches:
                self._take(batch.writer, batch.lines)

        now = self.clock.monotonic()
        self.read_at = now
        if taken:
            self._came_at = now
        self.rate.add(taken if caught_up else 0, now)  # the backlog at the start is not a rate
        self.problem = None
        if now - self._liveness_at >= LIVENESS_SECONDS:
            self._liveness_at = now
            self._look_for_dead()
        if not (taken or caught_up):
            self.caught_up.set()  # also where the journal was not read from its start
        return taken

    def _gather(self, batches: Sequence[Batch]) -> None:
        """Put what was there at the start in order of time: it is read one writer after another.

        Lines of one writer keep their order even where its clock stepped back, because completeness is told by it.
        """
        for batch in batches:
            latest = self._latest.get(batch.writer, 0)
            for line in batch.lines:
                latest = max(latest, head(line).timestamp)
                self._backlog.append((latest, len(self._backlog), batch.writer, line))
            self._latest[batch.writer] = latest
        if sum(len(line) for batch in batches for line in batch.lines) >= CAUGHT_UP_BYTES:
            return

        backlog, self._backlog, self._latest = sorted(self._backlog), [], {}
        for writer, entries in groupby(backlog, key=itemgetter(2)):
            lines = [entry[3] for entry in entries]
            for at in range(0, len(lines), TAKEN_AT_ONCE):  # decoded heads are as large as the lines themselves
                self._take(writer, lines[at : at + TAKEN_AT_ONCE])
        self.caught_up.set()

    def _take(self, writer: str, lines: list[bytes]) -> None:
        if writer not in self._writers:
            self._writers.add(writer)
            self._liveness_at = 0.0  # look at once whether it lives
        position = self.ring.end
        try:
            heads = [_decode_head(line) for line in lines]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            heads = [head(line) for line in lines]  # some line is not as it should be: read each with patience
        self.ring.extend(lines, writer)
        self.index.apply(heads, lines, writer, position)
        if self._feeds:
            self._feed(writer, lines, heads)
        self.total += len(lines)

    def _feed(self, writer: str, lines: list[bytes], heads: list[Head]) -> None:
        feeds = {feed.root_run_id: feed for feed in self._feeds}
        for line, one in zip(lines, heads, strict=True):
            run = one.run
            if run is not None:
                feed = feeds.get(run.root_run_id or run.run_id or "")
                if feed is not None:
                    feed.put(writer, line)

    def definition(self, fingerprint: str) -> Mapping[str, Any] | None:
        """A flow's definition by its fingerprint, from the lines held: a byte test per line, on demand."""
        wanted = f'"{fingerprint}"'.encode()
        _, lines = self.ring.slice(self.ring.start, self.ring.end)
        for line in lines:
            if wanted in line and b'"triggerflow.definition_declared"' in line:
                payload = decode(line).payload_map()
                definition = payload.get("definition")
                if payload.get("fingerprint") == fingerprint and isinstance(definition, dict):
                    return definition
        return None

    @property
    def dropped(self) -> int:
        """Events the producers' sinks reported as dropped."""
        return self.index.dropped

    def _look_for_dead(self) -> None:
        alive = {writer for store in self.stores for writer in live_writers(Layout(store))}
        self.writers_alive = len(alive)
        self.index.mark_lost(self._writers - alive)


def _nothing() -> None:
    pass


def _journal_tail(store: Path, from_start: bool) -> Tail:
    from flowdeck_sinks.store.tail import JournalTail

    return JournalTail(store, from_start=from_start)


def _journal_bytes(layout: Layout) -> int:
    try:
        return sum(entry.stat().st_size for entry in layout.journal.iterdir() if entry.suffix == ".jsonl")
    except OSError:
        return 0
