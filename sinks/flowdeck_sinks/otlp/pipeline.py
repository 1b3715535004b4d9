"""From journal lines to encoded items: decode, map, encode. Used by both modes, one thread at a time.

Memory mode feeds it the wire form of live records, durable mode the lines of the store; nothing here knows which.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from flowdeck_sinks.otlp.delivery import Groups, Item
from flowdeck_sinks.otlp.logs import LogMapper
from flowdeck_sinks.otlp.mapper import SpanMapper
from flowdeck_sinks.otlp.metric_source import MetricSource
from flowdeck_sinks.otlp.reading import Event, decode_event
from flowdeck_sinks.otlp.sampling import make_sampler
from flowdeck_sinks.otlp.settings import OtlpSettings
from flowdeck_sinks.otlp.wire import encode_log, encode_span

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

__all__ = ["Pipeline"]

log = logging.getLogger("flowdeck.sinks.otlp")

_LOUD: Final = 3
"""How many broken lines are logged in full; the rest is counted."""


class Pipeline:
    """Turns event lines into encoded spans and log records.

    Args:
        settings: which signals are wanted.
        resource: the SDK resource of everything made here.
        mapper_options: further options of :class:`SpanMapper`.
    """

    def __init__(self, settings: OtlpSettings, resource: Resource, **mapper_options: Any) -> None:
        self.undecodable = 0
        """Lines that are no events."""
        self.failed = 0
        """Events or spans a defect kept from being mapped or encoded."""
        self.events = 0
        self._wanted = set(settings.targets)
        self._groups = Groups()
        self._out: dict[str, list[Item]] = {"traces": [], "logs": []}
        self._meter = MetricSource(resource) if "metrics" in settings.targets else None
        self.mapper = SpanMapper(
            resource=resource,
            sampler=make_sampler(settings.sampler, settings.ratio),
            on_final=None if self._meter is None else self._meter.measurements.record,
            **mapper_options,
        )
        if self._meter is not None:
            self._meter.measurements.active = self.mapper.active

        self._log_mapper = LogMapper(self.mapper) if "logs" in settings.targets else None

    def feed(self, line: bytes, writer: str) -> Event | None:
        """Take one event; what it leads to comes with :meth:`take`. Never raises. Returns the event, if it is one."""
        self.events += 1
        try:
            event = decode_event(line)
        except Exception as problem:
            self.undecodable += 1
            if self.undecodable <= _LOUD:
                log.warning("flowdeck otlp: a line is no event and is left out: %s", problem)

            return None

        try:
            spans = self.mapper.feed(event, writer)
            if spans:
                self._spans(spans)

            if self._log_mapper is not None:
                readable = self._log_mapper.feed(event, writer)
                if readable is not None:
                    self._log(readable, event.event_id)
        except Exception:
            self._defect(event.event_type)

        return event

    def due(self) -> None:
        """Let go of spans whose grace has passed."""
        self._call(self.mapper.due)

    def flush(self) -> None:
        """Let go of every span that has ended."""
        self._call(self.mapper.flush)

    def leave_out(self, signal: str) -> None:
        """Make no more items of a signal the collector does not take."""
        self._wanted.discard(signal)
        if signal == "logs":
            self._log_mapper = None

    def bury(self, writers: set[str], resumable: set[str]) -> None:
        """Let go of the open runs of writers that died."""
        self._call(lambda: self.mapper.flush_incomplete(writers=writers, resumable=resumable))

    def metrics(self) -> tuple[bytes, int] | None:
        """Return the metrics as an encoded request and its number of points; ``None`` when there are none."""
        return None if self._meter is None else self._meter.request()

    def take(self) -> dict[str, list[Item]]:
        """Return and forget the items made so far, by signal."""
        out, self._out = self._out, {"traces": [], "logs": []}
        return out

    @property
    def made(self) -> int:
        """Items that wait for :meth:`take`."""
        return sum(map(len, self._out.values()))

    def statistics(self) -> dict[str, int]:
        """Return the counters of reading and mapping."""
        out = {"events": self.events, "undecodable": self.undecodable, "map_failed": self.failed}
        out.update((f"mapper_{name}", value) for name, value in self.mapper.statistics().items())
        return out

    def _call(self, method: Callable[[], Iterable[Any]]) -> None:
        try:
            self._spans(method())
        except Exception:
            self._defect("a span")

    def _spans(self, spans: Iterable[Any]) -> None:
        if "traces" not in self._wanted:
            return

        push = self._out["traces"].append
        for span in spans:
            try:
                data = encode_span(span)
            except Exception:
                self._defect(getattr(span, "name", "span"))
                continue

            group = self._groups.of(span.resource, span.instrumentation_scope)
            push(Item(group, data, span.context.span_id.to_bytes(8, "big")))

    def _log(self, readable: Any, event_id: str) -> None:
        group = self._groups.of(readable.resource, readable.instrumentation_scope)
        key = blake2b(event_id.encode("utf-8", "replace"), digest_size=8).digest()
        self._out["logs"].append(Item(group, encode_log(readable.log_record), key))

    def _defect(self, what: str) -> None:
        self.failed += 1
        if self.failed <= _LOUD:
            log.exception("flowdeck otlp: %s could not be mapped", what)
