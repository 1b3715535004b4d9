"""JournalSink: every event on disk within 25 ms, at 0.2 us for the thread that emits.

The life of an event::

    accept(record)     the emitting thread: encode once, append to a deque bounded by bytes
    writer thread      wakes 20 ms after the first event, or at once at 256 KiB; parked while nothing comes
    SegmentLog.append  numbers the lines and writes whole lines with one write(2)
    <store>/journal/<writer>-<n>.jsonl

What the disk refuses waits in the queue and is tried again; what does not fit into the queue is dropped and
counted, and the count goes to disk as a ``sink.dropped`` event as soon as the disk takes one. ``kill -9`` loses
what is younger than one wake.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from flowdeck.layout import Layout, StoreError, StorePermission, resolve_store
from flowdeck_sinks._journal_publish import SERVED_BYTES, PublishTrigger
from flowdeck_sinks._journal_segment import SEGMENT_BYTES, SEGMENT_SECONDS
from flowdeck_sinks._journal_writer import JournalWriter, Losses
from flowdeck_sinks._process_end import CLOSE_SECONDS, close_with_process, close_with_worker_process

__all__ = ["JournalSink", "create_sink"]

QUEUE_BYTES: Final = 8 * 1024 * 1024
WAKE_BYTES: Final = 256 * 1024
WAKE_SECONDS: Final = 0.02
RETRY_SECONDS: Final = 0.25  # between attempts while the disk refuses
LOSSLESS_SECONDS: Final = 60.0
LOSSLESS_TYPES: Final = ("eval.",)
"""Results are not observation: an evaluation waits for the disk rather than lose one."""

# Values of JournalSink._wake_at, the queued bytes above which an emitting thread wakes the writer.
_AT_FIRST: Final = -1
_NEVER: Final = sys.maxsize


class Encoded(Protocol):
    """What the journal needs of an event record."""

    @property
    def event_type(self) -> str:
        """Its type; looked at only when the queue is full."""

    @property
    def encoded(self) -> bytes:
        """The event as one JSON object without a newline."""


class JournalSink:
    """Writes events to the journal of a store.

    Args:
        store: The store's directory; created when missing.
        queue_bytes: Bound of what waits for the disk, in encoded bytes. One event larger than that is taken
            when nothing else waits.
        wake_seconds: Longest time an event waits before it is written.
        lossless: For which events a full queue makes the emitting thread wait instead of dropping: all, none, or
            those whose type begins with one of these.
        lossless_seconds: Longest such wait; after it the event is dropped and counted.
        fsync: Force each write to the device; only a power failure makes a difference.
        segment_bytes: Size at which a segment is sealed.
        segment_seconds: Age at which a segment is sealed.
        publish: Start a publisher in the background when there is enough to publish
            (see :mod:`flowdeck_sinks._journal_publish`).

    Raises:
        StoreError: The store cannot be created, is newer than this library, or is not writable.
    """

    name = "journal"

    def __init__(
        self,
        store: str | os.PathLike[str],
        *,
        queue_bytes: int = QUEUE_BYTES,
        wake_seconds: float = WAKE_SECONDS,
        lossless: bool | Iterable[str] = LOSSLESS_TYPES,
        lossless_seconds: float = LOSSLESS_SECONDS,
        fsync: bool = False,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
        publish: bool = True,
    ) -> None:
        self.layout = Layout.create(store)
        if not os.access(self.layout.journal, os.W_OK | os.X_OK):
            raise StorePermission(
                f"The store {self.layout.root} may not be written: no permission on {self.layout.journal}. Give "
                f"this user (uid {os.geteuid()}) write permission, or name another directory with --store."
            )

        self._queue_bytes = queue_bytes
        self._wake_bytes = min(WAKE_BYTES, queue_bytes // 2)
        self._wake_seconds = wake_seconds
        self._lossless = lossless if isinstance(lossless, bool) else _prefixes(lossless)
        self._lossless_seconds = lossless_seconds
        self._publish = publish
        self._segment_options: dict[str, Any] = {
            "segment_bytes": segment_bytes,
            "segment_seconds": segment_seconds,
            "fsync": fsync,
        }
        self._closed = False
        self._reset()
        self._born()
        close_with_process(self)

    def _reset(self) -> None:
        """Set up the queue, empty; in a forked child it replaces locks that other threads may have held."""
        self._pending: deque[bytes] = deque()
        self._queued = 0
        self._limit = -1 if self._closed else self._queue_bytes
        self._wake_at = _AT_FIRST
        self._bell = threading.Lock()
        self._bell.acquire()
        self._io = threading.Lock()
        self._changed = threading.Condition(threading.RLock())
        self._leaving = False
        """The process ends: nobody waits for room any more."""
        self._thread: threading.Thread | None = None
        self._journal: JournalWriter | None = None
        self._losses = Losses()
        self._trigger = PublishTrigger(self.layout) if self._publish else None
        self._stuck = False
        self._flushes_asked = 0
        self._flushes_done = 0
        self._ended = self._closed

    # -- the emitting threads ------------------------------------------------------------------------------

    def accept(self, record: Encoded) -> None:
        """Queue one event. Never blocks (unless lossless) and never raises."""
        line = record.encoded
        size = len(line)
        if self._queued + size > self._limit and not self._make_room(record, size):
            return

        # No lock: CPython switches threads only at calls and jumps, and there is none between this load and
        # store; a lock costs more than all the rest of this method (0.17 us of 0.27).
        queued = self._queued = self._queued + size
        self._pending.append(line)
        if queued > self._wake_at:
            self._wake()

    def flush(self, timeout: float) -> bool:
        """Wait until every event accepted before the call is on disk.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether that came true in time. Events dropped before the call do not count.
        """
        return not self._queued or self._await_written(timeout)

    def _write_out(self, timeout: float) -> None:
        """Write what is queued before the process's senders are closed; a disk that refuses is not waited for."""
        self._leaving = True
        if self._queued and not self._closed:
            self._await_written(timeout, or_refused=True)

    def _await_written(self, timeout: float, *, or_refused: bool = False) -> bool:
        deadline = time.monotonic() + timeout
        if not self._changed.acquire(timeout=timeout):  # SIGTERM may have come while the main thread held it
            return False

        self._flushes_asked += 1
        ticket = self._flushes_asked
        self._changed.notify_all()  # those who wait for room
        self._changed.release()
        self._wake()
        if not self._running():
            self._drain()
        with self._changed:
            self._changed.wait_for(
                lambda: self._flushes_done >= ticket or self._ended or (or_refused and self._stuck),
                max(0.0, deadline - time.monotonic()),
            )
            return self._flushes_done >= ticket

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Write what is queued, seal the segment and give up the writer's lock. Idempotent.

        Args:
            timeout: Seconds to wait at most. What the disk refuses now is dropped and counted.
        """
        if self._closed:
            return

        self._closed = True
        self._limit = -1  # accept() drops from here on
        self._ring()
        thread = self._thread
        if thread is not None and self._running():
            thread.join(timeout)
        else:
            self._finish()

    @property
    def writer(self) -> str:
        """This sink's writer id; another one in a forked child."""
        return self._born().log.writer

    @property
    def store(self) -> Path:
        """The store's directory."""
        return self.layout.root

    @property
    def dropped(self) -> int:
        """How many events will never be on disk; the same as in :meth:`statistics`, for who asks often."""
        return self._losses.count

    def statistics(self) -> dict[str, int | float | str]:
        """Return counters of events, bytes and segments, and the last refusal of the disk (empty when none)."""
        journal = self._journal
        log = journal.log if journal else None
        waiting = len(self._pending) + (len(journal.held) if journal else 0)
        written = log.lines - journal.reports if log and journal else 0
        return {
            "writer": log.writer if log else "",
            "accepted": written + self._losses.count + waiting,
            "written": written,
            "dropped": self._losses.count,
            "dropped_bytes": self._losses.bytes,
            "queued": waiting,
            "queued_bytes": self._queued,
            "bytes": log.bytes if log else 0,
            "writes": log.writes if log else 0,
            "segments": log.segments if log else 0,
            "blobs": journal.blobs if journal else 0,
            "told": journal.told if journal else 0,
            "failure": str(journal.failure or "") if journal else "",
        }

    def _make_room(self, record: Encoded, size: int) -> bool:
        """Return whether an event may enter a full queue: it is empty, or lossless and waiting helped."""
        if not self._closed:
            if not self._queued:
                return True

            if self._waits(record) and threading.current_thread() is not self._thread:
                self._wake()
                with self._changed:
                    self._changed.wait_for(
                        lambda: not self._queued or self._queued + size <= self._limit or self._closed or self._leaving,
                        self._lossless_seconds,
                    )
                if not self._closed and (not self._queued or self._queued + size <= self._limit):
                    return True

        self._losses.add(1, size, "closed" if self._closed else "queue_full", numbered=False)
        return False

    def _waits(self, record: Encoded) -> bool:
        """Whether a full queue makes the event wait."""
        if self._leaving:
            return False

        lossless = self._lossless
        return lossless if isinstance(lossless, bool) else record.event_type.startswith(lossless)

    def _wake(self) -> None:
        self._wake_at = _NEVER  # one ring is enough
        if self._thread is None:
            self._start()
        self._ring()

    def _ring(self) -> None:
        # A lock used as a binary semaphore: released means rung.
        with suppress(RuntimeError):
            self._bell.release()

    # -- the writer thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed:
            self._park()
            while not self._closed:
                self._gather()
                quiet = not self._pending
                if self._drain() and quiet:
                    break

        self._finish()

    def _park(self) -> None:
        """Sleep until an event comes or the open segment is old enough to be sealed."""
        self._wake_at = _AT_FIRST
        # Looked at after arming: an event that came before is seen here, a later one rings.
        if not self._pending and not self._closed:
            self._bell.acquire(timeout=self._journal.log.seconds_to_seal() if self._journal else -1)
        self._wake_at = _NEVER
        with self._io:
            if self._journal is not None:
                self._journal.log.seal_if_due()

    def _gather(self) -> None:
        """Let events collect for one wake, or pause after a refusal of the disk."""
        if self._stuck:
            self._bell.acquire(timeout=RETRY_SECONDS)
            return

        self._wake_at = self._wake_bytes
        if self._queued <= self._wake_bytes and self._flushes_asked == self._flushes_done:
            self._bell.acquire(timeout=self._wake_seconds)
        self._wake_at = _NEVER

    def _drain(self) -> bool:
        """Write what waits; return whether nothing is held back."""
        with self._io:
            asked = self._flushes_asked
            pending = self._pending
            if pending or self._journal is not None:
                lines = [pending.popleft() for _ in range(len(pending))]
                try:
                    journal = self._born()
                except StoreError:  # only in a forked child: its lock cannot be taken now
                    pending.extendleft(reversed(lines))
                    self._stuck = True
                else:
                    freed = journal.write(lines)
                    # Not in one statement: it would load _queued before the call and undo what accept() added.
                    self._queued -= freed
                    self._stuck = bool(journal.held)
                    if self._trigger is not None:
                        if self._trigger.saw(lines, journal.log.bytes, journal.log.segments):
                            self._ask_for_publisher(journal)
                        elif journal.log.open_bytes >= SERVED_BYTES and self._trigger.served():
                            journal.log.seal()

            with self._changed:
                if not self._stuck:
                    self._flushes_done = asked
                self._changed.notify_all()

            return not self._stuck

    def _ask_for_publisher(self, journal: JournalWriter) -> None:
        """Start one if it is worth it; what is open until now is sealed for it."""
        assert self._trigger is not None
        if self._trigger.wanted():
            journal.log.seal()
            self._trigger.start()

    def _finish(self) -> None:
        """Write the rest, count what cannot be, and let go of the files."""
        while self._drain() and self._pending:
            pass

        with self._io:
            if self._journal is not None:
                self._journal.give_up(list(self._pending))
                self._journal.log.close()
        with self._changed:
            self._pending.clear()
            self._queued = 0
            self._ended = True
            self._changed.notify_all()
        if self._trigger is not None and self._journal is not None and self._journal.log.segments:
            self._trigger.start()

    # -- birth, and birth again after a fork ---------------------------------------------------------------

    def _born(self) -> JournalWriter:
        with self._changed:
            if self._journal is None:
                self._journal = JournalWriter(self.layout, self._losses, self._segment_options)
            return self._journal

    def _start(self) -> None:
        with self._changed:
            if self._thread is not None:
                return

            thread = threading.Thread(target=self._run, name="flowdeck-journal", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # the interpreter is ending: close() writes what is queued

            self._thread = thread
        close_with_worker_process(self)

    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _after_fork(self) -> None:
        """Begin anew in a forked child: what was queued is the parent's, and so are its segment and lock."""
        if self._journal is not None:
            self._journal.log.abandon()
        self._reset()


def create_sink(target: str | os.PathLike[str] | None = None, **options: Any) -> JournalSink:
    """Return the sink for ``FLOWDECK_SINKS="store"`` and ``runtime.observe(store=...)``.

    Args:
        target: The store's directory; ``None`` or ``""`` means the default of :func:`flowdeck.layout.resolve_store`.
        options: Those of :class:`JournalSink`.

    Raises:
        StoreError: As :class:`JournalSink`.
    """
    return JournalSink(resolve_store(target), **options)


def _prefixes(types: Iterable[str]) -> tuple[str, ...]:
    return (types,) if isinstance(types, str) else tuple(types)
