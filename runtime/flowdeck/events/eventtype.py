"""EventType: one event name at one level, and the sinks that want it. The hot path of every emit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import time_ns
from typing import TYPE_CHECKING, Any

from flowdeck.events.errorinfo import ErrorInfo
from flowdeck.events.ids import next_serial
from flowdeck.events.lineage import Fragment, RunContext
from flowdeck.events.record import EventRecord, head_bytes

if TYPE_CHECKING:
    from flowdeck.events.center import EventCenter
    from flowdeck.events.hooks import Hook

__all__ = ["Accept", "EventType"]

Accept = Callable[[EventRecord], None]


class EventType:
    """One event name of one Event Center. Get it once with :meth:`EventCenter.type` and keep it.

    :attr:`sinks` is empty when nobody wants the event; a caller tests it before building a payload::

        if self._started.sinks:
            self._started.emit({"status": "running"}, static, run, epoch, seq)
    """

    __slots__ = ("__weakref__", "center", "common", "direct", "hooks", "level", "name", "sinks", "source")

    def __init__(self, center: EventCenter, name: str, level: str, source: str) -> None:
        self.center = center
        self.name = name
        self.level = level
        self.source = source
        """The default ``source`` of its events."""
        self.common = head_bytes(name, source, level) + b'null,"payload":'
        self.sinks: tuple[Accept, ...] = ()
        """Everything that takes the event: sinks, then background deliveries to hooks."""
        self.direct: tuple[Accept, ...] = ()
        """The sinks alone."""
        self.hooks: tuple[Hook, ...] = ()
        """The matching hooks alone."""

    def emit(
        self,
        payload: Any = None,
        static: Fragment | None = None,
        run: RunContext | None = None,
        epoch: int = 0,
        seq: int = 0,
        sub: int = 0,
        scope: str | None = None,
        cause: int = 0,
        attempt: int = 0,
        duration_us: int | None = None,
        message: str | None = None,
        error: Any = None,
        meta: Mapping[str, Any] | None = None,
        source: str | None = None,
        level: str | None = None,
    ) -> None:
        """Emit one framework event. Never raises, never waits for a hook.

        Args:
            payload: what is new in this event; merged over ``static``. Kept by reference.
            static: the pre-encoded part that all events of one place share.
            run: the run the event belongs to.
            epoch, seq, sub: the order of the event within its execution.
            scope: the place in the flow.
            cause: ``seq`` of the transition that caused this one.
            attempt: 1-based attempt of the step.
            duration_us: microseconds on a monotonic clock, for events that end something.
            error: an exception, a text, a mapping or an :class:`ErrorInfo`.
            level: another level than the type's own.
        """
        sinks = self.sinks
        name_level = self.level
        if level is not None and level != name_level:
            try:
                variant = self.center.type(self.name, level)
            except Exception as problem:
                self.center.quarantine_event({"event_type": self.name, "level": level}, problem)
                return

            variant.emit(
                payload, static, run, epoch, seq, sub, scope, cause, attempt, duration_us, message, error, meta, source
            )  # fmt: skip
            return

        if not sinks:
            return

        record = EventRecord(
            self.name,
            name_level,
            time_ns() // 1000,
            next_serial(),
            self.source if source is None else source,
            payload,
            static,
            run,
            epoch,
            seq,
            sub,
            scope,
            cause,
            attempt,
            duration_us,
            message,
            None if error is None else ErrorInfo.of(error),
            meta,
            # The constant bytes of the usual shape; any other one is put together when it is encoded.
            self.common if message is None and error is None and (source is None or source == self.source) else None,
        )
        for accept in sinks:
            try:
                accept(record)
            except Exception as problem:
                self.center.sink_failed(accept, record, problem)

    def deliver(self, record: EventRecord) -> None:
        """Hand a record of this type, made elsewhere, to whoever wants it. Never raises, never waits for a hook."""
        for accept in self.sinks:
            try:
                accept(record)
            except Exception as problem:
                self.center.sink_failed(accept, record, problem)

    def __repr__(self) -> str:
        return f"EventType({self.name!r}, {self.level}, sinks={len(self.direct)}, hooks={len(self.hooks)})"
