"""A sink with a bounded queue and a thread of its own, for receivers that may be slow: a terminal, a log handler.

``accept`` only appends; what does not fit is dropped and counted. The thread starts with the first event, and again
in a forked child, where the parent's is gone.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Final

from flowdeck.events.record import EventRecord

log = logging.getLogger("flowdeck.sinks")

__all__ = ["LINGER_S", "QUEUE_BYTES", "QueuedSink"]

QUEUE_BYTES: Final = 4 * 1024 * 1024
"""Bound of what waits for the receiver."""
LINGER_S: Final = 0.02
"""How long the thread lets events gather."""
BATCH_BYTES: Final = 65_536
"""Encoded bytes handed over at once."""


class QueuedSink(ABC):
    """Hands encoded events to :meth:`_hand_over`, on a thread of its own. A subclass names itself and its events.

    Args:
        queue_bytes: what may wait.
    """

    name: str

    def __init__(self, *, queue_bytes: int = QUEUE_BYTES) -> None:
        self._queue_bytes = queue_bytes
        self._accepted = 0
        self._handed_over = 0
        self._dropped = 0
        self._told_dropped = 0
        self._ended = False
        self._reset()
        _sinks.add(self)

    def _reset(self) -> None:
        """Set up an empty queue; in a forked child the thread and its locks are gone."""
        self._queue: deque[tuple[Any, bytes] | threading.Event] = deque()  # events, and the markers of who flushes
        self._queued = 0
        self._bell = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False

    # -- what a subclass says ------------------------------------------------------------------------------------

    @abstractmethod
    def _wants(self, record: EventRecord) -> Any:
        """Return how the event is to be handed over, ``None`` when it is not wanted. On the emitting thread."""

    @abstractmethod
    def _hand_over(self, batch: list[tuple[Any, bytes]], missed: int) -> int:
        """Hand events over; ``missed`` are gone since the last time. Return how many are out. May block."""

    # -- the emitting threads ------------------------------------------------------------------------------------

    def accept(self, record: EventRecord) -> None:
        """Queue one event. Never blocks, never raises."""
        how = self._wants(record)
        if how is None:
            return

        line = record.encoded
        size = len(line)
        # Single additions of plain numbers: CPython switches threads at calls, and there is none in between.
        self._accepted += 1
        if self._ended or self._closing or self._queued + size > self._queue_bytes:
            self._dropped += 1
            return

        self._queued += size
        self._queue.append((how, line))
        if not self._bell.is_set():
            self._bell.set()

        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._closing:
                return

            thread = threading.Thread(target=self._run, name=f"flowdeck-{self.name}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending
                self._ended = True
                return

            self._thread = thread

    def flush(self, timeout: float) -> bool:
        """Wait until everything accepted is out, at most ``timeout`` seconds. Return whether it is."""
        if self._ended or self._thread is None:
            return self._ended or not self._queue

        marker = threading.Event()
        self._queue.append(marker)
        self._bell.set()
        return marker.wait(timeout)

    def close(self, timeout: float = 2.0) -> None:
        """Hand over what is queued, within ``timeout`` seconds, and stop. Closing twice does nothing."""
        if self._closing:
            return

        self._closing = True
        self._bell.set()
        thread = self._thread
        if thread is not None:
            thread.join(timeout)

        self._ended = True

    def statistics(self) -> dict[str, int | float | str]:
        """Return what was accepted, dropped and waits."""
        return {"accepted": self._accepted, "dropped": self._dropped, "queued": len(self._queue)}

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended:
            if self._queue:
                self._next_batch()
            elif self._closing:
                break
            else:
                self._bell.wait()
                self._bell.clear()  # before the next look at the queue: what is appended after it rings again
                if not self._closing:
                    time.sleep(LINGER_S)

        self._discard()

    def _next_batch(self) -> None:
        batch: list[tuple[Any, bytes]] = []
        size = 0
        markers: list[threading.Event] = []
        while self._queue and size < BATCH_BYTES:
            item = self._queue.popleft()
            if isinstance(item, threading.Event):
                markers.append(item)
                continue

            batch.append(item)
            size += len(item[1])

        self._queued -= size
        if batch:
            self._deliver(batch)

        for marker in markers:
            marker.set()

    def _deliver(self, batch: list[tuple[Any, bytes]]) -> None:
        missed = self._dropped - self._told_dropped
        self._told_dropped += missed
        try:
            out = self._hand_over(batch, missed)
        except Exception:  # whatever the receiver raises: the next batch may do better
            log.warning("sink %r raised", self.name, exc_info=True)
            out = 0

        self._handed_over += out
        self._dropped += len(batch) - out

    def _discard(self) -> None:
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, threading.Event):
                item.set()
            else:
                self._dropped += 1

        self._queued = 0


_sinks: weakref.WeakSet[QueuedSink] = weakref.WeakSet()


def _reset_all() -> None:
    for sink in list(_sinks):
        sink._reset()


os.register_at_fork(after_in_child=_reset_all)
