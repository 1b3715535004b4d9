"""What the Event Center does when an event is bad, or a sink or hook fails: set aside, count, tell, carry on."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowdeck.events.encoding import describe
from flowdeck.events.eventtype import Accept, EventType
from flowdeck.events.intake import make_record
from flowdeck.events.record import EventRecord

if TYPE_CHECKING:
    from flowdeck.events.hooks import Hook

__all__ = ["QuarantinedEvent", "Troubles"]

log = logging.getLogger("flowdeck.events")

QUARANTINE_LIMIT: Final = 100
"""Bad events kept for :meth:`EventCenter.quarantine`; older ones are only counted."""

_reporting: ContextVar[bool] = ContextVar("flowdeck_reporting", default=False)


class QuarantinedEvent(NamedTuple):
    """An event that was refused."""

    time_us: int
    """Microseconds since the Unix epoch."""
    event_type: str | None
    reason: str
    preview: str
    """A bounded repr of what was emitted."""


class Troubles(ABC):
    """The part of an Event Center that is about failure. No method raises."""

    def __init__(self) -> None:
        self._quarantine: deque[QuarantinedEvent] = deque(maxlen=QUARANTINE_LIMIT)
        self._quarantined = 0
        self._sink_failures: dict[str, int] = {}

    @abstractmethod
    def type(self, name: str, level: str | None = None) -> EventType: ...

    def quarantine(self) -> list[QuarantinedEvent]:
        """Return the refused events, oldest first; at most the last 100."""
        return list(self._quarantine)

    def quarantine_event(self, event: Any, problem: Exception) -> None:
        """Set a bad event aside, count it and say so. Never raises."""
        self._quarantined += 1
        event_type = event.get("event_type") if isinstance(event, dict) else getattr(event, "event_type", None)
        name = event_type[:200] if isinstance(event_type, str) else None
        preview = describe(event)["$repr"][:500]
        reason = describe(problem)["$repr"] if not str(problem) else str(problem)
        self._quarantine.append(QuarantinedEvent(time.time_ns() // 1000, name, reason, preview))
        if _worth_telling(self._quarantined):
            log.warning("event refused (%d so far): %s", self._quarantined, reason)
            payload = {"event_type": name, "reason": reason, "count": self._quarantined, "preview": preview}
            self.report("runtime.event_quarantined", payload)

    def sink_failed(self, accept: Accept, record: EventRecord, problem: Exception) -> None:
        """Count a sink that raised, and tell the others. Never raises."""
        sink = getattr(accept, "__self__", accept)
        name = str(getattr(sink, "name", None) or sink.__class__.__name__)
        count = self._sink_failures[name] = self._sink_failures.get(name, 0) + 1
        if _worth_telling(count):
            log.warning("sink %r raised (%d so far) at %s", name, count, record.event_type, exc_info=problem)
            payload = {"sink": name, "event_type": record.event_type, "failures": count}
            self.report("runtime.sink_failed", payload, error=problem, skip=sink)

    def hook_failed(self, hook: Hook, record: EventRecord, problem: BaseException) -> None:
        """Count a hook that raised, and tell everybody else. Never raises, never recurses."""
        if record.event_type == "runtime.hook_failed":
            return  # told once; a failure to hear about failures is only counted

        if _worth_telling(hook.failures):
            log.warning(
                "hook %r raised (%d so far) at %s", hook.name, hook.failures, record.event_type, exc_info=problem
            )
            payload = {
                "hook": hook.name,
                "event_type": record.event_type,
                "event_id": record.event_id,
                "failures": hook.failures,
            }
            self.report("runtime.hook_failed", payload, error=problem, skip=hook)

    def report(self, name: str, payload: dict[str, Any], *, error: Any = None, skip: object = None) -> None:
        """Emit one of the Event Center's own events to everybody but ``skip``. Reports about reports are not made."""
        if _reporting.get():
            return

        token = _reporting.set(True)
        try:
            event_type = self.type(name)
            others = [accept for accept in event_type.sinks if getattr(accept, "__self__", None) is not skip]
            if not others:
                return

            record = make_record(name, level=event_type.level, source=event_type.source, payload=payload, error=error)
            for accept in others:
                try:
                    accept(record)
                except Exception as problem:
                    self.sink_failed(accept, record, problem)
        finally:
            _reporting.reset(token)


def _worth_telling(count: int) -> bool:
    """The first ten times, then at powers of two."""
    return count <= 10 or count & (count - 1) == 0
