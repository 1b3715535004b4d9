"""Collector: requests in, events in the journal, and an answer only when the kernel has them.

::

    collector = Collector(".flowdeck")
    answer = collector.take("trace", "application/x-protobuf", "gzip", body)   # one thread at a time
    collector.close()

Every event is written once: its id is made of the sender's ids, and ids that were received lately are known, also after
a restart. What the disk refuses is not acknowledged, so the sender keeps it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from flowdeck_sinks.collect.decoding import MAX_ITEMS, BadRequest, answer_body, decode_body, inflate, prepare
from flowdeck_sinks.collect.lines import Line
from flowdeck_sinks.collect.logs import Copies, log_lines
from flowdeck_sinks.collect.seen import WINDOW, Seen, stored_ids
from flowdeck_sinks.collect.spans import Origin, Refused, span_lines
from flowdeck_sinks.collect.values import attributes_of, clip
from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.otlp.conventions import SCOPE_NAME

__all__ = ["MAX_BODY", "Answer", "Collector"]

MAX_BODY: Final = 16 * 1024 * 1024
"""Bytes of one request, unpacked."""
FLUSH_SECONDS: Final = 10.0
"""Longest time a request waits for the disk."""
TROUBLE_SECONDS: Final = 0.5
"""The same after it was in vain: senders that wait in line are told at once to come again."""
_REASONS: Final = 5
"""Reasons named in one answer."""
_COUNTERS: Final = (
    "requests",
    "spans",
    "log_records",
    "metric_points",
    "events",
    "duplicates",
    "rejected",
    "own",
    "refused_requests",
)


class Answer(NamedTuple):
    """What a request is answered."""

    status: int
    body: bytes


class Collector:
    """Takes requests into a store. Not thread-safe: one thread calls :meth:`take`.

    Args:
        store: The store's directory; created when missing.
        max_body: Bytes of one request, unpacked.
        own: Take in what a Flowdeck exported, too, as if another program had sent it. Otherwise it is counted and left
            out: a program that runs flows writes to a store itself, in full, and would be seen twice.
        window: Events that are remembered to recognise a delivery that is repeated.
        flush_seconds: Longest wait for the disk, after which the sender is told to come again.

    Raises:
        flowdeck.layout.StoreError: The store cannot be created or written.
        ModuleNotFoundError: The extra ``otlp`` is not installed.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        *,
        max_body: int = MAX_BODY,
        own: bool = False,
        window: int = WINDOW,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        prepare()
        self.max_body = max_body
        self._own = own
        self._flush_seconds = flush_seconds
        self._sink = JournalSink(store, lossless=True, lossless_seconds=flush_seconds)
        self._seen = Seen(window)
        self._seen.extend(stored_ids(store, window))
        self._count: Counter[str] = Counter()
        self._unsure: list[str] = []
        """Events handed to the journal that are not known to be on disk; the journal's queue bounds them."""
        self._lost = 0
        """What the journal had lost when all was known to be on disk."""
        self._trouble = False

    def take(self, signal: str, content_type: str, encoding: str, body: bytes) -> Answer:
        """Take one request in and return the answer to it, a 200.

        Raises:
            BadRequest: It is refused, or not safe yet: then nothing of it is forgotten by its sender.
        """
        self._count["requests"] += 1
        try:
            message = decode_body(signal, content_type, inflate(body, encoding, self.max_body))
            if signal == "metrics":
                return self._metrics(message, content_type)

            if self._trouble:
                self._flush(TROUBLE_SECONDS)  # nothing more in, before what waits is safe

            rejected, reasons = self._write(signal, message)
            self._flush(self._flush_seconds)
        except BadRequest:
            self._count["refused_requests"] += 1
            raise

        return Answer(200, answer_body(signal, content_type, rejected, "; ".join(reasons)))

    def statistics(self) -> dict[str, int]:
        """Return counters: requests, what was in them, events written, duplicates, and what was not taken."""
        return {name: self._count[name] for name in _COUNTERS}

    def close(self) -> None:
        """Write what waits and seal the journal."""
        self._sink.close()

    def _write(self, signal: str, message: Any) -> tuple[int, list[str]]:
        """Hand a request's events to the journal; return how many items were refused, and why."""
        received = time.time_ns() // 1000
        rejected, own, told = 0, 0, 0
        reasons: list[str] = []
        copies = Copies()
        for item, origin in _items(signal, message):
            if origin.scope.get("name") == SCOPE_NAME and not self._own:
                own += 1
                continue

            self._count["spans" if signal == "trace" else "log_records"] += 1
            try:
                if signal == "trace":
                    told += len(item.events)
                    if told > MAX_ITEMS:
                        raise Refused(f"more than {MAX_ITEMS} span events in one request")

                    lines = span_lines(item, origin, received)
                else:
                    lines = log_lines(item, origin, received, copies)
            except Refused as problem:
                rejected += 1
                if len(reasons) < _REASONS and str(problem) not in reasons:
                    reasons.append(str(problem))

                continue

            new = 0
            for line in lines:
                new += self._keep(line)

            if not new:
                self._count["duplicates"] += 1

        self._count["rejected"] += rejected
        if own:
            self._count["own"] += own
            reasons.append(f"{own} left out: Flowdeck's own telemetry, which is in a store already")

        return rejected, reasons

    def _keep(self, line: Line) -> bool:
        """Hand an event to the journal unless it has it already; return whether it was new."""
        if line.event_id in self._seen:
            return False

        lost = self._sink.dropped
        self._sink.accept(line)
        if self._sink.dropped != lost:
            self._lost += 1  # this one
            self._trouble = True
            raise _again()

        self._seen.add(line.event_id)
        self._unsure.append(line.event_id)
        self._count["events"] += 1
        return True

    def _flush(self, seconds: float) -> None:
        """Wait until everything is on disk.

        Raises:
            BadRequest: It is not in time, or the journal lost some of it: its segment was taken away, for example.
        """
        if not self._sink.flush(min(seconds, self._flush_seconds)):
            self._trouble = True
            raise _again()

        self._trouble = False
        unsure, self._unsure = self._unsure, []
        if self._sink.dropped != self._lost:
            self._lost = self._sink.dropped
            self._seen.forget(unsure)
            self._count["events"] -= len(unsure)
            raise _again()

    def _metrics(self, message: Any, content_type: str) -> Answer:
        points = sum(
            len(getattr(metric, metric.WhichOneof("data")).data_points) if metric.WhichOneof("data") else 0
            for resource in message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        )
        self._count["metric_points"] += points
        said = "flowdeck collect keeps traces and logs; metrics are counted and not stored" if points else ""
        return Answer(200, answer_body("metrics", content_type, points, said))


def _again() -> BadRequest:
    return BadRequest(503, "the store cannot be written now; what was sent is not lost if it is sent again", 5)


def _items(signal: str, message: Any) -> Iterator[tuple[Any, Origin]]:
    """Go through the spans or log records of a request."""
    resources, scopes, items = (
        ("resource_spans", "scope_spans", "spans")
        if signal == "trace"
        else ("resource_logs", "scope_logs", "log_records")
    )
    for group in getattr(message, resources):
        resource = attributes_of(group.resource.attributes)
        name = resource.get("service.name")
        service = clip(name) if isinstance(name, str) and name else "unknown_service"
        for part in getattr(group, scopes):
            scope = {"name": part.scope.name}
            if part.scope.version:
                scope["version"] = part.scope.version

            if part.scope.attributes:
                scope["attributes"] = attributes_of(part.scope.attributes)

            origin = Origin(service, resource, scope)
            for item in getattr(part, items):
                yield item, origin
