"""The Event Center: structured observation of everything that happens.

Importing this package loads no pydantic; :class:`ObservationEvent` is resolved at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowdeck.events.catalogue import CATALOGUE, EventSpec
from flowdeck.events.center import EventCenter, QuarantinedEvent, UnlistedEvent
from flowdeck.events.emitter import Emitter
from flowdeck.events.errorinfo import ErrorInfo
from flowdeck.events.eventtype import EventType
from flowdeck.events.intake import InvalidEvent
from flowdeck.events.lineage import Fragment, RunContext, current_run, run_context, run_scope
from flowdeck.events.record import EventRecord
from flowdeck.events.sink import Sink

if TYPE_CHECKING:
    from flowdeck.events.model import ObservationEvent, RuntimeEvent

__all__ = [
    "CATALOGUE",
    "Emitter",
    "ErrorInfo",
    "EventCenter",
    "EventRecord",
    "EventSpec",
    "EventType",
    "Fragment",
    "InvalidEvent",
    "ObservationEvent",
    "QuarantinedEvent",
    "RunContext",
    "RuntimeEvent",
    "Sink",
    "UnlistedEvent",
    "current_run",
    "run_context",
    "run_scope",
]


def __getattr__(name: str) -> Any:
    if name in ("ObservationEvent", "RuntimeEvent"):
        from flowdeck.events import model

        return getattr(model, name)

    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
