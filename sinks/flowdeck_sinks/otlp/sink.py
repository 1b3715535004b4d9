"""OTLPSink: observation events become traces, logs and metrics at an OTLP collector.

Two ways, one sink::

    durable   the events are stored too: a thread reads them back from the store, from a saved cursor on. Nothing is
              lost in an outage or a restart, and the emitting thread does no work at all.
    memory    accept(record) -> bounded queue of encoded events -> mapping thread -> bounded queue of encoded spans
              -> sending thread. Nothing is written anywhere.

``auto`` (the default) is durable when ``runtime.observe`` attaches a store in the same call, else memory. Neither way
blocks or raises, whatever the collector does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from flowdeck.events.lineage import RunContext
from flowdeck.layout import Layout
from flowdeck_sinks._process_end import close_sender_with_process, close_with_worker_process
from flowdeck_sinks.otlp.dead_letters import DeadLetters
from flowdeck_sinks.otlp.delivery import Lane
from flowdeck_sinks.otlp.durable import ExportThread
from flowdeck_sinks.otlp.outbox import Outbox, suppress_instrumentation
from flowdeck_sinks.otlp.pipeline import Pipeline
from flowdeck_sinks.otlp.propagation import RESUMED, LongWaits, run_entry
from flowdeck_sinks.otlp.resource import make_resource
from flowdeck_sinks.otlp.sampling import make_sampler
from flowdeck_sinks.otlp.settings import OtlpSettings
from flowdeck_sinks.otlp.statistics import lane_statistics

__all__ = ["OTLPSink", "create_sink"]

log = logging.getLogger("flowdeck.sinks.otlp")

LEAST_EVENT_BYTES: Final = 4 * 1024 * 1024
GATHER_SECONDS: Final = 0.05
SETTLE_SECONDS: Final = 0.5
"""How often the mapper is asked for spans whose grace has passed, while there may be some."""
SETTLE_ROUNDS: Final = 6
CLOSE_SECONDS: Final = 5.0
MARGIN_SECONDS: Final = 0.1
"""What ending the threads may take."""


class _Encoded(Protocol):
    @property
    def encoded(self) -> bytes: ...


class _StoreSink(Protocol):
    """What durable mode needs of the sink that stores the events."""

    @property
    def layout(self) -> Layout: ...
    @property
    def writer(self) -> str: ...
    def flush(self, timeout: float) -> bool: ...


class OTLPSink:
    """Exports events by OTLP.

    Args:
        endpoint: the collector's base URL; ``None``: what the ``OTEL_*`` variables say, else ``localhost``.
        mode: ``"auto"``, ``"durable"`` or ``"memory"``; ``None``: ``FLOWDECK_OTLP_MODE``, else ``auto``.
        settings: everything, already read; the other arguments are then ignored.

    Raises:
        ValueError: ``endpoint`` or ``mode`` cannot be used.
    """

    name = "otlp"

    def __init__(
        self, endpoint: str | None = None, *, mode: str | None = None, settings: OtlpSettings | None = None
    ) -> None:
        self.settings = settings or OtlpSettings.from_environment(endpoint, mode=mode)
        for problem in self.settings.problems:
            log.warning("flowdeck otlp: %s", problem)

        self._off = self.settings.disabled or not self.settings.targets
        sampler = make_sampler(self.settings.sampler, self.settings.ratio)
        self._waits = LongWaits()
        self.enter_run: Callable[[RunContext], None] | None = None if self._off else run_entry(sampler, self._waits)
        """Called by an execution in the context of its branches: makes its spans the current ones there."""
        self._store: _StoreSink | None = None
        self._center: Any = None
        self._closed = False
        self._reset()
        if not self._off:
            close_sender_with_process(self)

    def _reset(self) -> None:
        self._pending: deque[bytes] = deque()
        self._queued = 0
        self._limit = -1 if self._off or self._closed else max(self.settings.queue_bytes, LEAST_EVENT_BYTES)
        self._accepted = 0
        self._dropped = 0
        self._dropped_told = 0
        self._bell = threading.Event()
        self._changed = threading.Condition()
        self._flushes = 0
        self._flushed = 0
        self._ended = False
        self._armed = True
        self._thread: threading.Thread | None = None
        self._pipeline: Pipeline | None = None
        self._outbox: Outbox | None = None
        self._export: ExportThread | None = None

    # -- joining a runtime ---------------------------------------------------------------------------------------

    def bind_store(self, sink: Any) -> None:
        """Export from this store's files instead of from memory, unless memory mode is asked for.

        Called by ``runtime.observe`` when the same call attaches a store.
        """
        if self._off or self.settings.mode == "memory" or not hasattr(sink, "layout"):
            return

        self._store = sink
        self._limit = -1
        self._export = self._open_export()
        self._export.start()

    def attached(self, center: Any) -> None:
        """Remember the Event Center, to tell it what was dropped."""
        self._center = center
        if not self._off:
            center.add_sink(self._waits, RESUMED)

        if self.settings.mode == "durable" and self._store is None and not self._off:
            log.warning(
                "flowdeck otlp: durable mode needs a store, and none is observed: spans are kept in memory only. "
                "Use runtime.observe(store=True, otlp=True)."
            )

    @property
    def mode(self) -> str:
        """``off``, ``durable`` or ``memory``: how this sink works now."""
        if self._off:
            return "off"

        return "memory" if self._export is None else "durable"

    # -- the emitting threads ------------------------------------------------------------------------------------

    def accept(self, record: _Encoded) -> None:
        """Take one event. Never blocks and never raises."""
        if self._limit < 0:  # off, closed, or read back from the store
            export = self._export
            if export is not None and not export.started and not self._closed:
                export.start()

            return

        line = record.encoded
        size = len(line)
        if self._queued + size > self._limit:
            self._dropped += 1
            return

        # No lock, as in the journal: CPython switches threads only at calls and jumps.
        self._queued = self._queued + size
        self._pending.append(line)
        if self._armed:
            self._wake()

    def _wake(self) -> None:
        self._armed = False
        if self._thread is None:
            self._start()

        self._bell.set()

    def flush(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Wait until everything accepted so far is with the collector (or given up). Return whether it is."""
        deadline = time.monotonic() + timeout
        if self._export is not None:
            return self._export.flush(timeout)

        if self._thread is None:
            return not self._pending

        with self._changed:
            self._flushes += 1
            wanted = self._flushes
            self._bell.set()
            done = self._changed.wait_for(lambda: self._flushed >= wanted or self._ended, timeout)

        outbox = self._outbox
        return done and (outbox is None or outbox.flush(max(0.0, deadline - time.monotonic())))

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Send what is there and stop, within ``timeout`` seconds. Closing twice does nothing."""
        if self._closed:
            return

        self._closed = True
        self._limit = -1
        if self._center is not None:
            self._center.remove_sink(self._waits)

        timeout = max(0.0, timeout - MARGIN_SECONDS)
        deadline = time.monotonic() + timeout
        if self._export is not None:
            self._export.close(timeout)
            return

        self._bell.set()
        thread = self._thread
        if thread is not None and thread.is_alive():
            # The mapping thread needs milliseconds; what time remains is the collector's.
            thread.join(timeout)

        if self._outbox is not None:
            self._outbox.close(max(0.0, deadline - time.monotonic()))

        self._tell()

    def statistics(self) -> dict[str, int | float | str]:
        """Return counters, the present failure and what the settings could not make sense of."""
        out: dict[str, int | float | str] = {
            "mode": self.mode,
            "accepted": self._accepted + len(self._pending),
            "dropped": self._dropped,
            "queued": len(self._pending),
            "problems": "; ".join(self.settings.problems),
        }
        if self._export is not None:
            return {**out, **self._export.statistics()}

        if self._pipeline is not None:
            out.update(self._pipeline.statistics())

        outbox = self._outbox
        if outbox is not None:
            out.update(lane_statistics(outbox.lanes, outbox.queued))
            out["queued_bytes"] = outbox.queued_bytes
            open_lanes = (lane for lane in outbox.lanes.values() if lane.open)
            out["dropped"] = self._dropped + sum(lane.counts.dropped for lane in open_lanes)

        return out

    # -- memory mode: the mapping thread -------------------------------------------------------------------------

    def _start(self) -> None:
        with self._changed:
            if self._thread is not None:
                return

            lanes = {
                signal: Lane(target, self.settings, DeadLetters(None), on_lost=self._lost)
                for signal, target in self.settings.targets.items()
            }
            self._pipeline = Pipeline(self.settings, make_resource(_instance()), partial=True)
            self._outbox = Outbox(lanes, self.settings, self._pipeline.metrics)
            thread = threading.Thread(target=self._run, name="flowdeck-otlp-map", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # the interpreter is ending

            self._thread = thread

        close_with_worker_process(self)

    def _run(self) -> None:
        suppress_instrumentation()
        quiet = 0
        while not self._closed:
            asked = self._flushes
            if not self._pending and asked == self._flushed:
                self._armed = True
                # Looked at after arming: an event that came before is seen here, a later one rings.
                if not self._pending:
                    self._bell.wait(SETTLE_SECONDS if quiet < SETTLE_ROUNDS else None)

            self._bell.clear()
            self._armed = False
            if self._pending and asked == self._flushes and not self._closed:
                self._bell.wait(GATHER_SECONDS)

            asked = self._flushes
            try:
                quiet = 0 if self._drain(asked != self._flushed) else quiet + 1
            except Exception:  # a defect of ours: the events at hand are lost, those to come are not
                log.exception("flowdeck otlp: events could not be mapped")

            with self._changed:
                self._flushed = asked
                self._changed.notify_all()

        with suppress(Exception):
            self._drain(True)

        with self._changed:
            self._flushed = self._flushes
            self._ended = True
            self._changed.notify_all()

    def _drain(self, everything: bool) -> int:
        """Map what waits and hand it to the outbox. Return how many events there were."""
        pipeline, outbox = self._pipeline, self._outbox
        assert pipeline is not None and outbox is not None
        pending = self._pending
        total = len(pending)
        freed = 0
        for count in range(1, total + 1):
            line = pending.popleft()
            freed += len(line)
            pipeline.feed(line, "")
            if count % 512 == 0:
                self._hand_over(pipeline, outbox)
                self._queued -= freed
                freed = 0

        self._queued -= freed
        self._accepted += total
        pipeline.flush() if everything else pipeline.due()
        self._hand_over(pipeline, outbox)
        self._tell()
        return total

    @staticmethod
    def _hand_over(pipeline: Pipeline, outbox: Outbox) -> None:
        if pipeline.made:
            for signal, items in pipeline.take().items():
                outbox.put(signal, items)
                if items and not outbox.lanes[signal].open:
                    pipeline.leave_out(signal)

    def _lost(self, signal: str, count: int, size: int, reason: str) -> None:
        if not reason.startswith("the collector takes no"):
            self._report(count, size, f"{signal}: {reason}")

    def _tell(self) -> None:
        """Put the events that found no room on record."""
        count = self._dropped - self._dropped_told
        if count:
            self._dropped_told += count
            self._report(count, 0, "the queue of events was full")

    def _report(self, count: int, size: int, reason: str) -> None:
        center = self._center
        if center is not None:
            payload = {"sink": self.name, "count": count, "bytes": size, "reason": reason}
            with suppress(Exception):
                center.report("sink.dropped", payload, skip=self)

    # -- durable mode, and birth again after a fork --------------------------------------------------------------

    def _open_export(self) -> ExportThread:
        assert self._store is not None
        return ExportThread(self._store.layout, self.settings, source=self._store)

    def _after_fork(self) -> None:
        """Begin anew in a forked child: what was queued is the parent's, and so are its threads."""
        export = self._export
        self._reset()
        if export is not None:
            export.abandon()
            if not self._closed:
                self._limit = -1
                self._export = self._open_export()  # started by the child's first event


def create_sink(target: str = "", **options: Any) -> OTLPSink:
    """Return the sink for ``FLOWDECK_SINKS="otlp"``, ``"otlp:http://host:4318"`` and ``runtime.observe(otlp=…)``.

    Raises:
        ImportError: the extra is missing; the message of the caller names the command.
        ValueError: as :class:`OTLPSink`.
    """
    return OTLPSink(target or None, **options)


def _instance() -> str:
    from flowdeck.events.ids import new_id

    return new_id()
