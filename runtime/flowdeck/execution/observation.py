"""The framework events an execution emits: their types, looked up once per Event Center."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from flowdeck.events import EventCenter
from flowdeck.events.center import EventType

__all__ = ["FlowEvents", "flow_events"]

SOURCE = "TriggerFlowExecution"


class FlowEvents:
    """Every event type the driver emits. ``events.chunk_started.sinks`` is empty when nobody wants it."""

    __slots__ = (
        "__weakref__",
        "auto_close_timeout",
        "chunk_completed",
        "chunk_failed",
        "chunk_started",
        "continue_rejected",
        "definition_declared",
        "event_rejected",
        "execution_cancelled",
        "execution_closed",
        "execution_completed",
        "execution_failed",
        "execution_heartbeat",
        "execution_recovered",
        "execution_resumed",
        "execution_sealed",
        "execution_started",
        "execution_superseded",
        "execution_unsealed",
        "execution_waiting",
        "handler_dispatch",
        "handler_diverged",
        "inbox_applied",
        "interrupt_answered",
        "interrupt_expired",
        "interrupt_raised",
        "interrupt_unhandled",
        "intervention_consumed",
        "intervention_expired",
        "intervention_inserted",
        "intervention_received",
        "intervention_rejected",
        "pending_interrupts_cancelled",
        "pending_interrupts_close_rejected",
        "pending_tasks_cancelled",
        "port_called",
        "port_failed",
        "port_returned",
        "result_set",
        "signal",
        "state_changed",
        "stream_closed",
        "stream_item_emitted",
        "stream_item_rejected",
        "unseal_rejected",
    )

    def __init__(self, center: EventCenter) -> None:
        for name in self.__slots__:
            if not name.startswith("__"):
                family = "chunk." + name[6:] if name.startswith("chunk_") else "triggerflow." + name
                setattr(self, name, center.type(family))

    if TYPE_CHECKING:  # at run time it would stand in the way of every look at a slot

        def __getattr__(self, name: str) -> EventType: ...


_cache: WeakKeyDictionary[Any, FlowEvents] = WeakKeyDictionary()


def flow_events(center: EventCenter) -> FlowEvents:
    """Return the event types of ``center``, made once."""
    events = _cache.get(center)
    if events is None:
        events = _cache[center] = FlowEvents(center)

    return events
