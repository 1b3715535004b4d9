"""The events of actions: ``action.*``, and beside a loop's the paired ``tool.*`` for subscribers of old.

A twin follows its primary at once with the same payload, level, error and run, and says so in its meta
(``compat_event_alias``, ``compat_alias_for``, ``primary_event_id``), so that consumers count once. The setting
``action.tool_events`` turns the twins off. Source: seed 004; behaviour §5.7, §6.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from flowdeck.events.errorinfo import ErrorInfo
from flowdeck.events.eventtype import EventType
from flowdeck.events.ids import next_serial
from flowdeck.events.record import EventRecord

if TYPE_CHECKING:
    from flowdeck.events.lineage import RunContext
    from flowdeck.execution.data import TriggerFlowRuntimeData
    from flowdeck.execution.services import Services

__all__ = ["TOOL_EVENTS", "ActionEvents"]

SOURCE: Final = "ActionFlow"
TOOL_EVENTS: Final = "action.tool_events"
"""Setting: ``False`` turns the ``tool.*`` twins off."""
_LOOP: Final = ("loop_started", "plan_ready", "loop_failed", "loop_completed")
_CALL: Final = ("started", "completed", "failed")


class ActionEvents:
    """Emits the events of one Event Center's actions."""

    def __init__(self, services: Services) -> None:
        self._settings = services.settings
        self.center = center = services.center
        self._types = {name: center.type(f"action.{name}") for name in (*_LOOP, *_CALL)}
        self._twins = {name: center.type(f"tool.{name}") for name in _LOOP}

    def wanted(self, name: str) -> bool:
        """Whether anybody takes ``action.<name>`` or its twin; test it before building a payload."""
        twin = self._twins.get(name)
        return bool(self._types[name].sinks or (twin is not None and twin.sinks))

    def loop(
        self,
        name: str,
        payload: Mapping[str, Any],
        run: RunContext,
        *,
        data: TriggerFlowRuntimeData | None = None,
        error: BaseException | None = None,
        duration_us: int | None = None,
        message: str | None = None,
    ) -> None:
        """Emit ``action.<name>`` of a loop and its twin."""
        primary, twin = self._types[name], self._twins[name]
        if not (primary.sinks or twin.sinks):
            return

        info = None if error is None else ErrorInfo.of(error)
        text = message or (
            f"Action {name.replace('_', ' ')}." if error is None else f"Action loop failed: {error}"[:500]
        )
        record = _record(primary, payload, run, data, info, text, duration_us, None)
        primary.deliver(record)
        if twin.sinks and self._settings.get(TOOL_EVENTS, True):
            meta = {
                "compat_event_alias": True,
                "compat_alias_for": f"action.{name}",
                "primary_event_id": record.event_id,
                "compat_family": "tool",
            }
            said = text.replace("Action", "Tool", 1)
            twin.deliver(_record(twin, payload, run, data, info, said, duration_us, meta))

    def call(
        self,
        name: str,
        payload: Mapping[str, Any],
        run: RunContext,
        *,
        data: TriggerFlowRuntimeData | None = None,
        duration_us: int | None = None,
        message: str | None = None,
    ) -> None:
        """Emit ``action.<name>`` of one call."""
        event = self._types[name]
        if event.sinks:
            event.deliver(_record(event, payload, run, data, None, message, duration_us, None))


def _record(
    event: EventType,
    payload: Mapping[str, Any],
    run: RunContext,
    data: TriggerFlowRuntimeData | None,
    error: ErrorInfo | None,
    message: str | None,
    duration_us: int | None,
    meta: dict[str, Any] | None,
) -> EventRecord:
    return EventRecord(
        event.name,
        event.level,
        time_ns() // 1000,
        next_serial(),
        SOURCE,
        payload,
        None,
        run,
        scope=data.scope if data is not None else None,
        attempt=data.attempt if data is not None else 0,
        duration_us=duration_us,
        message=message,
        error=error,
        _meta=meta,
    )
