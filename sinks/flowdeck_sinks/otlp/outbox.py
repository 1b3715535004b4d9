"""The bounded queue of memory mode and the thread that empties it.

The thread sleeps until a batch is full, the oldest item is old enough, or an attempt is due; nothing polls. While the
collector is away items stay, up to a bound in bytes; beyond it the oldest go, log records before spans, and are
counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from flowdeck_sinks.otlp.delivery import Item, Lane
from flowdeck_sinks.otlp.settings import OtlpSettings

__all__ = ["Outbox", "suppress_instrumentation"]

log = logging.getLogger("flowdeck.sinks.otlp")

ITEM_OVERHEAD: Final = 150
"""Bytes of Python objects around an encoded item (measured: tuple, two bytes objects, a slot of the queue)."""
LAST_TRIES_SECONDS: Final = 2.0
"""How long a closing process goes on trying a collector that does not answer."""
_GIVE_WAY: Final = ("logs", "traces")
"""Which signal loses its oldest items first when the queue is full."""


class Outbox:
    """Queues encoded items of every signal and sends them from a thread of its own.

    Args:
        lanes: by signal.
        settings: bounds and delays.
        metrics: called by the thread when metrics are due; returns an encoded request and its data points.
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        settings: OtlpSettings,
        metrics: Callable[[], tuple[bytes, int] | None] | None = None,
    ) -> None:
        self.lanes = lanes
        self._settings = settings
        self._metrics = metrics if "metrics" in lanes else None
        self._changed = threading.Condition()
        self._queues: dict[str, deque[Item]] = {signal: deque() for signal in lanes}
        self._since: dict[str, float] = {}
        self._bytes = 0
        self._flushes = 0
        self._flushed = 0
        self._collected = 0
        """The last flush that metrics were collected for."""
        self._deadline: float | None = None
        self._doomed: set[str] = set()
        """Lanes that were failing when the end came: one more attempt, then they are given up."""
        self._metrics_at = time.monotonic() + settings.metric_interval
        self._thread: threading.Thread | None = None

    # -- any thread ----------------------------------------------------------------------------------------------

    def put(self, signal: str, items: list[Item]) -> None:
        """Queue encoded items. Never blocks for the collector; an overfull queue loses its oldest items."""
        lane = self.lanes.get(signal)
        if lane is None or not items:
            return

        with self._changed:
            if not lane.open:
                lane.lost(len(items), sum(len(item.data) for item in items), f"the collector takes no {signal}")
                return

            queue = self._queues[signal]
            if not queue:
                self._since[signal] = time.monotonic()

            queue.extend(items)
            self._bytes += sum(len(item.data) for item in items) + ITEM_OVERHEAD * len(items)
            if self._bytes > self._settings.queue_bytes or 0 < self._settings.queue_items_of(signal) < len(queue):
                self._make_room()

            if self._thread is None:
                self._start()
            elif len(queue) >= self._settings.batch_items_of(signal) or len(queue) == len(items):
                self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Send what is queued without waiting for full batches. Return whether everything is settled in time."""
        with self._changed:
            self._flushes += 1
            wanted = self._flushes
            if self._thread is None and not self._waiting():
                return True

            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._flushed >= wanted and not self._waiting(), timeout)

    def close(self, timeout: float) -> None:
        """Send what is queued within ``timeout`` seconds, then stop; what is left is counted as dropped."""
        with self._changed:
            if self._deadline is not None:
                return

            self._deadline = time.monotonic() + timeout
            self._flushes += 1
            for lane in self.lanes.values():
                if lane.counts.failure:
                    self._doomed.add(lane.signal)

                lane.hurry()

            self._changed.notify_all()
            thread = self._thread

        if thread is not None:
            thread.join(timeout)

        with self._changed:
            for lane in self.lanes.values():
                self._abandon(lane)

    @property
    def queued(self) -> dict[str, int]:
        """Items that wait, by signal."""
        return {signal: len(self._queues[signal]) + lane.waiting for signal, lane in self.lanes.items()}

    @property
    def queued_bytes(self) -> int:
        """Bytes held, about."""
        return self._bytes

    def _waiting(self) -> bool:
        return any(self._queues.values()) or any(lane.batches for lane in self.lanes.values())

    def _make_room(self) -> None:
        limit = self._settings.queue_bytes
        for signal in _GIVE_WAY:
            queue = self._queues.get(signal)
            if queue is None:
                continue

            most = self._settings.queue_items_of(signal)
            count = size = 0
            while queue and (self._bytes > limit or 0 < most < len(queue)):
                item = queue.popleft()
                self._bytes -= len(item.data) + ITEM_OVERHEAD
                count += 1
                size += len(item.data)

            if count:
                self.lanes[signal].lost(count, size, "the queue was full")

    # -- the thread ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="flowdeck-otlp-send", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return  # the interpreter is ending

        self._thread = thread

    def _run(self) -> None:
        suppress_instrumentation()
        while True:
            with self._changed:
                pause = self._fill()
                if not self._waiting():
                    self._flushed = self._flushes
                    self._changed.notify_all()
                    if self._deadline is not None:
                        return

                if pause > 0:
                    self._changed.wait(pause)

                if self._deadline is not None and time.monotonic() >= self._deadline:
                    return

                due = [lane for lane in self.lanes.values() if lane.due_in() == 0.0]

            for lane in due:
                self._step(lane)

    def _fill(self) -> float:
        """Move ready items into lanes; return for how long nothing is to be done, 0 when an attempt is due."""
        now = time.monotonic()
        hurried = self._flushed < self._flushes
        pause = 3600.0
        if self._metrics is not None:
            if now >= self._metrics_at or self._collected < self._flushes:
                self._collected = self._flushes
                self._metrics_at = now + self._settings.metric_interval
                self._collect(self._metrics)

            pause = self._metrics_at - now

        for signal, lane in self.lanes.items():
            queue = self._queues[signal]
            if queue and not lane.batches:
                age = now - self._since.get(signal, now)
                delay = self._settings.delay_of(signal)
                batch = self._settings.batch_items_of(signal)
                if hurried or len(queue) >= batch or age >= delay:
                    lane.put([queue.popleft() for _ in range(min(len(queue), batch))])
                    self._since[signal] = now
                else:
                    pause = min(pause, max(0.001, delay - age))

            due = lane.due_in()
            if due is not None:
                pause = min(pause, due)

        if self._deadline is not None:
            pause = min(pause, max(0.0, self._deadline - now))

        return pause

    def _collect(self, metrics: Callable[[], tuple[bytes, int] | None]) -> None:
        try:
            made = metrics()
        except Exception:
            log.exception("flowdeck otlp: metrics could not be collected")
            return

        if made is not None:
            self.lanes["metrics"].put_encoded(*made)

    def _step(self, lane: Lane) -> None:
        before = _held(lane)
        lane.step(float("inf") if self._deadline is None else max(0.05, self._deadline - time.monotonic()))
        with self._changed:
            hopeless = lane.signal in self._doomed or lane.failing_for > LAST_TRIES_SECONDS
            if self._deadline is not None and lane.counts.failure and hopeless:
                self._abandon(lane)

            self._bytes -= before - _held(lane)

    def _abandon(self, lane: Lane) -> None:
        left = lane.waiting + len(self._queues[lane.signal])
        if left:
            lane.lost(left, 0, "the process ended before the collector took them")

        self._bytes -= sum(len(item.data) + ITEM_OVERHEAD for item in self._queues[lane.signal])
        self._queues[lane.signal].clear()
        lane.batches.clear()


def _held(lane: Lane) -> int:
    return sum(len(item.data) + ITEM_OVERHEAD for batch in lane.batches for item in batch.items)


def suppress_instrumentation() -> None:
    """Keep this thread's own requests from being traced, or they would trace themselves for ever."""
    try:
        from opentelemetry import context
    except ImportError:
        return

    current: Any = context.get_current()
    for name in ("_SUPPRESS_INSTRUMENTATION_KEY", "_SUPPRESS_HTTP_INSTRUMENTATION_KEY"):
        key = getattr(context, name, None)
        if key is not None:
            current = context.set_value(key, True, current)

    context.attach(current)
