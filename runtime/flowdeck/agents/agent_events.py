"""The events of agents: ``agent_turn.*``, ``request.*``, ``prompt.built``, ``model.*`` and ``session.*``.

Order of one turn (behaviour §6.3)::

    agent_turn.started
      request.started
        [session.applied_to_request] [action loop]
        model.request_started  prompt.built  model.requesting  model.streaming*  model.meta  model.completed
        [model.retrying  request.started  model.request_started …]       another attempt: another model_request run
      request.completed | request.failed
    agent_turn.completed | agent_turn.failed                             once, after the last attempt
    [session.context_appended]

No key and no header is in any of them; prompts and answers are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from flowdeck.events.center import EventCenter
    from flowdeck.events.eventtype import EventType
    from flowdeck.events.lineage import RunContext

__all__ = ["AgentEvents"]

_NAMES: Final = (
    *(f"agent_turn.{name}" for name in ("started", "completed", "failed")),
    *(f"request.{name}" for name in ("started", "completed", "failed")),
    "prompt.built",
    *(
        f"model.{name}"
        for name in (
            "request_started",
            "requesting",
            "streaming",
            "streaming_canceled",
            "meta",
            "completed",
            "parse_failed",
            "request_failed",
            "retrying",
            "validation_failed",
            "validation_error",
        )
    ),
    *(f"session.{name}" for name in ("activated", "deactivated", "applied_to_request", "context_appended")),
)


class AgentEvents:
    """The event types of one Event Center, looked up once."""

    __slots__ = ("center", "streaming", "types")

    def __init__(self, center: EventCenter) -> None:
        self.center = center
        self.types: dict[str, EventType] = {name: center.type(name) for name in _NAMES}
        self.streaming = self.types["model.streaming"]

    def wanted(self, name: str) -> bool:
        """Whether anybody takes the event; test it before building a large payload."""
        return bool(self.types[name].sinks)

    def tell(
        self,
        name: str,
        payload: Mapping[str, Any],
        run: RunContext | None,
        *,
        error: BaseException | None = None,
        duration_us: int | None = None,
        message: str | None = None,
        scope: str | None = None,
        attempt: int = 0,
        source: str | None = None,
    ) -> None:
        """Emit one event, if anybody takes it."""
        event = self.types[name]
        if event.sinks:
            event.emit(
                payload,
                run=run,
                error=error,
                duration_us=duration_us,
                message=message,
                scope=scope,
                attempt=attempt,
                source=source,
            )
