"""``payload["mermaid"]`` of ``triggerflow.definition_declared``, drawn for the hooks that want the event.

Natively the event carries the definition alone: drawing costs more than running a small flow, and every reader can draw
(``flowdeck graph``, :func:`flowdeck.definition.diagram.to_mermaid`). A hook of the compatible API finds it drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final

from flowdeck.definition.diagram import to_mermaid

if TYPE_CHECKING:
    from flowdeck.events.hooks import HookCallback
    from flowdeck.events.model import ObservationEvent

__all__ = ["DEFINITION_DECLARED", "with_diagrams"]

DEFINITION_DECLARED: Final = "triggerflow.definition_declared"


def with_diagrams(callback: HookCallback) -> HookCallback:
    """Return ``callback`` for events whose definitions are drawn; synchronous or asynchronous as it is."""
    if iscoroutinefunction(callback) or iscoroutinefunction(type(callback).__call__):

        async def drawing(event: ObservationEvent) -> Any:
            return await callback(_drawn(event))

    else:

        def drawing(event: ObservationEvent) -> Any:  # type: ignore[misc]
            return callback(_drawn(event))

    return wraps(callback, updated=())(drawing)


def _drawn(event: ObservationEvent) -> ObservationEvent:
    payload = event.payload
    if event.event_type != DEFINITION_DECLARED or not isinstance(payload, Mapping) or "mermaid" in payload:
        return event

    definition = payload.get("definition")
    if not isinstance(definition, dict):
        return event

    mermaid = {mode: to_mermaid(definition, mode=mode) for mode in ("simplified", "detailed")}
    return event.model_copy(update={"payload": {**payload, "mermaid": mermaid}})
