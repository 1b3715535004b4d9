"""One export of a store, from a saved cursor on, round by round.

::

    read a megabyte of lines behind the cursor -> map -> encode -> send, trying again for as long as it takes
      -> note the keys of every acknowledged batch -> now and then save the position with the mapper's open runs

The store is the queue: an outage of hours costs no memory, and a kill repeats at most the batch in flight.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from flowdeck.errors import FlowdeckError
from flowdeck.layout import Layout, is_writer_alive
from flowdeck_sinks.otlp.cursor import Cursor
from flowdeck_sinks.otlp.dead_letters import DeadLetters, dead_letter_directory
from flowdeck_sinks.otlp.delivery import Item, Lane
from flowdeck_sinks.otlp.pipeline import Pipeline
from flowdeck_sinks.otlp.resource import make_resource
from flowdeck_sinks.otlp.resumable import resumable_executions
from flowdeck_sinks.otlp.settings import OtlpSettings
from flowdeck_sinks.otlp.statistics import lane_statistics
from flowdeck_sinks.otlp.store_lines import StoreLines

__all__ = ["CURSOR", "ExportStalled", "Source", "StoreExport"]

log = logging.getLogger("flowdeck.sinks.otlp")

CURSOR: Final = "otlp"
LOOK_SECONDS: Final = 0.25
"""How long new events may lie in the journal before they are read: one stat and one read per writer."""
CHECKPOINT_SECONDS: Final = 1.0
CHECKPOINT_SHARE: Final = 20
"""Saving may take a twentieth of the time: with many open runs it happens less often."""
FUNERAL_SECONDS: Final = 5.0
"""How often writers are looked at that may have died."""
STATUS_SECONDS: Final = 1.0


class ExportStalled(FlowdeckError):
    """The collector did not take anything for longer than the caller would wait. Nothing is lost."""


class Source(Protocol):
    """The sink that writes this process's events."""

    @property
    def writer(self) -> str: ...
    def flush(self, timeout: float) -> bool: ...


class StoreExport:
    """Exports a store in the calling thread: :meth:`open`, then :meth:`round` or :meth:`follow`, then :meth:`shut`.

    Args:
        layout: the store.
        settings: where to and how.
        name: the cursor's name.
        source: the sink that writes this process's events: flushed before the end. With it, an export that begins
            without a cursor begins now; without it, with the oldest event.
        patience: seconds a round tries before it raises :class:`ExportStalled`; ``None``: for ever.
    """

    def __init__(
        self,
        layout: Layout,
        settings: OtlpSettings,
        *,
        name: str = CURSOR,
        source: Source | None = None,
        patience: float | None = None,
    ) -> None:
        self.layout = layout
        self.settings = settings
        self.name = name
        self.letters = DeadLetters(dead_letter_directory(layout))
        self.repeated = 0
        """Items passed over after a restart, because they had been acknowledged."""
        self._source = source
        self._patience = patience
        self._lanes: dict[str, Lane] = {}
        self._pipeline: Pipeline | None = None
        self._cursor: Cursor | None = None
        self._reader: StoreLines | None = None
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._flushes = 0
        self._flushed = 0
        self._deadline = float("inf")
        self._dirty = False
        self._saved_at = 0.0
        self._save_cost = 0.0
        self._funeral_at = 0.0
        self._status_at = 0.0
        self._metrics_at = time.monotonic() + settings.metric_interval
        self._problem = ""
        self._busy = 0
        self._total = 0

    # -- on and on ----------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Export what comes until :meth:`stop`. Call :meth:`open` before and :meth:`shut` after."""
        while not self._stop.is_set():
            asked = self._flushes
            try:
                if self.round():
                    continue

                if asked != self._flushed:
                    self.settle()
                    with self._changed:
                        self._flushed = asked
                        self._changed.notify_all()
            except OSError as problem:
                self._note(f"the store cannot be read or written: {problem}")

            self._stop.wait(LOOK_SECONDS)

        with suppress(OSError):
            while not self._blocked() and time.monotonic() < self._deadline and self.round():
                pass

            if not self._blocked():
                self.settle()

    def stop(self, timeout: float) -> None:
        """Have :meth:`follow` end within ``timeout`` seconds. Returns at once; safe in a signal handler."""
        self._deadline = time.monotonic() + timeout
        self._stop.set()

    # -- step by step --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the cursor and go on where it stands.

        Raises:
            CursorBusy: another process exports.
            OSError: the store cannot be written.
        """
        cursor = self._cursor = Cursor.hold(self.layout, self.name)
        pipeline = self._prepare()
        if cursor.mapper_state and not pipeline.mapper.restore(cursor.mapper_state):
            log.warning("flowdeck otlp: the saved state of open runs is of another version; their spans begin late")
            cursor.forget_mapper()

        reader = self._reader = StoreLines(self.layout, dict(cursor.position))
        if cursor.fresh and self._source is not None:
            # Attached for the first time: export what happens from now on, not the history of the store.
            reader.skip_to_now(besides=self._source.writer)

        if cursor.fresh:
            self._save()  # keys of acknowledged items need a position they belong to

        self._total = reader.ahead()

    def _prepare(self) -> Pipeline:
        self._lanes = {
            signal: Lane(target, self.settings, self.letters, on_settled=self._settled_by(signal))
            for signal, target in self.settings.targets.items()
        }
        self._pipeline = Pipeline(self.settings, make_resource(self.name, of_process=False))
        return self._pipeline

    def round(self) -> int:
        """Export the next lines of the store; return how many there were. 0: there are no more for now.

        Waits for as long as the collector is away. Stopped meanwhile, it leaves the rest for the next start.

        Raises:
            ExportStalled: the collector was away for longer than ``patience``, or the address or the key is wrong.
        """
        reader, pipeline = self._reader, self._pipeline
        assert reader is not None and pipeline is not None
        lines = reader.read()
        if lines is not None:
            self._dirty = True
            for text in lines.texts:
                pipeline.feed(text, lines.writer)
        else:
            pipeline.due()
            self._bury()

        self._send()
        now = time.monotonic()
        if now - self._saved_at >= max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * self._save_cost):
            self._save()

        if now - self._status_at >= STATUS_SECONDS:
            self._leave_status()

        return 0 if lines is None else len(lines.texts)

    def settle(self) -> None:
        """Export every span that has ended, without waiting for its grace, and save the position."""
        assert self._pipeline is not None
        self._pipeline.flush()
        self._metrics_at = 0.0
        self._send()
        self._save()
        self._leave_status()

    def shut(self) -> None:
        """Let go of the cursor and the connections. Safe to call twice."""
        for lane in self._lanes.values():
            lane.close()

        if self._reader is not None:
            self._reader.close()

        if self._cursor is not None:
            self._leave_status()
            self._cursor.close()
            self._cursor = None

    @property
    def failure(self) -> str:
        """What stands in the way now; empty when nothing does."""
        return "; ".join(filter(None, (self._problem, *(lane.counts.failure for lane in self._lanes.values()))))

    @property
    def position(self) -> dict[str, int]:
        """How far the store is read, by writer."""
        return {} if self._reader is None else dict(self._reader.position)

    @property
    def total(self) -> int:
        """Events read so far and still to read, about: for a progress bar."""
        return self._total

    def statistics(self) -> dict[str, int | float | str]:
        """Return counters and the present failure."""
        out: dict[str, int | float | str] = {"cursor": self.name, "leader": int(self._cursor is not None)}
        if self._busy:
            out["exported_by_pid"] = max(0, self._busy)

        if self._pipeline is not None:
            out.update(self._pipeline.statistics())

        out.update(lane_statistics(self._lanes))
        out["repeats_avoided"] = self.repeated
        out["dead_letters"] = self.letters.kept
        out["dead_letters_lost"] = self.letters.lost
        out["dropped"] = sum(lane.counts.dropped for lane in self._lanes.values() if lane.open) + self.letters.lost
        if self._reader is not None:
            out["damaged_lines"] = self._reader.damaged
            out["unreadable"] = self._reader.unreadable

        out["failure"] = self.failure
        return out

    def _blocked(self) -> bool:
        """Whether something that was read could not be delivered."""
        return any(lane.batches for name, lane in self._lanes.items() if name != "metrics")

    # -- parts of a round ----------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Deliver what the pipeline has made; return when all of it is settled, or the end has come."""
        pipeline, cursor = self._pipeline, self._cursor
        assert pipeline is not None
        made = pipeline.take() if pipeline.made else {}
        for signal, items in made.items():
            lane = self._lanes.get(signal)
            if lane is None or not items:
                continue

            if not lane.open:
                pipeline.leave_out(signal)
                continue

            self._dirty = True
            if cursor is not None and cursor.repeats:
                fresh = [item for item in items if not cursor.is_sent(signal, item.key)]
                self.repeated += len(items) - len(fresh)
                items = fresh

            lane.put(items)

        if time.monotonic() >= self._metrics_at and "metrics" in self._lanes:
            self._metrics_at = time.monotonic() + self.settings.metric_interval
            request = pipeline.metrics()
            if request is not None:
                self._lanes["metrics"].put_encoded(*request)

        last_words = False
        while waiting := [lane for name, lane in self._lanes.items() if lane.batches and name != "metrics"]:
            ending = self._stop.is_set()
            if ending and not last_words:
                last_words = True
                for lane in waiting:
                    lane.hurry()

            pause = min(lane.due_in() or 0.0 for lane in waiting)
            if pause > 0:
                if ending:
                    return  # tried once more and still nobody there: the store keeps it

                if self._patience is not None:
                    for lane in waiting:
                        if lane.misdirected or lane.failing_for > self._patience:
                            raise ExportStalled(lane.counts.failure)

                self._stop.wait(min(pause, STATUS_SECONDS))
                self._leave_status(every=STATUS_SECONDS)
                continue

            for lane in waiting:
                if lane.due_in() == 0.0:
                    left = self._deadline - time.monotonic()
                    if left <= 0:
                        return

                    lane.step(left)

        metrics = self._lanes.get("metrics")
        if metrics is not None and metrics.due_in() == 0.0:
            metrics.step(max(0.05, self._deadline - time.monotonic()))  # later ones replace what fails

    def _settled_by(self, signal: str) -> Callable[[Sequence[Item]], None]:
        def settled(items: Sequence[Item]) -> None:
            if self._cursor is not None and items:
                try:
                    self._cursor.sent(signal, [item.key for item in items])
                except OSError as problem:
                    self._note(f"the cursor cannot be written: {problem}")

        return settled

    def _save(self) -> None:
        """Save the position; only when everything read is settled."""
        cursor, reader, pipeline = self._cursor, self._reader, self._pipeline
        self._saved_at = time.monotonic()
        if cursor is None or reader is None or pipeline is None:
            return  # a selection has no cursor

        if self._blocked():
            return

        if not self._dirty and not cursor.fresh and not pipeline.mapper.statistics().get("held"):
            return

        try:
            cursor.checkpoint(dict(reader.position), pipeline.mapper.snapshot())
            self._dirty = False
            self._problem = ""
        except OSError as problem:
            self._note(f"the cursor cannot be written: {problem}")

        self._save_cost = time.monotonic() - self._saved_at

    def _bury(self) -> None:
        """Give up the open runs of writers that died, once all they wrote is read."""
        now = time.monotonic()
        if now < self._funeral_at:
            return

        self._funeral_at = now + FUNERAL_SECONDS
        pipeline = self._pipeline
        assert pipeline is not None
        writers = pipeline.mapper.open_writers()
        dead = {writer for writer in writers if writer and not is_writer_alive(self.layout, writer)}
        if dead:
            pipeline.bury(dead, resumable_executions(self.layout))
            self._dirty = True

    def _leave_status(self, every: float = 0.0) -> None:
        now = time.monotonic()
        if now - self._status_at >= every and self._cursor is not None:
            self._status_at = now
            about: dict[str, Any] = dict(self.statistics())
            self._cursor.status({**about, "updated_us": time.time_ns() // 1000, "writers": self.position})

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("flowdeck otlp: %s", problem)

        self._problem = problem
