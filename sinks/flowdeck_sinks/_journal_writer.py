"""The writer's side of the journal: what it holds back, what was lost, and how both reach the disk."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from flowdeck.events.ids import next_serial
from flowdeck.events.record import EventRecord
from flowdeck.layout import Layout, StoreError
from flowdeck_sinks._journal_blobs import BLOB_BYTES, LINE_BYTES, move_payload
from flowdeck_sinks._journal_segment import SegmentLog

__all__ = ["JournalWriter", "Losses"]

_log: Final = logging.getLogger("flowdeck.sinks.journal")


class Losses:
    """Counts events that never reach the disk, until the count itself does. Thread-safe."""

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0
        self._lock = threading.Lock()
        self._open: dict[str, tuple[int, int]] = {}
        self._unnumbered = 0

    def __bool__(self) -> bool:
        return bool(self._open)

    def add(self, count: int, size: int, reason: str, *, numbered: bool = True) -> None:
        """Count lost events.

        Args:
            count: How many.
            size: Their encoded bytes.
            reason: ``queue_full``, ``too_large``, ``segment_deleted``, ``internal_error`` or ``closed``.
            numbered: Whether their ``wseq`` is already used up.
        """
        with self._lock:
            self.count += count
            self.bytes += size
            self._merge(count, size, reason)
            if not numbered:
                self._unnumbered += count

    @property
    def unreported(self) -> int:
        """Lost events that are not on record yet."""
        with self._lock:
            return sum(count for count, _ in self._open.values())

    def take(self) -> tuple[dict[str, tuple[int, int]], int]:
        """Return and forget the unreported losses by reason, and how many of them have no number yet."""
        with self._lock:
            taken, self._open = self._open, {}
            unnumbered, self._unnumbered = self._unnumbered, 0
            return taken, unnumbered

    def put_back(self, count: int, size: int, reason: str) -> None:
        """Keep a loss whose report was refused for the next one."""
        with self._lock:
            self._merge(count, size, reason)

    def _merge(self, count: int, size: int, reason: str) -> None:
        counted, counted_bytes = self._open.get(reason, (0, 0))
        self._open[reason] = (counted + count, counted_bytes + size)


class JournalWriter:
    """Brings lines to disk in order. Driven by one thread at a time; never raises for what the disk does.

    Args:
        layout: The store.
        losses: Where lines that can never be written are counted.
        options: Those of :class:`SegmentLog`.

    Raises:
        StoreError: The writer's lock cannot be taken.
    """

    def __init__(self, layout: Layout, losses: Losses, options: dict[str, Any]) -> None:
        self.layout = layout
        self.losses = losses
        self.held: list[bytes] = []
        """Lines the disk refused, in order; they go first next time."""
        self.blobs = 0
        self.reports = 0
        self.told = 0
        """Lost events that no report could be written for, and that were logged at close instead."""
        self.failure: Exception | None = None
        self.log = SegmentLog(layout, losses.add, **options)

    def write(self, lines: list[bytes]) -> int:
        """Write what is held and then ``lines``.

        Returns:
            By how many bytes less is waiting now, the bytes of ``lines`` counted as waiting before.
        """
        if self.held:
            lines = self.held + lines
            self.held = []
        if not lines:
            self._report()
            return 0

        before = sum(map(len, lines))
        waiting: list[bytes] = []
        failure: Exception | None = None
        try:
            if max(map(len, lines)) > BLOB_BYTES:
                lines, waiting, failure = self._prepared(lines)
            settled = self.log.append(lines)
            self._note(self.log.failure or failure)
        except Exception:
            _log.exception("flowdeck journal: %d events could not be written", len(lines))
            self.losses.add(len(lines), before, "internal_error", numbered=False)
            settled = len(lines)

        if settled < len(lines) or waiting:
            self.held = lines[settled:] + waiting
            return before - sum(map(len, self.held))

        self._report()
        return before

    def give_up(self, lines: list[bytes]) -> None:
        """Count what is held and ``lines`` as lost."""
        left = self.held + lines
        self.held = []
        if left:
            self.losses.add(len(left), sum(map(len, left)), "closed")
        self.told = self.losses.unreported
        if self.told:
            _log.error(
                "flowdeck journal: %d events lost at close, they could not be stored in %s: %s",
                self.told,
                self.layout.root,
                self.failure,
            )

    def _prepared(self, lines: list[bytes]) -> tuple[list[bytes], list[bytes], Exception | None]:
        """Move large values of ``lines`` to blobs; return the lines ready to write, the rest, and what stopped it."""
        ready: list[bytes] = []
        for index, line in enumerate(lines):
            if len(line) > BLOB_BYTES:
                try:
                    line = move_payload(self.layout, line)
                except (OSError, StoreError) as error:
                    return ready, lines[index:], error
                if len(line) > LINE_BYTES:
                    self.losses.add(1, len(line), "too_large", numbered=False)
                    continue
                self.blobs += line is not lines[index]
            ready.append(line)

        return ready, [], None

    def _report(self) -> None:
        """Put what was lost on record, and skip the numbers it would have had."""
        if not self.losses:
            return

        taken, unnumbered = self.losses.take()
        self.log.skip(unnumbered)
        for reason, (count, size) in taken.items():
            record = EventRecord(
                event_type="sink.dropped",
                level="WARNING",
                time_us=time.time_ns() // 1000,
                _serial=next_serial(),
                source="JournalSink",
                message=f"The journal lost {count} events: {reason}",
                _payload={"sink": "journal", "count": count, "bytes": size, "reason": reason},
            )
            if self.log.append([record.encoded]):
                self.reports += 1
            else:
                self.losses.put_back(count, size, reason)

    def _note(self, failure: Exception | None) -> None:
        if failure is not None and self.failure is None:
            _log.warning(
                "flowdeck journal: %s cannot be written (%s). Events wait in memory as far as the queue holds "
                "them and are dropped and counted beyond that. Free space or mend the permissions.",
                self.layout.root,
                failure,
            )
        elif failure is None and self.failure is not None:
            _log.warning("flowdeck journal: %s can be written again", self.layout.root)
        self.failure = failure
