"""The reference system's names, so that a program changes one import: ``from flowdeck.compat import Agently``.

Names are resolved at first use. What differs on purpose is listed in ``docs/compatibility.md``; what is kept here
although the native API does better: invalid events raise :class:`pydantic.ValidationError` into the emitter, and the
error helpers re-raise when ``runtime.raise_error`` / ``runtime.raise_critical`` are set (the default).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdeck.compat.agently import Agently, AgentlyMain
    from flowdeck.compat.event_center import CompatEmitter, CompatEventCenter
    from flowdeck.definition.retry import Retry
    from flowdeck.events.aliases import (
        get_triggerflow_event_aliases,
        matches_observation_event_type,
        normalize_triggerflow_event_type,
    )
    from flowdeck.events.errorinfo import ErrorInfo
    from flowdeck.events.lineage import RunContext
    from flowdeck.events.model import ObservationEvent, RuntimeEvent
    from flowdeck.execution.data import TriggerFlowRuntimeData
    from flowdeck.triggerflow import TriggerFlow

__all__ = [
    "Agently",
    "AgentlyMain",
    "CompatEmitter",
    "CompatEventCenter",
    "ErrorInfo",
    "EventCenter",
    "ObservationEvent",
    "Retry",
    "RunContext",
    "RuntimeEvent",
    "TriggerFlow",
    "TriggerFlowRuntimeData",
    "get_triggerflow_event_aliases",
    "matches_observation_event_type",
    "normalize_triggerflow_event_type",
]

_HOMES = {
    "Agently": "flowdeck.compat.agently",
    "AgentlyMain": "flowdeck.compat.agently",
    "CompatEmitter": "flowdeck.compat.event_center",
    "CompatEventCenter": "flowdeck.compat.event_center",
    "ErrorInfo": "flowdeck.events.errorinfo",
    "ObservationEvent": "flowdeck.events.model",
    "Retry": "flowdeck",
    "RunContext": "flowdeck.events.lineage",
    "RuntimeEvent": "flowdeck.events.model",
    "TriggerFlow": "flowdeck",
    "TriggerFlowRuntimeData": "flowdeck",
    "get_triggerflow_event_aliases": "flowdeck.events.aliases",
    "matches_observation_event_type": "flowdeck.events.aliases",
    "normalize_triggerflow_event_type": "flowdeck.events.aliases",
}


def __getattr__(name: str) -> Any:
    if name == "EventCenter":
        from flowdeck.compat.event_center import CompatEventCenter

        return CompatEventCenter

    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(
            f"module 'flowdeck.compat' has no attribute {name!r}; docs/compatibility.md lists what is there"
        )

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    EventCenter = CompatEventCenter
